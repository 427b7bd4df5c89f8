//! Numbered datagrams from pod to pod: each is to arrive once and to come back once, so that a single
//! lost packet shows.
//!
//! What isn't back yet is bounded by a window, so that no buffer on the way overflows, however late a
//! thread is scheduled: what is lost was dropped on the way.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{LabError, Pod, probe, running::Running};

/// Packets on the way, at most: with their overhead they fit the smallest default socket buffer.
const WINDOW: usize = 128;
/// How long the last ones may take, and all of a flow before the next flow is begun.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a receiver looks out for what should not come.
const SETTLE: Duration = Duration::from_millis(300);
const TICK: Duration = Duration::from_millis(1);

/// How datagrams are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// At most so many in a millisecond.
    pub per_millisecond: u32,
    /// After so many, from another source port: a new flow.
    pub per_flow: u64,
    /// They are expected to come back: no more than some are on the way. Otherwise nothing is waited
    /// for.
    pub answered: bool,
}

/// What became of numbered datagrams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// How many were sent.
    pub sent: u64,
    /// How many arrived, each counted once.
    pub arrived: u64,
    /// Numbers that never arrived.
    pub lost: Vec<u64>,
    /// Numbers that arrived, but didn't come back.
    pub unanswered: Vec<u64>,
    /// How often one arrived or came back that had done so before.
    pub repeated: u64,
}

impl Delivered {
    /// Everything arrived once and came back once.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.sent > 0 && self.lost.is_empty() && self.unanswered.is_empty() && self.repeated == 0
    }
}

/// A sender and a receiver, each on its thread, until [`Datagrams::stop`].
#[derive(Debug)]
pub struct Datagrams {
    destination: SocketAddr,
    answered: bool,
    sender: Running<(u64, Tally)>,
    receiver: Running<Tally>,
}

impl Datagrams {
    /// Begins to send from a pod to a port of another one, from and to their first addresses of a
    /// family, 4 or 6.
    ///
    /// # Errors
    ///
    /// [`LabError`] if there is no such address, socket or thread.
    pub fn start(
        from: &Pod,
        to: &Pod,
        family: u8,
        port: u16,
        pace: Pace,
    ) -> Result<Self, LabError> {
        let destination = destination(to, family, port)?;
        let receiver = to.run(|| {
            let bound = UdpSocket::bind(destination);
            let socket = bound.map_err(|source| listen_error(to, destination, source))?;
            Running::start("receiver", move |stop| receive(&socket, stop))
        })??;
        let sender = from.run(|| {
            Running::start("sender", move |stop| Sender::new(destination, pace)?.run(stop))
        })??;
        Ok(Self { destination, answered: pace.answered, sender, receiver })
    }

    /// Ends sending, waits for what is on the way, and says what became of all.
    ///
    /// # Errors
    ///
    /// [`LabError::Probe`] if a socket failed.
    pub fn stop(self) -> Result<Delivered, LabError> {
        let destination = self.destination;
        let failed = |source| LabError::Probe { destination, source };
        let (sent, returned) = self.sender.end().map_err(failed)?;
        if !self.answered {
            thread::sleep(SETTLE);
        }
        let arrived = self.receiver.end().map_err(failed)?;
        let missing = |tally: &Tally, number: &u64| !tally.has(*number);
        let lost: Vec<u64> = (0..sent).filter(|number| missing(&arrived, number)).collect();
        let came = (0..sent).filter(|number| arrived.has(*number));
        Ok(Delivered {
            sent,
            arrived: sent - lost.len() as u64,
            unanswered: came.filter(|number| missing(&returned, number)).collect(),
            lost,
            repeated: arrived.repeated + returned.repeated,
        })
    }
}

/// A port of a pod's first address of a family.
pub(crate) fn destination(pod: &Pod, family: u8, port: u16) -> Result<SocketAddr, LabError> {
    let any: IpAddr =
        if family == 4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let address = pod.address_of(family);
    let address =
        address.ok_or_else(|| LabError::Address { address: any, owner: pod.name().to_owned() });
    Ok(SocketAddr::new(address?, port))
}

fn listen_error(pod: &Pod, address: SocketAddr, source: io::Error) -> LabError {
    LabError::Listen { owner: pod.name().to_owned(), protocol: "UDP", address, source }
}

/// Which numbers were seen.
#[derive(Debug, Default)]
struct Tally {
    seen: Vec<bool>,
    repeated: u64,
}

impl Tally {
    fn has(&self, number: u64) -> bool {
        self.seen.get(number as usize) == Some(&true)
    }

    fn note(&mut self, number: u64) {
        let number = number as usize;
        if self.seen.len() <= number {
            self.seen.resize(number + 1, false);
        }
        self.repeated += u64::from(self.seen[number]);
        self.seen[number] = true;
    }
}

/// Notes every datagram and sends it back.
fn receive(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<Tally> {
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut tally = Tally::default();
    let mut number = [0; 8];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut number) {
            Ok((8, source)) => {
                tally.note(u64::from_ne_bytes(number));
                // An answer that can't be sent is one that doesn't come back.
                let _ = socket.send_to(&number, source);
            }
            Ok(_) => {}
            Err(error) if probe::is_silence(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(tally)
}

struct Sender {
    destination: SocketAddr,
    pace: Pace,
    socket: UdpSocket,
    sent: u64,
    /// What was given up: it isn't on the way any more.
    given_up: u64,
    back: u64,
    returned: Tally,
}

impl Sender {
    fn new(destination: SocketAddr, pace: Pace) -> io::Result<Self> {
        let socket = socket_to(destination)?;
        let returned = Tally::default();
        Ok(Self { destination, pace, socket, sent: 0, given_up: 0, back: 0, returned })
    }

    fn run(mut self, stop: &AtomicBool) -> io::Result<(u64, Tally)> {
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..self.pace.per_millisecond {
                self.collect()?;
                if self.on_the_way() >= WINDOW as u64 {
                    break;
                }
                self.send()?;
            }
            thread::sleep(TICK);
        }
        self.wait_for_all()?;
        Ok((self.sent, self.returned))
    }

    fn on_the_way(&self) -> u64 {
        if self.pace.answered { self.sent.saturating_sub(self.given_up + self.back) } else { 0 }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.sent > 0 && self.sent.is_multiple_of(self.pace.per_flow) {
            self.wait_for_all()?;
            self.socket = socket_to(self.destination)?;
        }
        self.socket.send(&self.sent.to_ne_bytes())?;
        self.sent += 1;
        Ok(())
    }

    /// Notes what has come back.
    fn collect(&mut self) -> io::Result<()> {
        let mut number = [0; 8];
        loop {
            match self.socket.recv(&mut number) {
                Ok(_) => {
                    self.returned.note(u64::from_ne_bytes(number));
                    self.back += 1;
                }
                Err(error) if probe::is_silence(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Until everything is back, or it has taken too long: then it is lost.
    fn wait_for_all(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.on_the_way() > 0 && Instant::now() < deadline {
            thread::sleep(TICK);
            self.collect()?;
        }
        self.given_up += self.on_the_way();
        Ok(())
    }
}

fn socket_to(destination: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(probe::unspecified(destination))?;
    socket.connect(destination)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_or_repeated_shows() {
        let mut tally = Tally::default();
        [0, 2, 2].into_iter().for_each(|number| tally.note(number));
        assert!(tally.has(0) && !tally.has(1) && tally.has(2) && !tally.has(3));
        assert_eq!(tally.repeated, 1);
        let sound = Delivered { sent: 3, arrived: 3, ..Delivered::default() };
        assert!(sound.complete());
        assert!(!Delivered { lost: vec![1], ..sound.clone() }.complete());
        assert!(!Delivered { unanswered: vec![1], ..sound.clone() }.complete());
        assert!(!Delivered { repeated: 1, ..sound }.complete());
        assert!(!Delivered::default().complete(), "nothing sent is nothing shown");
    }
}

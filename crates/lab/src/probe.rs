//! One question, one answer: whether a destination can be reached from the calling thread's
//! namespace. The `Pod` methods of the same names ask from a pod.
//!
//! A datapath that drops without a word looks like loss, so a question is repeated (by TCP itself, or
//! here) until its time is over: give little time where no answer is expected.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::LabError;

/// How long a datagram's answer may take before the datagram is sent again.
const REPEAT_AFTER: Duration = Duration::from_millis(250);
/// What is sent; long enough that a stray datagram isn't taken for the answer.
const PAYLOAD: &[u8] = b"flowgate: who receives this sends it back\n";

/// What became of a question.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The payload came back.
    Echoed,
    /// Somebody said no: a reset, or an ICMP error.
    Refused,
    /// Nobody said anything in time.
    Silent,
}

impl Answer {
    /// The destination was reached, and so was the source by the answer.
    #[must_use]
    pub const fn reached(self) -> bool {
        matches!(self, Self::Echoed)
    }
}

/// Opens a TCP connection, and has a payload sent back on it.
///
/// # Errors
///
/// [`LabError::Probe`] if there is no socket, [`LabError::WrongEcho`] if something else came back.
pub fn tcp(destination: SocketAddr, timeout: Duration) -> Result<Answer, LabError> {
    let deadline = Instant::now() + timeout;
    let echo = || {
        let mut stream = TcpStream::connect_timeout(&destination, timeout)?;
        exchange(&mut stream, PAYLOAD, left(deadline)?)
    };
    concluded(destination, echo())
}

/// Has a UDP datagram sent back.
///
/// # Errors
///
/// As [`tcp`].
pub fn udp(destination: SocketAddr, timeout: Duration) -> Result<Answer, LabError> {
    udp_with(PAYLOAD, destination, timeout)
}

/// [`udp`] with a datagram of so many bytes, which are all compared: one that is longer than the MTU
/// travels in fragments.
///
/// # Errors
///
/// As [`tcp`].
pub fn udp_of(
    bytes: usize,
    destination: SocketAddr,
    timeout: Duration,
) -> Result<Answer, LabError> {
    udp_with(&payload_of(bytes), destination, timeout)
}

fn udp_with(
    payload: &[u8],
    destination: SocketAddr,
    timeout: Duration,
) -> Result<Answer, LabError> {
    let deadline = Instant::now() + timeout;
    let echo = || {
        let socket = UdpSocket::bind(unspecified(destination))?;
        socket.connect(destination)?;
        let mut buffer = vec![0; payload.len() + 1];
        loop {
            socket.set_read_timeout(Some(left(deadline)?.min(REPEAT_AFTER)))?;
            match socket.send(payload).and_then(|_| socket.recv(&mut buffer)) {
                Ok(length) => return Ok(buffer[..length] == *payload),
                Err(error) if is_silence(&error) || is_too_long(&error) => {}
                Err(error) => return Err(error),
            }
        }
    };
    concluded(destination, echo())
}

/// Sends an ICMP or ICMPv6 echo request. The namespace must allow ping sockets, as a lab's do.
///
/// # Errors
///
/// As [`tcp`].
pub fn ping(destination: IpAddr, timeout: Duration) -> Result<Answer, LabError> {
    ping_with(PAYLOAD, destination, timeout)
}

/// [`ping`] with so many bytes behind the header, which are all compared.
///
/// # Errors
///
/// As [`tcp`].
pub fn ping_of(bytes: usize, destination: IpAddr, timeout: Duration) -> Result<Answer, LabError> {
    ping_with(&payload_of(bytes), destination, timeout)
}

fn ping_with(payload: &[u8], destination: IpAddr, timeout: Duration) -> Result<Answer, LabError> {
    let deadline = Instant::now() + timeout;
    let destination = SocketAddr::new(destination, 0);
    let echo = || {
        let socket = ping_socket(destination)?;
        for sequence in 0.. {
            let request = echo_request(destination, sequence, payload);
            socket.send(&request)?;
            socket.set_read_timeout(Some(left(deadline)?.min(REPEAT_AFTER)))?;
            match receive(&socket, request.len()) {
                Ok(reply) => return Ok(reply.ends_with(payload)),
                Err(error) if is_silence(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::TimedOut.into())
    };
    concluded(destination, echo())
}

/// Sends `payload` and reads as much; whether it was the same.
pub(crate) fn exchange(
    stream: &mut TcpStream,
    payload: &[u8],
    timeout: Duration,
) -> io::Result<bool> {
    let deadline = Instant::now() + timeout;
    let mut answer = vec![0; payload.len()];
    let mut filled = 0;
    stream.write_all(payload)?;
    while filled < answer.len() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        filled += match stream.read(&mut answer[filled..])? {
            0 => return Err(ErrorKind::ConnectionReset.into()),
            length => length,
        };
    }
    Ok(answer == payload)
}

/// Sorts what happened into answers and failures.
pub(crate) fn concluded(
    destination: SocketAddr,
    result: io::Result<bool>,
) -> Result<Answer, LabError> {
    match result {
        Ok(true) => Ok(Answer::Echoed),
        Ok(false) => Err(LabError::WrongEcho { destination }),
        Err(error) if is_silence(&error) => Ok(Answer::Silent),
        Err(error) if is_refusal(&error) => Ok(Answer::Refused),
        Err(source) => Err(LabError::Probe { destination, source }),
    }
}

/// Nobody said anything in time.
pub(crate) fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// Somebody on the path has told its MTU: the next attempt travels in fragments that fit.
fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EMSGSIZE)
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied
    )
}

/// The time until `deadline`, never none: a timeout of zero means for ever.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// Bytes of which no part is like another.
fn payload_of(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = |_| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..bytes).map(next).collect()
}

/// Any address of the same family.
pub(crate) fn unspecified(destination: SocketAddr) -> SocketAddr {
    match destination {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    }
}

fn ping_socket(destination: SocketAddr) -> io::Result<Socket> {
    let protocol = match destination {
        SocketAddr::V4(_) => Protocol::ICMPV4,
        SocketAddr::V6(_) => Protocol::ICMPV6,
    };
    let socket = Socket::new(Domain::for_address(destination), Type::DGRAM, Some(protocol))?;
    socket.connect(&destination.into())?;
    Ok(socket)
}

/// The kernel fills in the identifier and the checksum.
fn echo_request(destination: SocketAddr, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let kind = match destination {
        SocketAddr::V4(_) => 8,
        SocketAddr::V6(_) => 128,
    };
    let [high, low] = sequence.to_be_bytes();
    [&[kind, 0, 0, 0, 0, 0, high, low], payload].concat()
}

/// A reply; a longer one than was asked for is cut.
fn receive(mut socket: &Socket, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    let length = socket.read(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

//! What must be true of full NAT, known from packets alone: who has which port, and since when it is silent.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use super::packet::{FIN, Packet, RST, SYN};

/// A flow as its client knows it: from, to, and whether it is TCP's.
pub type Key = (SocketAddr, SocketAddr, bool);

/// A flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Where its packets come from, for the backend.
    pub port: SocketAddr,
    /// Where they go to.
    pub backend: SocketAddr,
    /// Milliseconds of the test's clock.
    pub seen: u64,
    answered: bool,
    established: bool,
    /// Which ends have sent a FIN, and a RST as the last packet.
    ended: [bool; 2],
    reset: [bool; 2],
}

/// How long flows live, in milliseconds: opening, established, answered, closing. Time goes on by 1024, so
/// nobody can be in doubt whether one is over.
pub const TIMEOUTS: [u64; 4] = [29 * 1024 + 512, 99 * 1024 + 512, 59 * 1024 + 512, 9 * 1024 + 512];

impl Flow {
    /// Both ends have closed it, or one has reset it.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.ended == [true, true] || self.reset.contains(&true)
    }

    fn timeout(&self, is_tcp: bool) -> u64 {
        let [opening, established, answered, closing] = TIMEOUTS;
        match (is_tcp, self.is_closing()) {
            (true, true) => closing,
            (true, false) if self.established => established,
            (false, _) if self.answered => answered,
            _ => opening,
        }
    }
}

/// All flows.
#[derive(Debug, Default)]
pub struct Model {
    /// Those that live.
    pub flows: HashMap<Key, Flow>,
    owners: HashMap<SocketAddr, Key>,
}

impl Model {
    /// Forgets flows that are over.
    pub fn expire(&mut self, now: u64) {
        let is_over = |key: &Key, flow: &Flow| now > flow.seen + flow.timeout(key.2);
        let owners = &mut self.owners;
        self.flows.retain(|key, flow| {
            let stays = !is_over(key, flow);
            if !stays {
                owners.remove(&flow.port);
            }
            stays
        });
    }

    /// A connection that was opened anew found no port: the old one is over.
    ///
    /// # Panics
    /// It wasn't closing.
    pub fn forget(&mut self, key: &Key) {
        if let Some(flow) = self.flows.remove(key) {
            assert!(flow.is_closing(), "a live flow lost its port: {key:?}");
            self.owners.remove(&flow.port);
        }
    }

    /// A client's packet went to a backend.
    ///
    /// # Panics
    /// Another live flow has its port, or the flow had another port or backend.
    pub fn asked(&mut self, packet: &Packet, sent: &Packet, now: u64) {
        let key = (packet.source, packet.destination, packet.tcp.is_some());
        let anew = packet.tcp == Some(SYN) && self.flows.get(&key).is_some_and(Flow::is_closing);
        if anew && let Some(flow) = self.flows.remove(&key) {
            self.owners.remove(&flow.port);
        }
        if let Some(owner) = self.owners.get(&sent.source) {
            assert_eq!(*owner, key, "two live flows share {}", sent.source);
        }
        let flow = self.flows.entry(key).or_insert_with(|| Flow {
            port: sent.source,
            backend: sent.destination,
            seen: now,
            answered: false,
            established: false,
            ended: [false; 2],
            reset: [false; 2],
        });
        assert_eq!((flow.port, flow.backend), (sent.source, sent.destination), "it moved: {key:?}");
        flow.see(packet.tcp, 0, now);
        self.owners.insert(sent.source, key);
    }

    /// A backend's packet to a port went to a client.
    ///
    /// # Panics
    /// Nobody has the port.
    pub fn answered(&mut self, packet: &Packet, now: u64) {
        let key = self.owners[&packet.destination];
        let flow = self.flows.get_mut(&key).expect("a live owner");
        flow.see(packet.tcp, 1, now);
    }

    /// Ports that flows have of an address's family.
    #[must_use]
    pub fn taken(&self, of: IpAddr) -> usize {
        self.owners.keys().filter(|port| port.is_ipv4() == of.is_ipv4()).count()
    }
}

impl Flow {
    fn see(&mut self, tcp: Option<u8>, end: usize, now: u64) {
        self.seen = now;
        if end == 1 {
            self.answered = true;
        }
        let Some(flags) = tcp else { return };
        if end == 0 && self.answered && flags & SYN == 0 {
            self.established = true;
        }
        if flags & FIN != 0 {
            self.ended[end] = true;
        }
        if flags & RST != 0 {
            self.reset[end] = true;
        } else if flags & SYN == 0 {
            self.reset[end] = false;
        }
    }
}

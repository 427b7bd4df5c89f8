//! A naive model of the balancer: it reads each frame for itself, remembers every flow and every first
//! fragment for good, and knows of no table.
//!
//! Not here: which of a service's backends a new flow gets (`flowgate-services` tests that); here, any that
//! is listed may have it, and then keeps it.

use std::{collections::HashMap, net::IpAddr};

use flowgate_abi::DropReason;
use flowgate_services::{
    Services, Uplink,
    model::{
        Backend, BackendId, BackendState, Forwarding, Fragments, NextHop, Service, SourceRanges,
    },
};

use crate::{
    outer,
    reading::{self, Content, Datagram, Key, Read},
};

/// What must become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Pass,
    Drop(DropReason),
    /// This very frame.
    Answer(Vec<u8>),
    /// A packet of a flow of a service, or about one: it goes to a backend.
    Balanced {
        service: usize,
        key: Key,
        about: bool,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) services: Vec<Service>,
    pub(crate) uplink: Uplink,
    /// Each flow's backend, and when it was seen.
    flows: HashMap<Key, (BackendId, u32)>,
    /// Each client's backend, of services with affinity.
    clients: HashMap<(usize, IpAddr, IpAddr), BackendId>,
    /// The ports of datagrams in fragments.
    datagrams: HashMap<Datagram, Key>,
    now: u32,
}

/// Frames after which a silent flow is anybody's.
const IDLE: u32 = 15_000;

impl Oracle {
    pub(crate) fn new(services: &Services, uplink: Uplink) -> Self {
        let mut oracle = Self { uplink, ..Self::default() };
        oracle.apply(services);
        oracle
    }

    pub(crate) fn apply(&mut self, services: &Services) {
        self.services = services.iter().map(|service| (**service).clone()).collect();
    }

    /// Says what must become of a frame, and remembers what it said of its datagram.
    pub(crate) fn judge(&mut self, frame: &[u8]) -> Expected {
        self.now += 1;
        let Some(read) = reading::read(frame) else { return Expected::Pass };
        if !self.services.iter().any(|service| service.addresses.contains(&read.destination)) {
            return Expected::Pass;
        }
        match read.content.clone() {
            Content::Bad(reason) => Expected::Drop(reason),
            Content::OnLink => Expected::Pass,
            Content::Echo => echo(frame, &read),
            Content::Later => match read.fragment.and_then(|name| self.datagrams.get(&name)) {
                Some(&key) => self.of_flow(&read, key, false),
                None => Expected::Drop(DropReason::FragmentNotFound),
            },
            Content::Of(key, _) => self.of_flow(&read, key, false),
            Content::About(_) if is_martian(read.source) => Expected::Drop(DropReason::Martian),
            Content::About(key) => self.of_flow(&read, key, true),
        }
    }

    fn of_flow(&mut self, read: &Read, key: Key, about: bool) -> Expected {
        let Some(service) = self.service(&key) else {
            let unrelated = Expected::Drop(DropReason::UnrelatedIcmpError);
            return if about { unrelated } else { Expected::Pass };
        };
        if let Some(name) = read.fragment {
            if self.services[service].options.fragments == Fragments::Drop {
                return Expected::Drop(DropReason::UnsupportedFragment);
            }
            if about {
                return Expected::Drop(DropReason::InvalidForFlow);
            }
            self.datagrams.insert(name, key);
        }
        if !takes(&self.services[service].sources, key.client.0) {
            return Expected::Drop(DropReason::SourceRefused);
        }
        Expected::Balanced { service, key, about }
    }

    /// The service of a flow: the one that has the port, or the one that has all others.
    fn service(&self, key: &Key) -> Option<usize> {
        let has = |port| {
            self.services.iter().position(|service| {
                service.protocol.number() == key.protocol
                    && service.port == port
                    && service.addresses.contains(&key.service.0)
            })
        };
        has(key.service.1).or_else(|| has(0))
    }

    /// Whether what became of a balanced packet is right; otherwise what is wrong.
    pub(crate) fn check(
        &mut self,
        frame: &[u8],
        (position, key, about): (usize, Key, bool),
        fate: &Result<Vec<u8>, DropReason>,
    ) -> Result<(), String> {
        let (read, service) =
            (reading::read(frame).expect("it was read"), &self.services[position]);
        let now = self.now;
        let client = (position, key.client.0, key.service.0);
        let opens = matches!(read.content, Content::Of(_, flags) if flags & 0x12 == 2);
        // A handshake that is tried again leaves a backend that fails.
        let keeps = |id: &BackendId| {
            let fails = |backend: &Backend| backend.state == BackendState::Quarantined;
            service.find(*id).is_some_and(|backend| !(opens && fails(backend)))
        };
        let of_flow = || self.flows.get(&key).filter(|(_, seen)| now - seen < IDLE);
        let known = match service.options.affinity {
            Some(_) => self.clients.get(&client).copied(),
            None => of_flow().map(|(id, _)| *id),
        };
        let known = known.filter(keeps);
        let sent = match fate {
            Err(DropReason::NoBackend) if known.is_none() => return Ok(()),
            Err(reason) => return self.check_drop((&read, service, about), *reason),
            Ok(sent) => sent,
        };
        if is_answer(frame, sent) {
            let is_right = service.backends.iter().any(|backend| {
                let room = room(backend, service, &self.uplink);
                read.length > room && *sent == outer::too_big(frame, room)
            });
            let may = !about && read.content != Content::Later && !is_martian(read.source);
            return if is_right && may { Ok(()) } else { Err("a wrong answer".to_owned()) };
        }
        let backend = receiver(service, sent).ok_or("it goes to no backend")?;
        if known.is_some_and(|id| id != backend.id()) {
            return Err(format!("its flow has {}", known.expect("known")));
        }
        if read.length > room(backend, service, &self.uplink) || read.hops <= 1 {
            return Err("it is too big, or too old".to_owned());
        }
        let by = (backend, service.forwarding, &self.uplink);
        if *sent != outer::to_backend(frame, by, sent) {
            return Err(format!("it isn't what {} gets", backend.id()));
        }
        let id = backend.id();
        if !about {
            self.clients.insert(client, id);
        }
        let closes = matches!(read.content, Content::Of(_, flags) if flags & 5 != 0);
        if closes {
            self.flows.remove(&key);
        } else if !about {
            self.flows.insert(key, (id, now));
        }
        Ok(())
    }

    fn check_drop(
        &self,
        (read, service, about): (&Read, &Service, bool),
        reason: DropReason,
    ) -> Result<(), String> {
        let mut rooms = service.backends.iter().map(|backend| room(backend, service, &self.uplink));
        let too_big = rooms.any(|room| read.length > room);
        let is_right = match reason {
            DropReason::HopsExceeded => read.hops <= 1,
            DropReason::Martian => too_big && is_martian(read.source),
            DropReason::TooBig => too_big && (about || read.content == Content::Later),
            DropReason::MalformedPacket => too_big,
            _ => false,
        };
        if is_right { Ok(()) } else { Err(format!("it is dropped: {reason}")) }
    }
}

/// Source ranges take a client: bit by bit.
fn takes(sources: &SourceRanges, client: IpAddr) -> bool {
    let bits = |address: IpAddr| -> Vec<bool> {
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect()
    };
    let is_in = |network: &ipnet::IpNet| {
        let (own, of) = (bits(client), bits(network.addr()));
        let prefix = usize::from(network.prefix_len());
        own.len() == of.len() && own[..prefix] == of[..prefix]
    };
    match sources {
        SourceRanges::Allow(networks) => networks.iter().any(is_in),
        SourceRanges::Deny(networks) => !networks.iter().any(is_in),
        _ => true,
    }
}

fn echo(frame: &[u8], read: &Read) -> Expected {
    if read.fragment.is_some() {
        return Expected::Drop(DropReason::UnsupportedFragment);
    }
    if !read.bare {
        return Expected::Drop(DropReason::UnsupportedProtocol);
    }
    if is_martian(read.source) {
        return Expected::Drop(DropReason::Martian);
    }
    Expected::Answer(outer::echo_reply(frame))
}

fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_loopback() || v4.octets()[0] >= 224,
        IpAddr::V6(v6) => {
            let mapped = v6.to_ipv4_mapped().is_some();
            v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || mapped
        }
    }
}

/// Bytes of the largest packet that a backend can be sent.
fn room(backend: &Backend, service: &Service, uplink: &Uplink) -> usize {
    let outer = match service.forwarding {
        Forwarding::Layer2 => 0,
        _ if backend.address.is_ipv4() => 20,
        _ => 40,
    };
    let udp = if matches!(service.forwarding, Forwarding::Gue { .. }) { 8 } else { 0 };
    usize::from(backend.mtu.unwrap_or(uplink.mtu)) - outer - udp
}

/// It goes back to who sent the frame, from the service.
fn is_answer(frame: &[u8], sent: &[u8]) -> bool {
    let (from, length) = if frame[12] == 8 { (12, 4) } else { (8, 16) };
    let (ip, answer) = (&frame[14..], &sent[14..]);
    frame[12..14] == sent[12..14]
        && ip[from..from + length] == answer[from + length..from + 2 * length]
        && ip[from + length..from + 2 * length] == answer[from..from + length]
}

/// Whom a frame is sent to.
fn receiver<'s>(service: &'s Service, sent: &[u8]) -> Option<&'s Backend> {
    if service.forwarding == Forwarding::Layer2 {
        let is =
            |backend: &&Backend| matches!(backend.next_hop, NextHop::Mac(mac) if mac == sent[..6]);
        return service.backends.iter().find(is);
    }
    let to: IpAddr = match sent[12] {
        8 => <[u8; 4]>::try_from(&sent[30..34]).ok()?.into(),
        _ => <[u8; 16]>::try_from(&sent[38..54]).ok()?.into(),
    };
    service.backends.iter().find(|backend| backend.address == to)
}

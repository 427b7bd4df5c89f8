//! Which flows were allowed, by the events; that the oracle allows them, too; and that nothing else
//! passes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use flowgate_abi::event::{Event, Hook, Kind};
use flowgate_conformance::trio::Party;
use flowgate_policy::outcome::{Flow, FlowProtocol};

use crate::frame::Plain;

/// Both ends in order, and the number of the protocol.
type Key = ([SocketAddr; 2], u8);

/// The flows that this generation has allowed.
#[derive(Debug)]
pub(crate) struct Ledger {
    generation: u32,
    /// With the slots of the ends for which it was judged.
    allowed: BTreeMap<Key, [u16; 2]>,
}

impl Ledger {
    pub(crate) const fn new(generation: u32) -> Self {
        Self { generation, allowed: BTreeMap::new() }
    }

    /// What an earlier generation has allowed has to be judged again.
    pub(crate) fn begin_generation(&mut self, generation: u32) {
        *self = Self::new(generation);
    }

    /// Takes down the events of a frame that was met at a place, and asks the oracle about each.
    pub(crate) fn note(
        &mut self,
        events: &[Event],
        place: (Hook, Party),
        allows: impl Fn(&Flow) -> bool,
    ) {
        for event in events {
            let (ends, flow) = (ends(event), judged(event, place));
            match Kind::from_number(event.kind) {
                Some(Kind::New | Kind::Rejudged) => {
                    assert!(allows(&flow), "the oracle denies {flow}, which was allowed");
                    assert_eq!(event.generation, self.generation, "{flow}");
                    let slots = [event.source_slot, event.destination_slot];
                    self.allowed.insert(key(ends, event.protocol), slots);
                }
                Some(Kind::Denied | Kind::Revoked) => {
                    assert!(!allows(&flow), "the oracle allows {flow}, which was denied");
                    assert_eq!(event.generation, self.generation, "{flow}");
                }
                Some(Kind::Kept) => panic!("no plan keeps what it denies: {flow}"),
                Some(Kind::Closed) => {}
                None => panic!("an event of an unknown kind: {event:?}"),
            }
        }
    }

    /// A frame has passed an endpoint: its flow was allowed there in this generation. A RST may pass
    /// without a flow, if its sender could open one.
    pub(crate) fn assert_allowed(
        &self,
        frame: &[u8],
        (hook, party): (Hook, Party),
        allows: impl Fn(&Flow) -> bool,
    ) {
        let Some(plain) = Plain::read(frame) else { return };
        let Plain { source, destination, protocol, resets } = plain;
        let own = party.ifindex().unwrap_or_default();
        let slots = self.allowed.get(&key([source, destination], number(protocol)));
        if slots.is_some_and(|slots| slots.iter().any(|slot| u32::from(*slot) == own)) {
            return;
        }
        let mut flow = Flow { source: source.ip(), destination: destination.ip(), protocol };
        if hook == Hook::ToEndpoint {
            flow.destination = party.address(destination.is_ipv6());
        }
        assert!(resets && allows(&flow), "passed, though nobody has allowed it: {plain:?}");
    }
}

/// The flow that an event is about, as it is judged: what comes to an endpoint is judged for that
/// one, to whatever address it is.
fn judged(event: &Event, (hook, party): (Hook, Party)) -> Flow {
    let ends = ends(event);
    let mut addresses = ends.map(|end| end.ip());
    if hook == Hook::ToEndpoint {
        let own = usize::from(event.flags & Event::REPLY == 0);
        addresses[own] = party.address(event.family == 6);
    }
    Flow { source: addresses[0], destination: addresses[1], protocol: protocol(event) }
}

fn key(mut ends: [SocketAddr; 2], protocol: u8) -> Key {
    ends.sort();
    (ends, protocol)
}

const fn number(protocol: FlowProtocol) -> u8 {
    match protocol {
        FlowProtocol::Tcp(_) => 6,
        FlowProtocol::Udp(_) => 17,
        FlowProtocol::Sctp(_) => 132,
        FlowProtocol::Icmp { .. } => 1,
        FlowProtocol::Icmp6 { .. } => 58,
        FlowProtocol::Other(number) => number,
    }
}

fn protocol(event: &Event) -> FlowProtocol {
    let port = event.destination_port.get();
    match event.protocol {
        6 => FlowProtocol::Tcp(port),
        17 => FlowProtocol::Udp(port),
        132 => FlowProtocol::Sctp(port),
        1 => FlowProtocol::Icmp { icmp_type: event.icmp_type },
        58 => FlowProtocol::Icmp6 { icmp_type: event.icmp_type },
        other => FlowProtocol::Other(other),
    }
}

/// The opener first.
fn ends(event: &Event) -> [SocketAddr; 2] {
    let address = |words: [u64; 2]| -> IpAddr {
        let octets = words.map(u64::to_ne_bytes).concat();
        match event.family {
            4 => Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into(),
            6 => Ipv6Addr::from(<[u8; 16]>::try_from(octets).expect("two words")).into(),
            other => panic!("family {other}"),
        }
    };
    [
        SocketAddr::new(address(event.source), event.source_port.get()),
        SocketAddr::new(address(event.destination), event.destination_port.get()),
    ]
}

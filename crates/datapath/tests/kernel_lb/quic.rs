//! Connection ids of QUIC three ways: a naive reader, the host and the kernel agree on whom a packet names.

use std::time::Instant;

use flowgate_conformance::{frames::Frame, generate::Generator};
use flowgate_datapath::lb::Fate;
use flowgate_policy::outcome::{Flow, FlowProtocol};
use flowgate_services::{
    QuicServers, Services,
    model::{Backend, Forwarding, NextHop, Service},
};

use crate::rig;

const SERVERS: QuicServers = QuicServers { rotation: 1, octets: 2, ids: 512 };

/// In their segment, by their Ethernet addresses.
fn backend(last: u8) -> Backend {
    Backend::new([198, 18, 0, last].into()).next_hop(NextHop::Mac([2, 0, 0, 0, 1, last]))
}

/// One in four backends has no server id.
fn services() -> Services {
    let addresses = rig::addresses();
    let service = Service::udp("quic", 443).address(addresses[0]).address(addresses[2]);
    let mut service = service.forwarding(Forwarding::Layer2).backend(backend(4));
    service.options.quic = Some(SERVERS);
    let with_ids = [1, 2, 3].map(|last| backend(last).server_id(u16::from(last) * 130));
    Services::new([with_ids.into_iter().fold(service, Service::backend)]).expect("good services")
}

/// A packet's beginning: mostly a connection id of somebody's, in either header, seldom cut off.
fn payload(generator: &mut Generator) -> Vec<u8> {
    let mut below = |most| generator.below(most) as u8;
    let first = if below(4) == 0 { below(255) } else { 0x20 | below(32) };
    let id = if below(3) == 0 { u16::from(below(255)) << 8 | 9 } else { u16::from(below(5)) * 130 };
    let mut connection = vec![first];
    connection.extend(id.to_be_bytes());
    connection.extend((0..4 + below(12)).map(|octet| octet * 7));
    let mut packet = vec![0x40 | below(64)];
    if below(2) == 0 {
        packet[0] |= 0x80;
        packet.extend([0, 0, 0, 1, if below(6) == 0 { below(8) } else { connection.len() as u8 }]);
    }
    packet.extend(connection);
    if below(20) == 0 {
        packet.truncate(below(12).into());
    }
    packet
}

/// The server id that a packet has, read octet by octet.
fn server_id(packet: &[u8]) -> Option<u16> {
    let id = if packet.first()? & 0x80 != 0 {
        let length = usize::from(*packet.get(5)?);
        packet.get(6..).filter(|_| length >= 7)?
    } else {
        &packet[1..]
    };
    let (&first, id) = id.split_first()?;
    // Two octets more are there: whoever reads four at once sees no shorter packet.
    let id = id.get(..4)?;
    (first >> 5 == SERVERS.rotation).then(|| u16::from_be_bytes([id[0], id[1]]))
}

#[test]
fn all_three_know_whom_a_connection_id_names() {
    let (mut host, kernel) = (rig::host(rig::options()), rig::kernel(rig::options()));
    let Some(mut kernel) = kernel else { return };
    let start = Instant::now();
    for balancer in [&mut host, &mut kernel] {
        let _ = balancer.apply(&services(), start).expect("it fits");
    }
    let (mut generator, mut named) = (Generator::new(3), 0);
    for case in 0..4000u16 {
        let address = rig::addresses()[usize::from(case) % 2 * 2];
        let source = if address.is_ipv4() { "203.0.113.7" } else { "2001:db8:9::7" };
        let flow = Flow {
            source: source.parse().expect("an address"),
            destination: address,
            protocol: FlowProtocol::Udp(443),
        };
        let payload = payload(&mut generator);
        let opening = Frame { payload: payload.len(), ..Frame::opening(flow, 4000 + case % 7) };
        let mut frame = opening.bytes();
        let at = frame.len() - payload.len();
        frame[at..].copy_from_slice(&payload);
        let sent = host.replay(&frame).expect("it runs");
        assert_eq!(sent, kernel.replay(&frame).expect("it runs"), "{payload:02x?}");
        assert_eq!(sent.fate, Fate::Transmit);
        let whom = server_id(&payload).filter(|id| [130, 260, 390].contains(id));
        if let Some(id) = whom {
            named += 1;
            assert_eq!(u16::from(sent.frame[5]) * 130, id, "{payload:02x?}");
        }
    }
    assert!((1000..3500).contains(&named), "{named} of 4000 name somebody");
    assert_eq!(host.stats().expect("read"), kernel.stats().expect("read"));
    println!("{named} of 4000 named a server");
}

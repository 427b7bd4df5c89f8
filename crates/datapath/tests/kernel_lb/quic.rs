//! Connection ids of QUIC three ways: a naive reader, the host and the kernel agree on whom a packet names.

use flowgate_conformance::{frames::Frame, generate::Generator};
use flowgate_policy::outcome::FlowProtocol;
use flowgate_services::{QuicServers, model::Service};

use crate::naming::{Drawn, agreed};

const SERVERS: QuicServers = QuicServers { rotation: 1, octets: 2, ids: 512 };

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
    let mut service = Service::udp("quic", 443);
    service.options.quic = Some(SERVERS);
    let named = agreed(service, FlowProtocol::Udp(443), |generator, opening| {
        let payload = payload(generator);
        let mut frame = Frame { payload: payload.len(), ..opening }.bytes();
        let at = frame.len() - payload.len();
        frame[at..].copy_from_slice(&payload);
        Drawn { frame, id: server_id(&payload).map(u32::from) }
    });
    let Some(named) = named else { return };
    assert!((1000..3500).contains(&named), "{named} of 4000 name somebody");
}

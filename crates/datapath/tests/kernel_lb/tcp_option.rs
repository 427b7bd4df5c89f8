//! Server ids in an option of TCP three ways: a naive reader, the host and the kernel agree on whom a segment names.

use flowgate_conformance::{
    frames::{Frame, tcp},
    generate::Generator,
};
use flowgate_policy::outcome::FlowProtocol;
use flowgate_services::{TcpServers, model::Service};

use crate::naming::{Drawn, agreed};

const SERVERS: TcpServers = TcpServers { kind: 0x4d, ids: 512 };

/// Options of whole words, at most ten: what stacks write, padding, somebody's server id, and now and then nonsense.
fn options(generator: &mut Generator) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..1 + generator.below(4) {
        let mut below = |most| generator.below(most) as u8;
        match below(8) {
            0 => options.extend(vec![1; usize::from(below(12))]),
            1 => options.extend([8, 10, 1, 2, 3, 4, 5, 6, 7, 8]),
            2 => options.extend([&[5, 10][..], &[SERVERS.kind; 8]].concat()),
            3 => options.extend([below(255), below(12), below(255)]),
            _ => {
                let id = if below(4) == 0 {
                    9 + u32::from(below(255))
                } else {
                    (1 + u32::from(below(4))) * 130
                };
                let id = if below(9) == 0 { id << 16 | id } else { id };
                let length = if below(9) == 0 { below(9) } else { 6 };
                options.extend([&[SERVERS.kind, length], &id.to_le_bytes()[..]].concat());
            }
        }
    }
    // Padding in front, so that an id may be the last of the header's octets.
    let padding = options.len().next_multiple_of(4) - options.len();
    options.splice(0..0, vec![1; padding]);
    options.truncate(40);
    options
}

/// The server id that options have, read one after the other.
fn server_id(options: &[u8]) -> Option<u32> {
    match *options {
        [1, ref rest @ ..] => server_id(rest),
        [0, ..] | [] | [_] | [_, 0 | 1, ..] => None,
        [kind, length, ..] => {
            let option = options.get(..usize::from(length))?;
            if kind == SERVERS.kind {
                return Some(u32::from_le_bytes(option[2..].try_into().ok()?));
            }
            server_id(&options[option.len()..])
        }
    }
}

#[test]
fn all_three_know_whom_an_option_names() {
    let mut service = Service::tcp("web", 443);
    service.options.tcp_option = Some(SERVERS);
    let named = agreed(service, FlowProtocol::Tcp(443), |generator, opening| {
        let options = options(generator);
        let payload = generator.below(3) as usize;
        let flags = [tcp::ACK, tcp::ACK | tcp::FIN, tcp::RST, tcp::SYN | tcp::ACK, tcp::SYN];
        let flags = flags[generator.below(5) as usize];
        let opening = opening.flags(flags);
        let mut frame = Frame { payload: options.len() + payload, ..opening }.bytes();
        let at = frame.len() - payload - options.len();
        frame[at..at + options.len()].copy_from_slice(&options);
        frame[at - 8] = (5 + options.len() as u8 / 4) << 4;
        Drawn { frame, id: server_id(&options).filter(|_| flags != tcp::SYN) }
    });
    let Some(named) = named else { return };
    assert!((1000..3000).contains(&named), "{named} of 4000 name somebody");
}

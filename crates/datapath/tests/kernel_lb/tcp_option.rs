//! Server ids in an option of TCP three ways: a naive reader, the host and the kernel agree on whom a segment names.

use std::time::Instant;

use flowgate_conformance::{
    frames::{Frame, tcp},
    generate::Generator,
};
use flowgate_datapath::lb::Fate;
use flowgate_policy::outcome::{Flow, FlowProtocol};
use flowgate_services::{
    Services, TcpServers,
    model::{Backend, Forwarding, NextHop, Service},
};

use crate::rig;

const SERVERS: TcpServers = TcpServers { kind: 0x4d, ids: 512 };

/// In their segment, by their Ethernet addresses.
fn backend(last: u8) -> Backend {
    Backend::new([198, 18, 0, last].into()).next_hop(NextHop::Mac([2, 0, 0, 0, 1, last]))
}

/// One in four backends has no server id.
fn services() -> Services {
    let addresses = rig::addresses();
    let service = Service::tcp("web", 443).address(addresses[0]).address(addresses[2]);
    let mut service = service.forwarding(Forwarding::Layer2).backend(backend(4));
    service.options.tcp_option = Some(SERVERS);
    let with_ids = [1, 2, 3].map(|last| backend(last).server_id(u16::from(last) * 130));
    Services::new([with_ids.into_iter().fold(service, Service::backend)]).expect("good services")
}

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
            protocol: FlowProtocol::Tcp(443),
        };
        let options = options(&mut generator);
        let payload = generator.below(3) as usize;
        let flags = [tcp::ACK, tcp::ACK | tcp::FIN, tcp::RST, tcp::SYN | tcp::ACK, tcp::SYN];
        let flags = flags[generator.below(5) as usize];
        let opening = Frame::opening(flow, 4000 + case % 7).flags(flags);
        let mut frame = Frame { payload: options.len() + payload, ..opening }.bytes();
        let at = frame.len() - payload - options.len();
        frame[at..at + options.len()].copy_from_slice(&options);
        frame[at - 8] = (5 + options.len() as u8 / 4) << 4;
        let sent = host.replay(&frame).expect("it runs");
        assert_eq!(sent, kernel.replay(&frame).expect("it runs"), "{options:02x?}");
        assert_eq!(sent.fate, Fate::Transmit);
        let whom = server_id(&options).filter(|id| [130, 260, 390].contains(id));
        if let Some(id) = whom.filter(|_| flags != tcp::SYN) {
            named += 1;
            assert_eq!(u32::from(sent.frame[5]) * 130, id, "{options:02x?}");
        }
    }
    assert!((1000..3000).contains(&named), "{named} of 4000 name somebody");
    assert_eq!(host.stats().expect("read"), kernel.stats().expect("read"));
    println!("{named} of 4000 named a server");
}

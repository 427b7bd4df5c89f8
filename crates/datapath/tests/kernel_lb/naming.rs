//! Whom packets name by server ids: a service, and packets of which a naive reader, the host and the kernel have to say
//! the same.

use std::time::Instant;

use flowgate_conformance::{frames::Frame, generate::Generator};
use flowgate_datapath::lb::Fate;
use flowgate_policy::outcome::{Flow, FlowProtocol};
use flowgate_services::{
    Services,
    model::{Backend, Forwarding, NextHop, Service},
};

use crate::rig;

/// A packet, and the server id that the naive reader finds in it.
pub(crate) struct Drawn {
    pub(crate) frame: Vec<u8>,
    pub(crate) id: Option<u32>,
}

/// In their segment, by their Ethernet addresses.
fn backend(last: u8) -> Backend {
    Backend::new([198, 18, 0, last].into()).next_hop(NextHop::Mac([2, 0, 0, 0, 1, last]))
}

/// With backends of which one in four has no server id.
fn services(service: Service) -> Services {
    let addresses = rig::addresses();
    let service = service.address(addresses[0]).address(addresses[2]);
    let service = service.forwarding(Forwarding::Layer2).backend(backend(4));
    let with_ids = [1, 2, 3].map(|last| backend(last).server_id(u16::from(last) * 130));
    Services::new([with_ids.into_iter().fold(service, Service::backend)]).expect("good services")
}

/// Of 4,000 packets of a protocol, drawn around a flow's first, how many name somebody; `None`: there is no kernel to ask,
/// which is said.
pub(crate) fn agreed(
    service: Service,
    protocol: FlowProtocol,
    mut draw: impl FnMut(&mut Generator, Frame) -> Drawn,
) -> Option<u32> {
    let (mut host, kernel) = (rig::host(rig::options()), rig::kernel(rig::options()));
    let mut kernel = kernel?;
    let (services, start) = (services(service), Instant::now());
    for balancer in [&mut host, &mut kernel] {
        let _ = balancer.apply(&services, start).expect("it fits");
    }
    let (mut generator, mut named) = (Generator::new(3), 0);
    for case in 0..4000u16 {
        let destination = rig::addresses()[usize::from(case) % 2 * 2];
        let source = if destination.is_ipv4() { "203.0.113.7" } else { "2001:db8:9::7" };
        let flow = Flow { source: source.parse().expect("an address"), destination, protocol };
        let Drawn { frame, id } = draw(&mut generator, Frame::opening(flow, 4000 + case % 7));
        let sent = host.replay(&frame).expect("it runs");
        assert_eq!(sent, kernel.replay(&frame).expect("it runs"), "{frame:02x?}");
        assert_eq!(sent.fate, Fate::Transmit);
        if let Some(id) = id.filter(|id| [130, 260, 390].contains(id)) {
            named += 1;
            assert_eq!(u32::from(sent.frame[5]) * 130, id, "{frame:02x?}");
        }
    }
    assert_eq!(host.stats().expect("read"), kernel.stats().expect("read"));
    println!("{named} of 4000 named a server");
    Some(named)
}

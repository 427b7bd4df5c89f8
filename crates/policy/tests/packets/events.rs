//! What an event says of its flow, whichever way the packet runs, and of the packet.

use std::net::IpAddr;

use flowgate_abi::{
    Addr6, DropReason,
    event::{Event, Hook, Kind},
};
use flowgate_conformance::frames::{Frame, tcp};
use flowgate_pipeline::Tables;
use flowgate_policy::outcome::FlowProtocol;

use crate::world::{CLIENT, OUTSIDE, SERVER, World, address, between, bytes, request};

fn only(world: &World) -> Event {
    let told = world.installer.store().take_events();
    let [event] = told.as_slice() else { panic!("one event: {told:?}") };
    *event
}

/// An address as it lies in an event.
fn words(address: IpAddr) -> [u64; 2] {
    let Addr6 { first, last } = Addr6::wide(address);
    [first, last]
}

fn slot(world: &World, pod: u32) -> u16 {
    Tables::endpoint(world.installer.store(), pod).unwrap().slot as u16
}

/// That its source is the client, whose connection it is, and its destination the server.
fn is_of_the_clients_connection(world: &World, event: &Event, v6: bool) {
    assert_eq!((event.family, event.protocol), (if v6 { 6 } else { 4 }, 6));
    assert_eq!((event.source_port.get(), event.destination_port.get()), (40_000, 80));
    assert_eq!(event.source, words(address(CLIENT, v6)));
    assert_eq!(event.destination, words(address(SERVER, v6)));
    assert_eq!(event.source_slot, slot(world, CLIENT));
    assert_eq!(event.destination_slot, slot(world, SERVER));
    assert_ne!(event.source_identity, event.destination_identity);
    assert_eq!(event.generation, world.installer.generation());
}

#[test]
fn an_event_runs_from_the_initiator_to_the_responder() {
    for v6 in [false, true] {
        let mut world = World::new();
        let syn = request(FlowProtocol::Tcp(80), v6);
        assert_eq!(world.send(CLIENT, &bytes(syn)), Ok(()));
        let new = only(&world);
        is_of_the_clients_connection(&world, &new, v6);
        assert_eq!((new.kind, new.reason, new.flags), (Kind::New as u8, 0, 0));
        assert_eq!((new.hook, new.ifindex), (Hook::FromEndpoint as u8, CLIENT));
        assert_eq!((new.tcp_flags, new.icmp_type), (tcp::SYN, 0));
        assert_eq!((new.packets, new.bytes), ([0; 2], [0; 2]), "nothing was tracked before");

        world.close();
        let answer = Frame { reply: true, ..syn }.flags(tcp::SYN | tcp::ACK);
        let mut answer = answer.bytes();
        answer[6..12].copy_from_slice(&crate::world::mac(SERVER));
        let denied = DropReason::PolicyDefaultDeny;
        assert_eq!(world.send(SERVER, &answer), Err(denied));
        let cut = only(&world);
        is_of_the_clients_connection(&world, &cut, v6);
        assert_eq!((cut.kind, cut.reason), (Kind::Revoked as u8, denied as u8));
        assert_eq!((cut.flags, cut.tcp_flags), (Event::REPLY, tcp::SYN | tcp::ACK));
        assert_eq!((cut.hook, cut.ifindex), (Hook::FromEndpoint as u8, SERVER));
        assert_eq!(cut.packets, [1, 0]);
    }
}

#[test]
fn a_denied_query_from_outside_is_told_with_its_type() {
    for (v6, protocol, icmp_type) in [
        (false, FlowProtocol::Icmp { icmp_type: 8 }, 8),
        (true, FlowProtocol::Icmp6 { icmp_type: 128 }, 128),
    ] {
        let world = World::new();
        let outside: IpAddr = OUTSIDE[usize::from(v6)].parse().unwrap();
        let query = between(outside, address(CLIENT, v6), protocol);
        let denied = DropReason::PolicyDefaultDeny;
        assert_eq!(world.receive(CLIENT, &query.bytes()), Err(denied));
        let event = only(&world);
        assert_eq!((event.kind, event.reason), (Kind::Denied as u8, denied as u8));
        assert_eq!((event.hook, event.ifindex), (Hook::ToEndpoint as u8, CLIENT));
        assert_eq!((event.icmp_type, event.tcp_flags, event.flags), (icmp_type, 0, 0));
        assert_eq!(u32::from(event.source_slot), flowgate_abi::flow::NO_SLOT);
        assert_eq!(event.destination_slot, slot(&world, CLIENT));
    }
}

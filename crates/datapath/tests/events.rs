//! Records of the event ring are read as they were written; anything else is no event.

use flowgate_abi::event::{Event, Hook, Kind};
use flowgate_conformance::{
    frames::Frame,
    trio::{Party, Rules, Trio},
};
use flowgate_datapath::FlowEvent;
use flowgate_identity::NumericIdentity;
use flowgate_policy::{
    host::HostTables,
    outcome::{Flow, FlowProtocol},
    peer_key::PeerKey,
    plan::Plan,
};
use zerocopy::IntoBytes;

/// The event of a SYN from the client to a port of the server, under rules that allow 80 alone.
fn event(trio: &Trio, port: u16, v6: bool) -> Event {
    let installer = trio.install(HostTables::for_plan(trio.widest()), Rules::OneWay);
    let flow = Flow {
        source: Party::Client.address(v6),
        destination: Party::Server.address(v6),
        protocol: FlowProtocol::Tcp(port),
    };
    let frame = Frame::opening(flow, 40_000).bytes();
    let _ = installer.store().run(&frame, 1, Hook::FromEndpoint);
    installer.store().take_events().pop().expect("an event")
}

#[test]
fn a_record_says_who_opened_what_to_whom_and_why() {
    let trio = Trio::new();
    let plan = trio.plan(Rules::OneWay);
    let denied = event(&trio, 81, true);
    let read = FlowEvent::decode(denied.as_bytes(), Some(plan)).expect("an event");
    assert_eq!(
        read.to_string(),
        "denied   [2001:db8::1]:40000 -> [2001:db8::2]:81 TCP: policy denied (no rule allows it), \
         egress default-allow, ingress default-deny with reset by NetworkPolicy/trio/server"
    );
    let new = FlowEvent::decode(event(&trio, 80, false).as_bytes(), None).expect("an event");
    assert_eq!((new.kind, new.outcome.as_ref()), (Kind::New, None), "no plan, no names");
    assert_eq!(new.to_string(), "new      198.18.0.1:40000 -> 198.18.0.2:80 TCP");
}

#[test]
fn the_plan_knows_the_network_of_an_address_of_the_world() {
    let trio = Trio::new();
    let plan = trio.plan(Rules::OneWay);
    let mut narrower = Plan::clone(plan);
    let event = event(&trio, 80, false);
    let destination = "198.18.0.2".parse().expect("an address");
    let peer = narrower.peer_of(destination).expect("a known address") as usize;
    let own =
        FlowEvent::decode(event.as_bytes(), Some(plan)).expect("an event").destination.identity;
    assert_eq!(own, plan.peers[peer].identity);
    let world = Event { destination_identity: NumericIdentity::WORLD_IPV4.0, ..event };
    let identity =
        |plan| FlowEvent::decode(world.as_bytes(), plan).expect("an event").destination.identity;
    assert_eq!(identity(None), NumericIdentity::WORLD_IPV4);
    assert_eq!(identity(Some(plan)), NumericIdentity::WORLD_IPV4, "who had it has left");
    narrower.peers[peer].key = PeerKey::Network("198.18.0.0/24".parse().expect("a network"));
    assert_eq!(identity(Some(&narrower)), own);
}

#[test]
fn a_record_of_another_length_or_kind_is_no_event() {
    let event = event(&Trio::new(), 80, false);
    let record = event.as_bytes();
    for end in 0..record.len() {
        assert_eq!(FlowEvent::decode(&record[..end], None), None, "{end} bytes");
    }
    assert_eq!(FlowEvent::decode(&[record, &[0]].concat(), None), None);
    for kind in (0..=255).filter(|kind| Kind::from_number(*kind).is_none()) {
        assert_eq!(FlowEvent::decode(Event { kind, ..event }.as_bytes(), None), None, "{kind}");
    }
}

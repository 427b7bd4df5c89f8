//! Any bytes as a record of the event ring: nothing panics, and what is read is what was written.

use flowgate_abi::event::Event;
use flowgate_conformance::trio::{Rules, Trio};
use flowgate_datapath::FlowEvent;
use zerocopy::FromBytes;

thread_local! {
    static TRIO: Trio = Trio::new();
}

/// Takes one input; whether it is worth keeping.
pub fn run(record: &[u8]) -> bool {
    let read = TRIO.with(|trio| FlowEvent::decode(record, Some(trio.plan(Rules::OneWay))));
    let Ok(event) = Event::read_from_bytes(record) else {
        assert_eq!(read, None, "{} bytes are no event", record.len());
        return false;
    };
    let Some(read) = read else {
        assert!(flowgate_abi::event::Kind::from_number(event.kind).is_none());
        return true;
    };
    assert_eq!(read.kind as u8, event.kind);
    assert_eq!(read.reason.map_or(0, |reason| reason as u8), known_reason(event.reason));
    assert_eq!(read.source.address.is_ipv4(), event.family == 4);
    assert_eq!([read.source.packets, read.destination.packets], event.packets);
    assert_eq!([read.source.bytes, read.destination.bytes], event.bytes);
    let ports = [event.source_port, event.destination_port].map(flowgate_abi::Be16::get);
    assert_eq!([read.source.port, read.destination.port], ports);
    // Without a plan nothing but the names is missing.
    let nameless = FlowEvent::decode(record, None).expect("it was one with a plan");
    assert_eq!(nameless.outcome, None);
    assert_eq!(nameless.to_string().is_empty(), read.to_string().is_empty());
    true
}

/// The number of a reason that this build knows, else 0.
fn known_reason(number: u8) -> u8 {
    flowgate_abi::DropReason::from_number(number).map_or(0, |reason| reason as u8)
}

//! Events: their budget, their loss, and their stream.

use flowgate_conformance::frames::Frame;
use flowgate_datapath::{Backend, Datapath, OpenError, Options};
use flowgate_identity::LocalAllocator;
use flowgate_policy::{compile::Compiler, inventory::WorkloadRef};

use crate::rig::{Rig, compile, options, pair, passes, talk};

/// A rig with other options for events than the rest.
fn with_events(backend: Backend, per_second: u32, bytes: usize) -> Option<(Rig, Vec<WorkloadRef>)> {
    let (case, names) = pair();
    let options = Options { events_per_second: per_second, event_bytes: bytes, ..options() };
    match Datapath::builder().backend(backend).options(options).open() {
        Ok(datapath) => {
            let mut rig = Rig::new(datapath, &case);
            rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), &case));
            Some((rig, names))
        }
        Err(error @ OpenError::MissingCapability { .. }) => {
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn many_new_flows(rig: &mut Rig, names: &[WorkloadRef], count: u16) {
    for port in 0..count {
        let frame = Frame { source_port: 2000 + port, ..talk("198.18.0.1", "198.18.0.2") };
        assert!(passes(rig, &names[0], frame), "events never hold a packet up");
    }
}

#[test]
fn events_beyond_the_budget_are_counted_as_suppressed() {
    for backend in [Backend::Host, Backend::Kernel] {
        let Some((mut rig, names)) = with_events(backend, 5, 1 << 16) else { continue };
        many_new_flows(&mut rig, &names, 2000);
        let told = rig.take_events().len() as u64;
        let counters = rig.datapath.counters().expect("readable");
        let suppressed = counters.get(flowgate_abi::event::Counter::EventsSuppressed);
        assert_eq!(told + suppressed, 2000);
        // Five a second on each CPU; the test doesn't say how long it takes.
        assert!(told >= 5 && suppressed > 0, "{told} told, {suppressed} suppressed");
    }
}

#[test]
fn events_that_nobody_reads_in_time_are_counted_as_lost() {
    for backend in [Backend::Kernel] {
        let Some((mut rig, names)) = with_events(backend, u32::MAX, 4096) else { continue };
        many_new_flows(&mut rig, &names, 500);
        let told = rig.take_events().len() as u64;
        let counters = rig.datapath.counters().expect("readable");
        let lost = counters.get(flowgate_abi::event::Counter::EventsLost);
        assert_eq!(told + lost, 500);
        assert!(told > 0 && lost > 0, "{told} told, {lost} lost");
    }
}

#[test]
fn events_come_as_a_stream_too() {
    use futures_core::Stream;
    for backend in [Backend::Host, Backend::Kernel] {
        let Some((mut rig, names)) = with_events(backend, u32::MAX, 1 << 16) else { continue };
        many_new_flows(&mut rig, &names, 3);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let events = &mut rig.events;
        let ports = runtime.expect("a runtime").block_on(async {
            let mut ports = Vec::new();
            while ports.len() < 3 {
                let next = std::future::poll_fn(|context| {
                    std::pin::Pin::new(&mut *events).poll_next(context)
                });
                ports.push(next.await.expect("it never ends").source.port);
            }
            ports
        });
        assert_eq!(ports, [2000, 2001, 2002]);
    }
}

//! What becomes of connections: closed, revoked, judged again, never inherited.

use flowgate_abi::event::{Counter, Kind};
use flowgate_conformance::{
    frames::{Frame, tcp},
    generate::Case,
};
use flowgate_datapath::{Action, Stage};
use flowgate_identity::LocalAllocator;
use flowgate_policy::{compile::Compiler, inventory::WorkloadRef};

use crate::rig::{Rig, compile, compile_with, connect, on_both, passes, talk, to_endpoint};

#[test]
fn an_endpoint_is_closed_until_its_first_plan() {
    on_both(|mut rig, case, names| {
        let frame = talk("198.18.0.1", "198.18.0.2");
        assert!(!passes(&mut rig, &names[0], frame));
        let reason = flowgate_abi::DropReason::EndpointNotReady;
        assert_eq!(rig.datapath.counters().expect("readable").dropped(reason), 1);
        rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), &case));
        assert!(passes(&mut rig, &names[0], frame));
    });
}

#[test]
fn a_relabelled_pod_does_not_inherit_its_connections() {
    on_both(|mut rig, mut case, names| {
        let mut compiler = Compiler::new(LocalAllocator::new());
        rig.apply(&compile(&mut compiler, &case));
        for (client, server) in [("198.18.0.1", "198.18.0.2"), ("2001:db8::1", "2001:db8::2")] {
            connect(&mut rig, &names, talk(client, server));
        }
        case.inventory.workloads[0].labels =
            flowgate_identity::Labels::from_iter([("app", "stranger")]);
        rig.apply(&compile(&mut compiler, &case));
        for (client, server) in [("198.18.0.1", "198.18.0.2"), ("2001:db8::1", "2001:db8::2")] {
            let frame = talk(client, server).flags(tcp::ACK);
            // The reply direction first: it must not keep the flow alive.
            assert!(!passes(&mut rig, &names[1], Frame { reply: true, ..frame }));
            assert!(!passes(&mut rig, &names[0], frame));
        }
        let revoked = rig.datapath.counters().expect("readable");
        assert_eq!(revoked.get(Counter::FlowsRevoked), 2);
        assert!(rig.datapath.flows().expect("readable").iter().all(|flow| flow.revoked));
    });
}

#[test]
fn a_reused_address_does_not_inherit_connections() {
    on_both(|mut rig, mut case, names| {
        let mut compiler = Compiler::new(LocalAllocator::new());
        rig.apply(&compile(&mut compiler, &case));
        let frame = talk("198.18.0.1", "198.18.0.2");
        connect(&mut rig, &names, frame);
        let id = rig.endpoints.remove(&names[0]).expect("attached");
        assert_eq!(rig.datapath.detach(&[id]).expect("detaches"), 1);
        // Someone else gets the address before any plan knows: closed, also for the old connection.
        let stranger = WorkloadRef { namespace: "default".into(), name: "stranger".into() };
        rig.attach(&stranger, &case.inventory.workloads[0].addresses);
        assert!(!passes(&mut rig, &stranger, frame.flags(tcp::ACK)));
        // The server's packets go to world as far as it knows; they end at the stranger's own link.
        let answer = frame.answer().flags(tcp::ACK).bytes();
        assert_eq!(rig.replay(&stranger, Stage::ToEndpoint, &answer).0, Action::Drop);
        // And when a plan knows: denied, since it isn't labelled as a client.
        case.inventory.workloads[0].id = stranger.clone();
        case.inventory.workloads[0].labels = flowgate_identity::Labels::new();
        rig.apply(&compile(&mut compiler, &case));
        assert!(!passes(&mut rig, &stranger, frame.flags(tcp::ACK)));
        assert!(!passes(&mut rig, &stranger, frame));
    });
}

#[test]
fn an_allowed_connection_lives_through_generations() {
    on_both(|mut rig, case, names| {
        let mut compiler = Compiler::new(LocalAllocator::new());
        let plan = compile(&mut compiler, &case);
        rig.apply(&plan);
        let frame = talk("198.18.0.1", "198.18.0.2");
        connect(&mut rig, &names, frame);
        for _ in 0..3 {
            rig.apply(&plan);
            assert!(passes(&mut rig, &names[0], frame.flags(tcp::ACK)));
            assert!(passes(&mut rig, &names[1], frame.answer().flags(tcp::ACK)));
        }
        let counters = rig.datapath.counters().expect("readable");
        assert_eq!(counters.get(Counter::FlowsRejudged), 3);
        assert_eq!(counters.get(Counter::FlowsNew), 1);
    });
}

#[test]
fn a_closed_connection_is_told_with_its_counts_and_may_be_opened_again() {
    on_both(|mut rig, case, names| {
        rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), &case));
        let frame = talk("198.18.0.1", "198.18.0.2");
        connect(&mut rig, &names, frame);
        rig.take_events();
        assert!(passes(&mut rig, &names[0], frame.flags(tcp::FIN | tcp::ACK)));
        assert!(passes(&mut rig, &names[1], frame.answer().flags(tcp::FIN | tcp::ACK)));
        rig.datapath.sweep().expect("runs");
        rig.datapath.sweep().expect("runs");
        let events = rig.take_events();
        assert_eq!(events.len(), 1, "told once: {events:?}");
        assert_eq!(events[0].kind, Kind::Closed);
        assert_eq!((events[0].source.packets, events[0].destination.packets), (3, 3));
        // The other end may open the same tuple: that is another flow, and denied.
        let opposite = Frame { reply: true, ..frame }.flags(tcp::SYN);
        assert!(passes(&mut rig, &names[1], opposite));
        let flows = rig.datapath.flows().expect("readable");
        assert_eq!(flows[0].source, frame.flow.destination, "its own orientation: {flows:?}");
    });
}

#[test]
fn a_policy_that_changes_cuts_what_it_no_longer_allows() {
    on_both(|mut rig, mut case, names| {
        let mut compiler = Compiler::new(LocalAllocator::new());
        rig.apply(&compile(&mut compiler, &case));
        let frame = talk("198.18.0.1", "198.18.0.2");
        connect(&mut rig, &names, frame);
        let Some(rules) = case.policies[0].ingress.as_mut() else { unreachable!() };
        rules.clear();
        rig.apply(&compile(&mut compiler, &case));
        rig.take_events();
        assert!(!passes(&mut rig, &names[0], frame.flags(tcp::ACK)));
        let events = rig.take_events();
        assert_eq!(events[0].kind, Kind::Revoked);
        let text = events[0].to_string();
        assert!(text.contains("NetworkPolicy/default/only-clients"), "{text}");
        // The other end must not bring it back from the middle, nor must it be told of twice.
        assert!(!passes(&mut rig, &names[1], frame.answer().flags(tcp::ACK)));
        assert!(!passes(&mut rig, &names[0], frame.flags(tcp::ACK)));
        assert!(rig.take_events().is_empty());
        // A SYN opens another flow, which is judged by itself.
        let opposite = Frame { reply: true, ..frame }.flags(tcp::SYN);
        assert!(passes(&mut rig, &names[1], opposite));
    });
}

const BOTH: [(&str, &str); 2] = [("198.18.0.1", "198.18.0.2"), ("2001:db8::1", "2001:db8::2")];

/// Connections of both families, and then a policy by which nobody reaches the server.
fn establish_and_close(rig: &mut Rig, case: &mut Case, names: &[WorkloadRef]) {
    rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), case));
    for (client, server) in BOTH {
        connect(rig, names, talk(client, server));
    }
    case.policies[0].ingress.as_mut().expect("isolated").clear();
    rig.take_events();
}

/// What becomes of the connections: of packets of the client, and of the server.
fn live(rig: &mut Rig, names: &[WorkloadRef], wanted: bool) {
    for (client, server) in BOTH {
        let frame = talk(client, server).flags(tcp::ACK);
        assert_eq!(passes(rig, &names[0], frame), wanted, "{client}");
        let answer = frame.answer().flags(tcp::ACK);
        assert_eq!(passes(rig, &names[1], answer), wanted, "{server}");
    }
}

#[test]
fn what_is_established_outlives_a_policy_if_the_plan_keeps_it() {
    on_both(|mut rig, mut case, names| {
        establish_and_close(&mut rig, &mut case, &names);
        let mut compiler = Compiler::new(LocalAllocator::new());
        for round in 1..=2 {
            rig.apply(&compile_with(&mut compiler, &case, true));
            live(&mut rig, &names, true);
            let told = rig.take_events();
            assert_eq!(told.len(), 2, "once for each generation: {told:?}");
            assert!(told.iter().all(|event| event.kind == Kind::Kept));
            let text = told[0].to_string();
            assert!(text.contains("NetworkPolicy/default/only-clients"), "{text}");
            let counters = rig.datapath.counters().expect("readable");
            let counted = [Counter::FlowsKept, Counter::FlowsRevoked, Counter::FlowsRejudged];
            assert_eq!(counted.map(|counter| counters.get(counter)), [2 * round, 0, 0]);
        }
        let (client, server) = BOTH[0];
        let another = Frame { source_port: 40_001, ..talk(client, server) };
        assert!(!passes(&mut rig, &names[0], another), "what is new is denied");
        // Without the option it ends, and the option doesn't bring it back.
        for keep in [false, true] {
            rig.apply(&compile_with(&mut compiler, &case, keep));
            live(&mut rig, &names, false);
        }
    });
}

#[test]
fn what_is_kept_ends_when_an_address_changes_hands() {
    for who in [0, 1] {
        on_both(|mut rig, mut case, names| {
            establish_and_close(&mut rig, &mut case, &names);
            let plan = compile_with(&mut Compiler::new(LocalAllocator::new()), &case, true);
            rig.apply(&plan);
            live(&mut rig, &names, true);
            let id = rig.endpoints.remove(&names[who]).expect("attached");
            assert_eq!(rig.datapath.detach(&[id]).expect("detaches"), 1);
            // Name and labels are the same, and still it is another pod.
            rig.attach(&names[who], &case.inventory.workloads[who].addresses);
            rig.apply(&plan);
            live(&mut rig, &names, false);
            let counters = rig.datapath.counters().expect("readable");
            assert_eq!(counters.get(Counter::FlowsRevoked), 2);
        });
    }
}

#[test]
fn a_flow_that_was_judged_before_its_end_was_attached_does_not_open_it() {
    on_both(|mut rig, mut case, names| {
        case.policies.clear();
        let mut compiler = Compiler::new(LocalAllocator::new());
        let server = case.inventory.workloads.pop().expect("two workloads");
        let id = rig.endpoints.remove(&names[1]).expect("attached");
        assert_eq!(rig.datapath.detach(&[id]).expect("writable"), 1);
        rig.apply(&compile(&mut compiler, &case));
        // The server's address is world's: the client may send there, and the flow is tracked.
        rig.attach(&names[1], &server.addresses);
        let frame = talk("198.18.0.1", "198.18.0.2");
        assert!(passes(&mut rig, &names[0], frame));
        assert!(!to_endpoint(&mut rig, &names[1], frame));
        assert!(!passes(&mut rig, &names[1], frame.answer()));
    });
}

//! What an audited policy alone denies passes, and is told of and counted at the end where it would not.

use flowgate_abi::event::{Counter, Event, Kind};
use flowgate_identity::Selector;
use flowgate_policy::{
    model::{
        Mode, NamespaceSelector, Peers, Policy, PolicyKind, PolicyRef, Ports, Rule,
        WorkloadSelector,
    },
    outcome::FlowProtocol,
};

use crate::world::{CLIENT, World, bytes, request};

/// An audited policy of a pod that denies everything in one direction.
fn audited(app: &str, ingress: bool) -> Policy {
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: "default".into(),
        name: format!("audited-{app}").into(),
    };
    let pod = WorkloadSelector {
        namespaces: NamespaceSelector::Named("default".into()),
        labels: Selector::match_label("app", app),
    };
    let rules = || Some(vec![Rule::deny(Peers::Any, Ports::Any)]);
    let policy = Policy { mode: Mode::Audit, ..Policy::new(id, pod) };
    match ingress {
        true => Policy { ingress: rules(), ..policy },
        false => Policy { egress: rules(), ..policy },
    }
}

#[test]
fn an_event_and_a_counter_say_at_which_end_a_trial_would_deny() {
    let (egress, ingress) = (audited("client", false), audited("server", true));
    for (policies, flags, counted) in [
        (vec![], 0, [0, 0]),
        (vec![egress.clone()], Event::AUDITED_EGRESS, [1, 0]),
        (vec![ingress.clone()], Event::AUDITED_INGRESS, [0, 1]),
        (vec![egress, ingress], Event::AUDITED_EGRESS | Event::AUDITED_INGRESS, [1, 1]),
    ] {
        let world = World::on_node(&policies);
        assert_eq!(world.send(CLIENT, &bytes(request(FlowProtocol::Tcp(80), false))), Ok(()));
        let told = world.installer.store().take_events();
        let [event] = told.as_slice() else { panic!("one event: {told:?}") };
        assert_eq!((event.kind, event.flags), (Kind::New as u8, flags));
        let counters = world.installer.store().counters();
        let of = |counter: Counter| counters[counter as usize];
        assert_eq!([of(Counter::AuditedEgress), of(Counter::AuditedIngress)], counted);
    }
}

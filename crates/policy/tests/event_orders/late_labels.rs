//! Labels that come last are not ignored (CVE-2024-42488): all orders in which an agent that has just started
//! may learn of a namespace, a pod, a node, a policy that selects all three by their labels, and the pod's link.

use flowgate_conformance::generate::Case;
use flowgate_identity::{Labels, Selector};
use flowgate_policy::{
    inventory::{Inventory, Node, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Ports, Rule, Tier,
        WorkloadSelector,
    },
    outcome::{Flow, FlowProtocol},
};

use crate::{
    agent::Agent,
    arrival::{Inbox, KINDS, Message, kind},
    history::list,
    verdicts::{Question, Watch},
};

const SERVER: &str = "198.18.0.1";
const FRIEND: &str = "203.0.113.7";
const STRANGER: &str = "203.0.113.8";

fn state() -> Case {
    let server = Workload {
        id: WorkloadRef { namespace: "prod".into(), name: "server".into() },
        labels: Labels::from_iter([("app", "server")]),
        addresses: vec![SERVER.parse().expect("an address")],
        ports: vec![],
        node: None,
        host_network: false,
    };
    let friend = Node {
        name: "friend".into(),
        labels: Labels::from_iter([("team", "blue")]),
        addresses: vec![FRIEND.parse().expect("an address")],
    };
    let inventory = Inventory {
        namespaces: [("prod".into(), Labels::from_iter([("team", "blue")]))].into(),
        workloads: vec![server],
        nodes: vec![friend],
    };
    Case { inventory, policies: vec![policy()] }
}

/// Nobody but the blue node reaches servers in blue namespaces.
fn policy() -> Policy {
    let (kind, namespace) = (PolicyKind::ClusterNetworkPolicy, "".into());
    let subject = WorkloadSelector {
        namespaces: NamespaceSelector::Matching(Selector::match_label("team", "blue")),
        labels: Selector::match_label("app", "server"),
    };
    let friend = Peer::Nodes(Selector::match_label("team", "blue"));
    let rules = vec![
        Rule::allow(Peers::OneOf(vec![friend]), Ports::Any),
        Rule::deny(Peers::Any, Ports::Any),
    ];
    let id = PolicyRef { kind, namespace, name: "servers".into() };
    Policy { tier: Tier::Admin { priority: 0 }, ingress: Some(rules), ..Policy::new(id, subject) }
}

fn question(source: &str) -> Question {
    let [source, destination] = [source, SERVER].map(|text| text.parse().expect("an address"));
    Question::of(Flow { source, destination, protocol: FlowProtocol::Tcp(80) })
}

/// What the agent learns: of each kind everything at once.
fn messages(state: &Case) -> Vec<Vec<Message>> {
    let told = list(state).into_iter().map(|event| {
        let kind = kind(&event);
        vec![Message::Changed(0, event), Message::Reached(kind, 0)]
    });
    let told: Vec<Vec<Message>> = told.collect();
    assert_eq!(told.len(), KINDS, "one of each kind");
    let server = &state.inventory.workloads[0];
    let link = vec![Message::Attach(server.id.clone(), server.addresses.clone())];
    told.into_iter().chain([link]).collect()
}

fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    let Some((first, rest)) = items.split_first() else { return vec![Vec::new()] };
    let mut all = Vec::new();
    for order in orders(rest) {
        for place in 0..=order.len() {
            let mut order = order.clone();
            order.insert(place, first.clone());
            all.push(order);
        }
    }
    all
}

#[test]
fn cve_2024_42488_labels_that_come_last_are_not_ignored() {
    let state = state();
    let orders = orders(&messages(&state));
    assert_eq!(orders.len(), 120);
    for order in orders {
        let watch = Watch::new([FRIEND, STRANGER].map(question).to_vec(), 1);
        let (mut agent, mut inbox) = (Agent::start(watch), Inbox::new());
        let mut linked = false;
        for message in order.into_iter().flatten() {
            match message {
                Message::Attach(id, addresses) => {
                    agent.attach(&id, &addresses);
                    linked = true;
                }
                message => inbox.take(message).into_iter().for_each(|state| agent.advance(state)),
            }
            let [_, stranger] = agent.decisions()[..] else { unreachable!() };
            assert!(!linked || !stranger, "the stranger passes meanwhile");
        }
        assert_eq!(agent.decisions(), [true, false]);
    }
}

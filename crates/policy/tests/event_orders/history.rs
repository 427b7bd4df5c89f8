//! What becomes of a cluster: a state, and groups of changes that belong together.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use flowgate_conformance::generate::{Case, Generator};
use flowgate_identity::Labels;
use flowgate_policy::{
    inventory::{Inventory, Node, Workload, WorkloadRef},
    model::{Policy, PolicyRef},
    options::{EndpointScope, Options},
};

/// The node that the agent is on. It keeps its addresses, and its uplink is there before any event.
pub(crate) const HERE: &str = "node-1";

/// The agent's.
pub(crate) fn options() -> Options {
    Options {
        local_node: Some(HERE.into()),
        endpoints: EndpointScope::LocalNode,
        ..Options::default()
    }
}

/// The addresses of the agent's node.
pub(crate) fn of_node() -> Vec<IpAddr> {
    ["198.51.100.1", "2001:db8:ffff::1"].map(|text| text.parse().expect("an address")).to_vec()
}

/// Whether a pod has a link on the agent's node.
pub(crate) fn is_local(pod: &Workload) -> bool {
    !pod.host_network && pod.node.as_ref().is_none_or(|node| &**node == HERE)
}

/// A change of one object; `None`: it goes.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Namespace(Arc<str>, Option<Labels>),
    Pod(WorkloadRef, Option<Box<Workload>>),
    Policy(PolicyRef, Option<Box<Policy>>),
    Node(Arc<str>, Option<Box<Node>>),
}

/// The states of a cluster, one after the other.
pub(crate) struct History {
    pub(crate) states: Vec<Case>,
}

impl History {
    pub(crate) fn generate(generator: &mut Generator) -> Self {
        let mut states = vec![case(generator)];
        states[0].inventory.workloads.truncate(7);
        for _ in 0..3 {
            let next = change(&states[states.len() - 1], generator);
            states.push(next);
        }
        Self { states }
    }

    pub(crate) fn last(&self) -> &Case {
        &self.states[self.states.len() - 1]
    }

    /// How many nodes have come, gone or changed since the first state.
    pub(crate) fn nodes_changed(&self) -> usize {
        let later = (1..self.states.len()).flat_map(|state| self.events(state));
        later.filter(|event| matches!(event, Event::Node(..))).count()
    }

    /// The changes that lead to a state.
    pub(crate) fn events(&self, state: usize) -> Vec<Event> {
        match state.checked_sub(1) {
            Some(before) => difference(&self.states[before], &self.states[state]),
            None => list(&self.states[0]),
        }
    }
}

/// Everything that there is, as if it had just come.
pub(crate) fn list(state: &Case) -> Vec<Event> {
    let mut nothing = state.clone();
    nothing.inventory.namespaces.clear();
    nothing.inventory.workloads.clear();
    nothing.inventory.nodes.clear();
    nothing.policies.clear();
    difference(&nothing, state)
}

fn difference(before: &Case, after: &Case) -> Vec<Event> {
    let namespaces = changed(&before.inventory.namespaces, &after.inventory.namespaces);
    let namespaces = namespaces.map(|(name, labels)| Event::Namespace(name, labels));
    let pods = changed(&pods(before), &pods(after))
        .map(|(id, pod)| Event::Pod(id, pod.map(|pod| Box::new(pod.clone()))));
    let policies = changed(&policies(before), &policies(after))
        .map(|(id, policy)| Event::Policy(id, policy.map(|policy| Box::new(policy.clone()))));
    let nodes = changed(&nodes(before), &nodes(after))
        .map(|(name, node)| Event::Node(name, node.map(|node| Box::new(node.clone()))));
    namespaces.chain(pods).chain(policies).chain(nodes).collect()
}

fn nodes(state: &Case) -> BTreeMap<Arc<str>, &Node> {
    state.inventory.nodes.iter().map(|node| (Arc::clone(&node.name), node)).collect()
}

fn pods(state: &Case) -> BTreeMap<WorkloadRef, &Workload> {
    state.inventory.workloads.iter().map(|pod| (pod.id.clone(), pod)).collect()
}

fn policies(state: &Case) -> BTreeMap<PolicyRef, &Policy> {
    state.policies.iter().map(|policy| (policy.id.clone(), policy)).collect()
}

fn changed<K: Ord + Clone, V: PartialEq + Clone>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> impl Iterator<Item = (K, Option<V>)> + use<K, V> {
    let gone = before.keys().filter(|key| !after.contains_key(key)).map(|key| (key.clone(), None));
    let there = after.iter().filter(|(key, value)| before.get(key) != Some(value));
    let there = there.map(|(key, value)| (key.clone(), Some(value.clone())));
    gone.chain(there).collect::<Vec<_>>().into_iter()
}

/// The next state: more pods like those that are there, some gone, or anything else.
fn change(state: &Case, generator: &mut Generator) -> Case {
    let mut next = state.clone();
    match generator.below(5) {
        0 => twins(&mut next, generator),
        1 => gone(&mut next, generator),
        2 => nodes_change(&mut next, generator),
        _ => anything(&mut next, generator),
    }
    next
}

fn twins(next: &mut Case, generator: &mut Generator) {
    let models: Vec<Workload> =
        next.inventory.workloads.iter().filter(|pod| !pod.host_network).cloned().collect();
    for model in models.iter().filter(|_| generator.below(3) > 0).collect::<Vec<_>>() {
        let mut twin = model.clone();
        twin.id.name = format!("{}-twin", model.id.name).into();
        twin.addresses = model.addresses.iter().map(|address| beside(*address)).collect();
        add(next, twin);
    }
}

fn gone(next: &mut Case, generator: &mut Generator) {
    next.inventory.workloads.retain(|_| generator.below(3) > 0);
}

/// A case in which the agent's node has no addresses but its own, and most of the pods.
fn case(generator: &mut Generator) -> Case {
    let mut case = generator.case();
    for pod in &mut case.inventory.workloads {
        match &pod.node {
            Some(node) if &**node == HERE && pod.host_network => pod.addresses = of_node(),
            Some(_) if !pod.host_network && generator.below(2) == 0 => pod.node = Some(HERE.into()),
            _ => {}
        }
    }
    case
}

/// Nodes come, go, get other labels and other addresses, also such as pods had before. Pods stay, be their
/// node there or not.
fn nodes_change(next: &mut Case, generator: &mut Generator) {
    let inventory = &mut next.inventory;
    let others = generator.case().inventory.nodes;
    let free: Vec<IpAddr> =
        inventory.workloads.iter().flat_map(|pod| &pod.addresses).copied().collect();
    inventory.workloads.retain(|pod| pod.host_network || generator.below(4) > 0);
    for node in std::mem::take(&mut inventory.nodes) {
        let addresses = match generator.below(4) {
            _ if &*node.name == HERE => node.addresses.clone(),
            0 => continue,
            1 => node.addresses.iter().map(|address| beside(*address)).collect(),
            2 if !free.is_empty() => vec![free[generator.below(free.len() as u64) as usize]],
            _ => node.addresses.clone(),
        };
        let labels = others[generator.below(others.len() as u64) as usize].labels.clone();
        add_node(inventory, Node { labels, addresses, ..node });
    }
    others.into_iter().for_each(|node| add_node(inventory, node));
}

/// Adds a node, unless its name is taken, or one of its addresses by another node or its pods.
fn add_node(inventory: &mut Inventory, node: Node) {
    let nodes = inventory.nodes.iter().flat_map(|node| &node.addresses);
    let others = |pod: &&Workload| !pod.host_network || pod.node.as_ref() != Some(&node.name);
    let pods = inventory.workloads.iter().filter(others).flat_map(|pod| &pod.addresses);
    let shares = nodes.chain(pods).any(|address| node.addresses.contains(address));
    if !shares && inventory.nodes.iter().all(|known| known.name != node.name) {
        inventory.nodes.push(node);
    }
}

/// Pods come, go, get other labels and others' addresses; namespaces get other labels; policies are
/// replaced.
fn anything(next: &mut Case, generator: &mut Generator) {
    let other = case(generator);
    gone(next, generator);
    for workload in &mut next.inventory.workloads {
        if generator.below(4) == 0 {
            let from = generator.below(other.inventory.workloads.len() as u64) as usize;
            workload.labels = other.inventory.workloads[from].labels.clone();
        }
    }
    for mut pod in other.inventory.workloads.into_iter().take(5) {
        pod.id.name = format!("{}-new", pod.id.name).into();
        add(next, pod);
    }
    for (name, labels) in other.inventory.namespaces {
        if generator.below(2) == 0 {
            next.inventory.namespaces.insert(name, labels);
        }
    }
    next.policies.retain(|_| generator.below(2) == 0);
    for policy in other.policies {
        if next.policies.iter().all(|known| known.id != policy.id) {
            next.policies.push(policy);
        }
    }
}

/// Adds a pod, unless its name or one of its addresses is taken.
fn add(state: &mut Case, pod: Workload) {
    let inventory = &mut state.inventory;
    let nodes = inventory.nodes.iter().flat_map(|node| &node.addresses);
    let pods = inventory.workloads.iter().flat_map(|pod| &pod.addresses);
    let mut taken = nodes.chain(pods);
    let named = inventory.workloads.iter().any(|known| known.id == pod.id);
    let shares = taken.any(|address| pod.addresses.contains(address));
    if !named && !shares && !pod.host_network {
        inventory.workloads.push(pod);
    }
}

fn beside(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => (u32::from(v4) ^ 64).to_be_bytes().into(),
        IpAddr::V6(v6) => (u128::from(v6) ^ 64).to_be_bytes().into(),
    }
}

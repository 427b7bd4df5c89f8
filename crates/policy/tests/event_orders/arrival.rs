//! In which order an agent learns of things, and what it makes of it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use flowgate_conformance::generate::{Case, Generator};
use flowgate_policy::inventory::{Inventory, WorkloadRef};

use crate::history::{Event, History, is_local, list};

/// Namespaces, pods, policies, nodes.
pub(crate) const KINDS: usize = 4;

/// What an agent is told.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// Something has changed, in this group of changes.
    Changed(usize, Event),
    /// Everything of a kind up to this group has been told.
    Reached(usize, usize),
    /// A pod's link has come.
    Attach(WorkloadRef, Vec<IpAddr>),
    /// A pod's link has gone.
    Detach(WorkloadRef),
}

pub(crate) const fn kind(event: &Event) -> usize {
    match event {
        Event::Namespace(..) => 0,
        Event::Pod(..) => 1,
        Event::Policy(..) => 2,
        Event::Node(..) => 3,
    }
}

/// A stream for each kind, and one of the node's own. Each keeps its order; nothing else has any.
pub(crate) struct Streams {
    streams: Vec<VecDeque<Message>>,
    /// The last group that any stream has begun to tell of.
    begun: usize,
}

impl Streams {
    pub(crate) fn of(history: &History, generator: &mut Generator) -> Self {
        let mut streams = vec![VecDeque::new(); KINDS];
        for group in 0..history.states.len() {
            tell(&mut streams, group, history.events(group), generator);
        }
        streams.push(links(history));
        Self { streams, begun: 0 }
    }

    /// The next message of any stream.
    pub(crate) fn next(&mut self, generator: &mut Generator) -> Option<Message> {
        let full = self.streams.iter_mut().filter(|stream| !stream.is_empty());
        let mut full: Vec<&mut VecDeque<Message>> = full.collect();
        if full.is_empty() {
            return None;
        }
        let chosen = generator.below(full.len() as u64) as usize;
        let message = full.swap_remove(chosen).pop_front()?;
        if let Message::Changed(group, _) | Message::Reached(_, group) = message {
            self.begun = self.begun.max(group);
        }
        Some(message)
    }

    /// To an agent that knows nothing any more everything is told anew, as it is by now.
    pub(crate) fn list_again(&mut self, history: &History, generator: &mut Generator) {
        let links = self.streams.pop();
        let mut streams = vec![VecDeque::new(); KINDS];
        tell(&mut streams, self.begun, list(&history.states[self.begun]), generator);
        for group in self.begun + 1..history.states.len() {
            tell(&mut streams, group, history.events(group), generator);
        }
        self.streams = streams.into_iter().chain(links).collect();
    }
}

/// Appends a group's events to the streams of their kinds, in any order.
fn tell(
    streams: &mut [VecDeque<Message>],
    group: usize,
    mut events: Vec<Event>,
    generator: &mut Generator,
) {
    while !events.is_empty() {
        let event = events.swap_remove(generator.below(events.len() as u64) as usize);
        streams[kind(&event)].push_back(Message::Changed(group, event));
    }
    for (kind, stream) in streams.iter_mut().enumerate() {
        stream.push_back(Message::Reached(kind, group));
    }
}

/// The links of the pods on this node. A link goes before another one gets its address.
fn links(history: &History) -> VecDeque<Message> {
    let mut links = VecDeque::new();
    let mut there: Vec<WorkloadRef> = Vec::new();
    for state in &history.states {
        let pods = &state.inventory.workloads;
        let (stay, go): (Vec<_>, Vec<_>) =
            there.into_iter().partition(|id| pods.iter().any(|pod| pod.id == *id && is_local(pod)));
        links.extend(go.into_iter().map(Message::Detach));
        there = stay;
        for pod in pods.iter().filter(|pod| is_local(pod)) {
            if !there.contains(&pod.id) {
                links.push_back(Message::Attach(pod.id.clone(), pod.addresses.clone()));
                there.push(pod.id.clone());
            }
        }
    }
    links
}

/// What has been told, until it is complete.
pub(crate) struct Inbox {
    /// By group.
    pending: BTreeMap<usize, Vec<Event>>,
    /// By kind: how many groups have been told of in full.
    reached: [usize; KINDS],
    state: Case,
}

impl Inbox {
    /// Nothing is known.
    pub(crate) fn new() -> Self {
        let state = Case { inventory: Inventory::default(), policies: Vec::new() };
        Self { pending: BTreeMap::new(), reached: [0; KINDS], state }
    }

    /// Takes a message; returns the next state, once all kinds have come as far.
    pub(crate) fn take(&mut self, message: Message) -> Option<Case> {
        match message {
            Message::Changed(group, event) => self.pending.entry(group).or_default().push(event),
            Message::Reached(kind, group) => self.reached[kind] = group + 1,
            Message::Attach(..) | Message::Detach(_) => {}
        }
        let all = self.reached.into_iter().min().unwrap_or_default();
        let later = self.pending.split_off(&all);
        let complete = std::mem::replace(&mut self.pending, later);
        if complete.is_empty() {
            return None;
        }
        complete.into_values().flatten().for_each(|event| happen(&mut self.state, event));
        Some(self.state.clone())
    }
}

fn happen(state: &mut Case, event: Event) {
    let Case { inventory, policies } = state;
    match event {
        Event::Namespace(name, Some(labels)) => drop(inventory.namespaces.insert(name, labels)),
        Event::Namespace(name, None) => drop(inventory.namespaces.remove(&name)),
        Event::Pod(id, pod) => {
            inventory.workloads.retain(|known| known.id != id);
            inventory.workloads.extend(pod.map(|pod| *pod));
        }
        Event::Policy(id, policy) => {
            policies.retain(|known| known.id != id);
            policies.extend(policy.map(|policy| *policy));
        }
        Event::Node(name, node) => {
            inventory.nodes.retain(|known| known.name != name);
            inventory.nodes.extend(node.map(|node| *node));
        }
    }
}

//! What becomes of packets on the node: by the tables, and by the specification.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use flowgate_abi::event::Hook;
use flowgate_conformance::{
    attended::{Attendant, Write},
    frames::{Frame, tcp},
    generate::{Case, Generator},
};
use flowgate_pipeline::Verdict;
use flowgate_policy::{
    host::HostTables,
    inventory::WorkloadRef,
    oracle,
    outcome::{Flow, FlowProtocol, Side},
};

use crate::history::{History, is_local, of_node, options};

/// A flow, and a packet of it that is judged and leaves no trace: a RST.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    flow: Flow,
    frame: Vec<u8>,
    /// From the node to an address that one of its own pods has at some time: it reaches them by their links
    /// alone, and past its uplink.
    to_own: bool,
}

impl Question {
    pub(crate) fn of(flow: Flow) -> Self {
        let frame = Frame::opening(flow, 40_000).flags(tcp::RST).bytes();
        Self { flow, frame, to_own: false }
    }

    fn among(self, history: &History) -> Self {
        let pods = history.states.iter().flat_map(|state| &state.inventory.workloads);
        let mut own = pods.filter(|pod| is_local(pod)).flat_map(|pod| &pod.addresses);
        let to_own = self.is_from_node() && own.any(|address| *address == self.flow.destination);
        Self { to_own, ..self }
    }

    /// Whether the agent's node is one of its ends.
    fn is_of_node(&self) -> bool {
        self.is_from_node() || self.is_to_node()
    }

    fn is_from_node(&self) -> bool {
        of_node().contains(&self.flow.source)
    }

    fn is_to_node(&self) -> bool {
        of_node().contains(&self.flow.destination)
    }

    /// Whether it comes through both of its ends, as far as they are on this node.
    fn passes(&self, tables: &HostTables, interfaces: &BTreeMap<IpAddr, u32>) -> bool {
        if self.to_own && !interfaces.contains_key(&self.flow.destination) {
            return false;
        }
        if let Some(&ifindex) = interfaces.get(&self.flow.source).filter(|_| !self.to_own) {
            match tables.run(&self.frame, ifindex, Hook::FromEndpoint).verdict {
                Verdict::Drop(_) => return false,
                // The node's ingress is judged there, too.
                _ if self.is_to_node() => return true,
                Verdict::Pass | Verdict::HostAlone => {}
                Verdict::Redirect(_) | Verdict::RedirectPeer(_) | Verdict::Stack(_) => return true,
            }
        }
        interfaces.get(&self.flow.destination).is_none_or(|ifindex| {
            let passed = tables.run(&self.frame, *ifindex, Hook::ToEndpoint);
            !matches!(passed.verdict, Verdict::Drop(_))
        })
    }
}

/// Flows that the states of a history tell apart.
pub(crate) fn questions(history: &History, generator: &mut Generator) -> Vec<Question> {
    let mut flows = BTreeSet::new();
    for state in &history.states {
        for _ in 0..4 {
            let flow = generator.flow(state);
            let (FlowProtocol::Tcp(port) | FlowProtocol::Udp(port) | FlowProtocol::Sctp(port)) =
                flow.protocol
            else {
                continue;
            };
            flows.insert(Flow { protocol: FlowProtocol::Tcp(port), ..flow });
        }
        flows.extend(from_nodes(state, generator));
    }
    flows.into_iter().map(|flow| Question::of(flow).among(history)).collect()
}

/// From an address of each node to somebody.
fn from_nodes(state: &Case, generator: &mut Generator) -> Vec<Flow> {
    let addresses = state.inventory.nodes.iter().filter_map(|node| node.addresses.first());
    let flow = |&source: &IpAddr| {
        let protocol = FlowProtocol::Tcp([80, 443, 8080][generator.below(3) as usize]);
        let pods = state.inventory.workloads.iter().filter(|pod| !pod.host_network);
        let mut theirs: Vec<IpAddr> = pods.flat_map(|pod| pod.addresses.clone()).collect();
        theirs.retain(|address| address.is_ipv4() == source.is_ipv4() && *address != source);
        let chosen = generator.below(theirs.len().max(1) as u64) as usize;
        theirs.get(chosen).map(|&destination| Flow { source, destination, protocol })
    };
    addresses.filter_map(flow).collect()
}

/// What is true on the node, as far as verdicts depend on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// The state by which packets are judged; `None`: there is none yet.
    pub(crate) state: Option<Case>,
    pub(crate) links: BTreeMap<WorkloadRef, Vec<IpAddr>>,
    /// Links whose addresses are known as theirs.
    pub(crate) known: BTreeSet<WorkloadRef>,
    /// Addresses whose link has gone, though the state has them.
    pub(crate) vacant: BTreeSet<IpAddr>,
}

impl World {
    /// Whether a flow is allowed, by the oracle.
    pub(crate) fn allows(&self, question: &Question) -> bool {
        let Flow { source, destination, .. } = question.flow;
        let linked = |address| self.links.iter().find(|(_, own)| own.contains(address));
        let links = [linked(&source), linked(&destination)].map(|link| link.map(|(id, _)| id));
        if question.to_own && links[1].is_none() {
            return false;
        }
        let is_node = |id: &WorkloadRef| id.as_node().is_some();
        let Some(state) = &self.state else {
            return links.into_iter().flatten().all(is_node);
        };
        let mut inventory = state.inventory.clone();
        for pod in &mut inventory.workloads {
            pod.addresses.retain(|address| !self.vacant.contains(address));
        }
        let outcome = oracle::decide(&inventory, &state.policies, &options(), &question.flow);
        let passes = |link: Option<&WorkloadRef>, side: &Side, address: IpAddr| {
            let Some(id) = link else { return true };
            if is_node(id) {
                return side.allowed();
            }
            let mut pods = inventory.workloads.iter();
            let there =
                pods.any(|pod| pod.id == *id && is_local(pod) && pod.addresses.contains(&address));
            there && self.known.contains(id) && side.allowed()
        };
        passes(links[0], &outcome.egress, source) && passes(links[1], &outcome.ingress, destination)
    }
}

/// Asks after every write: nothing passes that passes neither before nor after.
#[derive(Debug)]
pub(crate) struct Watch {
    questions: Vec<Question>,
    /// Where each address is that has a link.
    pub(crate) interfaces: BTreeMap<IpAddr, u32>,
    /// After every so many writes packets are sent.
    step: usize,
    writes: usize,
    /// By question: whether it may pass meanwhile.
    may: Option<Vec<bool>>,
}

impl Watch {
    pub(crate) fn new(questions: Vec<Question>, step: usize) -> Self {
        Self { questions, interfaces: BTreeMap::new(), step, writes: 0, may: None }
    }

    /// From one state of things to another.
    pub(crate) fn between(&mut self, before: &World, after: &World) {
        let may = |question| before.allows(question) || after.allows(question);
        self.may = Some(self.questions.iter().map(may).collect());
    }

    /// All is as it should be afterwards. Whoever was taken over from an earlier process and has gone leaves
    /// addresses to which nothing passes, until the next plan: nobody knows what is around them.
    pub(crate) fn settled(&mut self, tables: &HostTables, world: &World) {
        self.may = None;
        for question in &self.questions {
            let (seen, wanted) =
                (question.passes(tables, &self.interfaces), world.allows(question));
            let ends = [question.flow.source, question.flow.destination];
            let vacant = ends.iter().any(|end| world.vacant.contains(end));
            assert!(seen == wanted || vacant && !seen, "{}: {wanted} is wanted", question.flow);
        }
    }

    /// How many flows of the node's don't come through.
    pub(crate) fn denied_at_node(&self, tables: &HostTables) -> usize {
        let of_node = self.questions.iter().filter(|question| question.is_of_node());
        of_node.filter(|question| !question.passes(tables, &self.interfaces)).count()
    }

    pub(crate) fn decisions(&self, tables: &HostTables) -> Vec<bool> {
        let passes = |question: &Question| question.passes(tables, &self.interfaces);
        self.questions.iter().map(passes).collect()
    }
}

impl Attendant<HostTables> for Watch {
    fn after(&mut self, tables: &HostTables, _write: Write) {
        self.writes += 1;
        if !self.writes.is_multiple_of(self.step) {
            return;
        }
        for (question, may) in self.questions.iter().zip(self.may.iter().flatten()) {
            let allowed = !may && question.passes(tables, &self.interfaces);
            assert!(!allowed, "{} is allowed neither before nor after", question.flow);
        }
    }
}

//! Peer classes: peers that no rule that applies to an endpoint tells apart share a class.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use flowgate_abi::policy::Direction;

use crate::{
    compile::{
        error::{CompileError, Numbered},
        peers::Population,
        rules::{EVERYBODY, NameId, PeerSetId, Rules},
    },
    options::Options,
    peer_key::PeerKey,
};

/// The ports that an end declares under a name.
pub(super) type Resolved = (NameId, Vec<u16>);

/// What tells one class from another.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Signature<'a> {
    sets: Vec<PeerSetId>,
    named: Vec<Resolved>,
    node: Option<&'a Arc<str>>,
}

/// The peer classes. Class 0 is nobody's.
pub(super) struct PeerClasses<'a> {
    /// By peer.
    pub(super) of_peer: Vec<u16>,
    /// How many there are, class 0 included.
    pub(super) count: u32,
    /// By set of peers, ascending.
    pub(super) of_set: Vec<Vec<u16>>,
    /// By class: what the peers declare under the names that egress rules use for them.
    pub(super) named: Vec<Vec<Resolved>>,
    /// The classes of the nodes that may reach their workloads whatever policies say.
    pub(super) of_node: HashMap<&'a Arc<str>, BTreeSet<u16>>,
}

impl<'a> PeerClasses<'a> {
    pub(super) fn new(
        population: &'a Population<'_>,
        rules: &Rules,
        options: &Options,
    ) -> Result<Self, CompileError> {
        let nodes = exempt_nodes(population, rules, options);
        let signatures = signatures(population, rules, &nodes);
        let mut classes = Self {
            of_peer: Vec::with_capacity(signatures.len()),
            count: 1,
            of_set: Vec::new(),
            named: vec![Vec::new()],
            of_node: HashMap::new(),
        };
        classes.number(signatures)?;
        classes.of_set = rules.peer_sets.iter().map(|set| classes.of_peers(set)).collect();
        Ok(classes)
    }

    fn number(&mut self, signatures: Vec<Signature<'a>>) -> Result<(), CompileError> {
        let mut numbers: HashMap<Signature<'a>, u16> = HashMap::new();
        for signature in signatures {
            let class = match numbers.get(&signature) {
                Some(&class) => class,
                None => u16::try_from(self.count).map_err(|_| too_many())?,
            };
            if u32::from(class) == self.count {
                self.count += 1;
                self.named.push(signature.named.clone());
                if let Some(node) = signature.node {
                    self.of_node.entry(node).or_default().insert(class);
                }
                numbers.insert(signature, class);
            }
            self.of_peer.push(class);
        }
        Ok(())
    }

    fn of_peers(&self, peers: &[u32]) -> Vec<u16> {
        let classes: BTreeSet<u16> =
            peers.iter().map(|&peer| self.of_peer[peer as usize]).collect();
        classes.into_iter().collect()
    }
}

const fn too_many() -> CompileError {
    CompileError::TooMany { what: Numbered::PeerClasses, limit: 1 << 16 }
}

fn signatures<'a>(
    population: &'a Population<'_>,
    rules: &Rules,
    nodes: &BTreeSet<&'a Arc<str>>,
) -> Vec<Signature<'a>> {
    let mut signatures = vec![Signature::default(); population.peers.len()];
    for (number, set) in (0..).zip(&rules.peer_sets).skip(1) {
        for &peer in set {
            signatures[peer as usize].sets.push(number);
        }
    }
    let uses = rules.named_uses();
    for (key, signature) in population.peers.iter().zip(&mut signatures) {
        let sets = signature.sets.iter().chain([&EVERYBODY]);
        let names: BTreeSet<NameId> =
            sets.filter_map(|set| uses.get(set)).flatten().copied().collect();
        signature.named = names.into_iter().filter_map(|name| resolve(rules, name, key)).collect();
        signature.node = match key {
            PeerKey::Node { name, .. } if nodes.contains(name) => Some(name),
            _ => None,
        };
    }
    signatures
}

fn resolve(rules: &Rules, name: NameId, key: &PeerKey) -> Option<Resolved> {
    let (text, protocol) = &rules.names[name as usize];
    let ports = key.resolve(text, *protocol);
    (!ports.is_empty()).then_some((name, ports))
}

/// The nodes that may reach workloads on them whatever policies say of these.
fn exempt_nodes<'a>(
    population: &Population<'a>,
    rules: &Rules,
    options: &Options,
) -> BTreeSet<&'a Arc<str>> {
    let subject =
        |kind: u32| !rules.subjects.applying[Direction::Ingress as usize][kind as usize].is_empty();
    let endpoints = population.endpoints.iter().filter(|endpoint| subject(endpoint.kind));
    endpoints.filter(|_| options.allow_local_node).filter_map(|endpoint| endpoint.node).collect()
}

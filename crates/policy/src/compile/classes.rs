//! Peer classes: peers that no rule that applies to an endpoint tells apart share a class.
//!
//! All peers begin as one class for each way in which they answer to port names, and each list of
//! peers that rules name splits the classes that it cuts through. So the work is in proportion to
//! the lengths of the lists.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use flowgate_abi::policy::Direction;
use ipnet::{IpNet, Ipv4Net};

use crate::{
    compile::{
        census::Census,
        error::{CompileError, Numbered},
        interned::index,
        policies::Applying,
        population::{Endpoint, PeerId, Population},
        rules::{DIRECTIONS, EVERYBODY, NameId, PeersId, Terms},
    },
    peer_key::NamedPorts,
};

/// The ports that an end declares under a name.
pub(super) type Resolved = (NameId, Vec<u16>);

/// The peer classes. Class 0 is nobody's.
#[derive(Clone, Debug)]
pub(super) struct PeerClasses {
    /// By peer.
    pub(super) of_peer: Vec<u16>,
    /// How many there are, class 0 included.
    pub(super) count: u32,
    /// That of 0.0.0.0/0, which is always there.
    pub(super) world: u16,
    /// By class: what its peers declare under the names that egress rules use for them.
    pub(super) named: Vec<Vec<Resolved>>,
    /// The classes of those that declare something, ascending.
    pub(super) declaring: Vec<u16>,
    /// The classes of the nodes that may reach their workloads whatever policies say.
    pub(super) of_node: HashMap<Arc<str>, BTreeSet<u16>>,
    /// The lists of peers that rules name.
    lists: HashMap<PeersId, List>,
}

/// A list of peers.
#[derive(Clone, Debug)]
struct List {
    /// Ascending.
    peers: Arc<[PeerId]>,
    /// Theirs, ascending.
    classes: Arc<[u16]>,
}

/// Lists of peers, each with its peers.
type Lists = HashMap<PeersId, Arc<[PeerId]>>;

/// What the classes are made of.
pub(super) struct Parts<'a> {
    pub(super) census: &'a mut Census,
    pub(super) terms: &'a mut Terms,
    pub(super) population: &'a Population,
    pub(super) applying: &'a Applying,
    pub(super) endpoints: &'a [Endpoint],
}

impl PeerClasses {
    /// `before`: the classes of the plan before, if it was of the same population.
    pub(super) fn new(parts: &mut Parts<'_>, before: Option<&Self>) -> Result<Self, CompileError> {
        let lists = parts.lists(before);
        let begun = Beginning::new(parts, &lists);
        let mut partition = Partition::new(&begun.of_peer);
        for members in lists.values() {
            partition.split(members);
        }
        let numbered = partition.number().ok_or(TOO_MANY)?;
        let mut classes = Self {
            count: numbered.count,
            world: numbered.of_peer[parts.world() as usize],
            named: vec![Vec::new(); numbered.count as usize],
            declaring: Vec::new(),
            of_node: HashMap::new(),
            lists: HashMap::new(),
            of_peer: numbered.of_peer,
        };
        classes.describe(begun);
        let before = before.filter(|before| before.of_peer == classes.of_peer);
        let list = |(list, peers)| (list, classes.list(list, peers, before));
        classes.lists = lists.into_iter().map(list).collect();
        Ok(classes)
    }

    /// The classes of the peers that a rule names, ascending; not asked of [`EVERYBODY`].
    pub(super) fn of_list(&self, list: PeersId) -> &[u16] {
        self.lists.get(&list).map_or(&[], |list| &*list.classes)
    }

    /// How many lists of peers rules name.
    pub(super) fn lists(&self) -> usize {
        self.lists.len()
    }

    fn describe(&mut self, begun: Beginning) {
        for (&class, &part) in self.of_peer.iter().zip(&begun.of_peer) {
            let (named, node) = &begun.parts[part as usize];
            if !named.is_empty() && self.named[usize::from(class)].is_empty() {
                self.named[usize::from(class)].clone_from(named);
            }
            if let Some(node) = node {
                self.of_node.entry(node.clone()).or_default().insert(class);
            }
        }
        let declares = |class: &u16| !self.named[usize::from(*class)].is_empty();
        self.declaring = (0..=u16::MAX).take(self.named.len()).filter(declares).collect();
    }

    /// `before`: classes of the plan before, if they are of the same peers.
    fn list(&self, list: PeersId, peers: Arc<[PeerId]>, before: Option<&Self>) -> List {
        let known = before.and_then(|before| before.lists.get(&list));
        let classes = match known {
            Some(known) => Arc::clone(&known.classes),
            None => self.of_peers(&peers).into(),
        };
        List { peers, classes }
    }

    fn of_peers(&self, peers: &[PeerId]) -> Vec<u16> {
        let mut classes: Vec<u16> = peers.iter().map(|&peer| self.of_peer[peer as usize]).collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    }
}

const TOO_MANY: CompileError =
    CompileError::TooMany { what: Numbered::PeerClasses, limit: 1 << 16 };

impl Parts<'_> {
    /// The lists of peers that rules name, but for [`EVERYBODY`], each with its peers.
    fn lists(&mut self, before: Option<&PeerClasses>) -> Lists {
        let mut lists = Lists::new();
        for rule in DIRECTIONS.into_iter().flat_map(|direction| self.applying.rules(direction)) {
            if rule.peers != EVERYBODY && !lists.contains_key(&rule.peers) {
                let known = before.and_then(|before| before.lists.get(&rule.peers));
                let peers = match known {
                    Some(known) => Arc::clone(&known.peers),
                    None => self.terms.peers(rule.peers, self.census, self.population).into(),
                };
                lists.insert(rule.peers, peers);
            }
        }
        lists
    }

    fn world(&self) -> PeerId {
        let everything = IpNet::V4(Ipv4Net::default());
        self.population.peer_at(everything).expect("the default routes are always there")
    }

    /// By peer: the names that egress rules use for it, ascending.
    fn names(&self, lists: &Lists) -> Vec<Vec<NameId>> {
        let mut names = vec![Vec::new(); self.population.peers.len()];
        let everybody: Arc<[PeerId]> = (0..index(names.len())).collect();
        let mut known: BTreeSet<(PeersId, NameId)> = BTreeSet::new();
        for rule in self.applying.rules(Direction::Egress) {
            for &name in rule.ports.iter().flat_map(|ports| &ports.names) {
                if known.insert((rule.peers, name)) {
                    let peers = lists.get(&rule.peers).unwrap_or(&everybody);
                    peers.iter().for_each(|&peer| names[peer as usize].push(name));
                }
            }
        }
        for names in &mut names {
            names.sort_unstable();
            names.dedup();
        }
        names
    }

    /// The nodes that may reach workloads on them whatever policies say of these.
    fn exempt_nodes(&self) -> BTreeSet<&Arc<str>> {
        let options = self.census.options();
        let isolated = |endpoint: &&Endpoint| {
            !self.applying.to(Direction::Ingress, endpoint.subject).is_empty()
        };
        let endpoints = self.endpoints.iter().filter(isolated);
        let nodes = endpoints.filter_map(|e| e.node.as_ref().or(options.local_node.as_ref()));
        nodes.filter(|_| options.allow_local_node).collect()
    }
}

/// What `name` means at an end that declares `ports`; `None`: nothing.
pub(super) fn resolve(terms: &Terms, name: NameId, ports: &NamedPorts) -> Option<Resolved> {
    let (text, protocol) = terms.names.get(name);
    let ports = ports.resolve(text, *protocol);
    (!ports.is_empty()).then_some((name, ports))
}

/// What peers declare, and the node that they are if it is exempt.
type Part = (Vec<Resolved>, Option<Arc<str>>);

/// Peers that differ by more than the lists that name them.
struct Beginning {
    parts: Vec<Part>,
    /// By peer: an index into the parts.
    of_peer: Vec<u32>,
}

impl Beginning {
    fn new(parts: &Parts<'_>, lists: &Lists) -> Self {
        let names = parts.names(lists);
        let exempt = parts.exempt_nodes();
        let census = &*parts.census;
        let mut known: HashMap<Part, u32> = HashMap::new();
        let mut begun = Self { parts: Vec::new(), of_peer: Vec::with_capacity(names.len()) };
        for (who, names) in parts.population.peers.iter().zip(names) {
            let declared = who.ports().map(|ports| census.ports.get(ports));
            let named = declared.into_iter().flat_map(|ports| {
                names.iter().filter_map(|&name| resolve(parts.terms, name, ports))
            });
            let node = who.node().map(|node| &census.node_states.get(node).0);
            let node = node.filter(|node| exempt.contains(node)).cloned();
            let part = (named.collect(), node);
            let number = *known.entry(part).or_insert_with_key(|part| {
                begun.parts.push(part.clone());
                index(begun.parts.len() - 1)
            });
            begun.of_peer.push(number);
        }
        begun
    }
}

/// Peers in parts that become smaller.
struct Partition {
    of_peer: Vec<u32>,
    /// By part: where what leaves it goes, in the round in which it was last left.
    left: Vec<(u32, u32)>,
    round: u32,
}

/// Classes with their final numbers.
struct Final {
    of_peer: Vec<u16>,
    count: u32,
}

impl Partition {
    fn new(of_peer: &[u32]) -> Self {
        let parts = of_peer.iter().max().map_or(0, |most| most + 1);
        Self { of_peer: of_peer.to_vec(), left: vec![(0, 0); parts as usize], round: 0 }
    }

    /// Who is in `peers` leaves the part in which it was.
    fn split(&mut self, peers: &[PeerId]) {
        self.round += 1;
        for &peer in peers {
            let part = self.of_peer[peer as usize] as usize;
            if self.left[part].1 != self.round {
                self.left[part] = (index(self.left.len()), self.round);
                self.left.push((0, 0));
            }
            self.of_peer[peer as usize] = self.left[part].0;
        }
    }

    /// Numbers the parts from 1 on, in the order of their first peers.
    fn number(self) -> Option<Final> {
        let mut numbers = vec![0; self.left.len()];
        let mut count = 1;
        let of_peer = self.of_peer.iter().map(|&part| {
            let number = &mut numbers[part as usize];
            if *number == 0 {
                *number = u16::try_from(count).ok()?;
                count += 1;
            }
            Some(*number)
        });
        let of_peer = of_peer.collect::<Option<Vec<u16>>>()?;
        Some(Final { of_peer, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_classes_as_numbers() {
        let parts = |count: u32| Partition::new(&(0..count).collect::<Vec<_>>()).number();
        assert_eq!(parts(65_535).map(|all| all.count), Some(65_536));
        assert!(parts(65_536).is_none());
        assert_eq!(TOO_MANY.to_string(), "the policies need more than 65536 peer classes");
    }
}

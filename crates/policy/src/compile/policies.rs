//! The policies as they are now, each with what was found about it once: to whom it applies, which
//! rules it has, which networks it names.
//!
//! Invariant: a version stands for one content. What was made under it is worth the same for ever.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use flowgate_abi::policy::Direction;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    compile::{
        census::Station,
        interned::{Interned, index},
        kinds::{KindId, Kinds},
        rules::{DIRECTIONS, PlainRule, Terms},
    },
    model::{Mode, Peer, Peers, Policy, PolicyRef, Response, Rule, Subject, Tier},
};

/// A place among the sorted policies.
pub(super) type PolicyId = u32;
/// A number of a policy's name, for as long as the compiler lives.
pub(super) type PolicyName = u32;
/// A number that no other content of a policy has.
pub(super) type Version = u64;

/// What holds of all rules of a policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) tier: Tier,
    pub(super) mode: Mode,
    pub(super) response: Option<Response>,
    /// By direction.
    pub(super) isolates: [bool; 2],
}

impl Standing {
    fn of(policy: &Policy) -> Self {
        let isolates = DIRECTIONS.map(|direction| policy.isolates(direction));
        let Policy { tier, mode, response, .. } = *policy;
        Self { tier, mode, response, isolates }
    }
}

/// A policy, in numbers.
#[derive(Debug)]
pub(super) struct PlainPolicy {
    id: PolicyRef,
    pub(super) name: PolicyName,
    pub(super) version: Version,
    pub(super) standing: Standing,
    /// Its value for the log.
    pub(super) log: Option<Arc<str>>,
    /// By direction; `None`: it says nothing about it.
    rules: [Option<Vec<PlainRule>>; 2],
    /// The networks that it names, sorted.
    networks: Vec<IpNet>,
}

/// A policy, and what is known about it.
#[derive(Clone, Debug)]
struct Entry {
    policy: Policy,
    name: PolicyName,
    version: Version,
    /// The kinds of workloads to which it applies, ascending, as far as it was looked at.
    subjects: Vec<KindId>,
    /// The first kind that wasn't looked at.
    since: KindId,
    /// Made once it applies to somebody.
    plain: Option<Arc<PlainPolicy>>,
}

/// The policies, sorted by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    entries: BTreeMap<PolicyRef, Entry>,
    versions: Version,
}

impl Policies {
    /// Adds a policy, or puts it in the place of the one of that name. `false`: it is the same.
    pub(super) fn set(&mut self, policy: Policy, names: &mut Interned<PolicyRef>) -> bool {
        if self.entries.get(&policy.id).is_some_and(|known| known.policy == policy) {
            return false;
        }
        self.versions += 1;
        let entry = Entry {
            name: names.intern(&policy.id),
            version: self.versions,
            subjects: Vec::new(),
            since: 0,
            plain: None,
            policy,
        };
        self.entries.insert(entry.policy.id.clone(), entry);
        true
    }

    pub(super) fn remove(&mut self, name: &PolicyRef) -> bool {
        self.entries.remove(name).is_some()
    }

    pub(super) fn contains(&self, name: &PolicyRef) -> bool {
        self.entries.contains_key(name)
    }

    /// All policies, sorted by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.entries.values().map(|entry| &entry.policy)
    }

    /// Those that apply to endpoints of some kind that is there, or to nodes, sorted by name.
    pub(super) fn apply(
        &mut self,
        subjects: &mut Kinds,
        (there, nodes): (&[bool], &[Station]),
        terms: &mut Terms,
    ) -> Applying {
        let mut applying = Applying {
            policies: Vec::new(),
            to_kinds: DIRECTIONS.map(|_| vec![Vec::new(); there.len()]),
            to_nodes: DIRECTIONS.map(|_| vec![Vec::new(); nodes.len()]),
            selected: vec![false; nodes.len()],
        };
        for entry in self.entries.values_mut() {
            let to = entry.applies_to(subjects, there, nodes);
            if !to.is_empty() {
                applying.add(entry.plain(terms), &to);
            }
        }
        applying
    }
}

impl Entry {
    fn applies_to(
        &mut self,
        subjects: &mut Kinds,
        there: &[bool],
        nodes: &[Station],
    ) -> Vec<SubjectId> {
        if let Subject::Nodes(selector) = &self.policy.subject {
            let selected = (0..).zip(nodes).filter(|(_, node)| selector.matches(&node.labels));
            return selected.map(|(number, _)| SubjectId::Node(number)).collect();
        }
        self.look_at(subjects);
        let kinds = self.subjects.iter().copied().filter(|&kind| there[kind as usize]);
        kinds.map(SubjectId::Kind).collect()
    }

    fn look_at(&mut self, subjects: &mut Kinds) {
        let Subject::Workloads(selector) = &self.policy.subject else { return };
        if self.since < subjects.len() {
            subjects.select(selector, self.since, &mut self.subjects);
            self.since = subjects.len();
        }
    }

    fn plain(&mut self, terms: &mut Terms) -> Arc<PlainPolicy> {
        let (policy, name, version) = (&self.policy, self.name, self.version);
        let plain = self.plain.get_or_insert_with(|| {
            Arc::new(PlainPolicy {
                id: policy.id.clone(),
                name,
                version,
                standing: Standing::of(policy),
                log: policy.log.clone(),
                rules: DIRECTIONS.map(|direction| Some(plain(policy.rules(direction)?, terms))),
                networks: networks_of(policy),
            })
        });
        Arc::clone(plain)
    }
}

fn plain(rules: &[Rule], terms: &mut Terms) -> Vec<PlainRule> {
    (0..).zip(rules).filter_map(|(place, rule)| terms.rule(place, rule)).collect()
}

impl PlainPolicy {
    /// The rules of a direction; none if it says nothing about it.
    pub(super) fn rules(&self, direction: Direction) -> &[PlainRule] {
        self.rules[direction as usize].as_deref().unwrap_or_default()
    }
}

/// What makes the same policies apply to two endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubjectId {
    /// Workloads of that kind.
    Kind(KindId),
    /// A node, by its place among those that may be endpoints.
    Node(u32),
}

/// The policies that apply to somebody.
#[derive(Clone, Debug)]
pub(super) struct Applying {
    /// Sorted by name.
    pub(super) policies: Vec<Arc<PlainPolicy>>,
    /// By direction and kind of workload: those that apply, ascending.
    to_kinds: [Vec<Vec<PolicyId>>; 2],
    /// By direction and node: those that apply, ascending.
    to_nodes: [Vec<Vec<PolicyId>>; 2],
    /// By node: some policy selects it.
    pub(super) selected: Vec<bool>,
}

impl Applying {
    fn add(&mut self, policy: Arc<PlainPolicy>, to: &[SubjectId]) {
        let id = index(self.policies.len());
        for &subject in to {
            if let SubjectId::Node(node) = subject {
                self.selected[node as usize] = true;
            }
            for direction in DIRECTIONS {
                if policy.rules[direction as usize].is_some() {
                    self.list(direction, subject).push(id);
                }
            }
        }
        self.policies.push(policy);
    }

    fn list(&mut self, direction: Direction, subject: SubjectId) -> &mut Vec<PolicyId> {
        match subject {
            SubjectId::Kind(kind) => &mut self.to_kinds[direction as usize][kind as usize],
            SubjectId::Node(node) => &mut self.to_nodes[direction as usize][node as usize],
        }
    }

    /// Those that apply to a subject and say something about a direction, ascending.
    pub(super) fn to(&self, direction: Direction, subject: SubjectId) -> &[PolicyId] {
        match subject {
            SubjectId::Kind(kind) => &self.to_kinds[direction as usize][kind as usize],
            SubjectId::Node(node) => &self.to_nodes[direction as usize][node as usize],
        }
    }

    /// By policy: the number of its name.
    pub(super) fn names(&self) -> Vec<PolicyName> {
        self.policies.iter().map(|policy| policy.name).collect()
    }

    /// By name: the values for the log.
    pub(super) fn logs(&self) -> HashMap<PolicyName, Arc<str>> {
        let logged =
            self.policies.iter().filter_map(|policy| Some((policy.name, policy.log.clone()?)));
        logged.collect()
    }

    /// The networks that each of them names; those that name none are left out.
    pub(super) fn networks(&self) -> Vec<(PolicyRef, Vec<IpNet>)> {
        let naming = self.policies.iter().filter(|policy| !policy.networks.is_empty());
        naming.map(|policy| (policy.id.clone(), policy.networks.clone())).collect()
    }

    /// All rules of a direction.
    pub(super) fn rules(&self, direction: Direction) -> impl Iterator<Item = &PlainRule> {
        self.policies.iter().flat_map(move |policy| policy.rules(direction))
    }
}

/// Those networks and the default routes.
pub(super) fn with_default_routes(named: &[(PolicyRef, Vec<IpNet>)]) -> BTreeSet<IpNet> {
    let routes = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    named.iter().flat_map(|(_, networks)| networks).copied().chain(routes).collect()
}

fn networks_of(policy: &Policy) -> Vec<IpNet> {
    let rules = [&policy.ingress, &policy.egress].into_iter().flatten().flatten();
    let networks: BTreeSet<IpNet> = rules.flat_map(networks_of_rule).collect();
    networks.into_iter().collect()
}

fn networks_of_rule(rule: &Rule) -> impl Iterator<Item = IpNet> + '_ {
    let peers = match &rule.peers {
        Peers::Any => [].as_slice(),
        Peers::OneOf(peers) => peers,
    };
    peers.iter().flat_map(|peer| match peer {
        Peer::Cidr { cidr, except } => [cidr].into_iter().chain(except).map(IpNet::trunc).collect(),
        _ => Vec::new(),
    })
}

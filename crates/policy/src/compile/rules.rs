//! The rules that can decide about anything: which peers and ports they name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flowgate_abi::policy::Direction;

use crate::{
    compile::{
        input::Input,
        kinds::index,
        peers::{PeerId, Population},
        ports::{PortName, PortSet},
        subjects::{DIRECTIONS, Subjects},
    },
    model::{Mode, Peers, Policy, Response, Rule, RuleAction, Tier},
};

/// A number of a set of peers.
pub(super) type PeerSetId = u32;
/// An index into the sorted port names.
pub(super) type NameId = u32;

/// The set that holds every peer.
pub(super) const EVERYBODY: PeerSetId = 0;

/// The rules of the policies that apply to somebody.
pub(super) struct Rules {
    pub(super) subjects: Subjects,
    /// By policy: where it stands, and what it does.
    pub(super) standing: Vec<Standing>,
    /// By direction and policy.
    pub(super) of_policy: [Vec<Vec<PlainRule>>; 2],
    /// The distinct sets of peers, each ascending.
    pub(super) peer_sets: Vec<Vec<PeerId>>,
    /// The port names that rules use, sorted.
    pub(super) names: Vec<PortName>,
}

/// What holds of all rules of a policy.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    pub(super) tier: Tier,
    pub(super) mode: Mode,
    pub(super) response: Option<Response>,
    /// By direction.
    pub(super) isolates: [bool; 2],
}

/// A rule with its peers found.
pub(super) struct PlainRule {
    /// Its place in its policy.
    pub(super) place: u32,
    pub(super) action: RuleAction,
    pub(super) peers: PeerSetId,
    /// `None`: every port and protocol.
    pub(super) ports: Option<RulePorts>,
}

/// The ports that a rule names.
pub(super) struct RulePorts {
    pub(super) numbers: PortSet,
    pub(super) names: Vec<NameId>,
}

impl Rules {
    pub(super) fn new(input: &Input<'_>, subjects: Subjects, population: &Population<'_>) -> Self {
        let names = names(input);
        let mut builder = Builder { population, names: &names, sets: PeerSets::new(population) };
        let of_policy = DIRECTIONS.map(|direction| {
            let policies = input.policies.iter().zip(&subjects.effective[direction as usize]);
            policies.map(|(policy, on)| builder.rules(policy, direction, *on)).collect()
        });
        let peer_sets = builder.sets.sets;
        let standing = input.policies.iter().map(|policy| Standing::of(policy)).collect();
        Self { subjects, standing, of_policy, peer_sets, names }
    }

    /// The sets of peers that egress rules meet with port names, and those names.
    pub(super) fn named_uses(&self) -> BTreeMap<PeerSetId, BTreeSet<NameId>> {
        let mut uses: BTreeMap<PeerSetId, BTreeSet<NameId>> = BTreeMap::new();
        for rule in self.of_policy[Direction::Egress as usize].iter().flatten() {
            let names = rule.ports.iter().flat_map(|ports| &ports.names);
            for &name in names {
                uses.entry(rule.peers).or_default().insert(name);
            }
        }
        uses
    }

    /// The port names that the rules of a direction use.
    pub(super) fn names_used(&self, direction: Direction) -> BTreeSet<NameId> {
        let rules = self.of_policy[direction as usize].iter().flatten();
        rules.filter_map(|rule| Some(&rule.ports.as_ref()?.names)).flatten().copied().collect()
    }

    /// The sets of ports that rules name by number.
    pub(super) fn port_sets(&self) -> impl Iterator<Item = &PortSet> {
        let rules = self.of_policy.iter().flatten().flatten();
        rules.filter_map(|rule| Some(&rule.ports.as_ref()?.numbers)).filter(|set| !set.is_empty())
    }
}

impl Standing {
    fn of(policy: &Policy) -> Self {
        let isolates = DIRECTIONS.map(|direction| policy.isolates(direction));
        Self { tier: policy.tier, mode: policy.mode, response: policy.response, isolates }
    }
}

fn names(input: &Input<'_>) -> Vec<PortName> {
    let directions = input.policies.iter().flat_map(|policy| [&policy.ingress, &policy.egress]);
    let rules = directions.flatten().flatten();
    let names: BTreeSet<PortName> =
        rules.filter_map(|rule| Some(PortSet::of(&rule.ports)?.1)).flatten().collect();
    names.into_iter().collect()
}

struct Builder<'a, 'p> {
    population: &'a Population<'p>,
    names: &'a [PortName],
    sets: PeerSets<'a>,
}

impl<'a> Builder<'a, '_> {
    fn rules(&mut self, policy: &'a Policy, direction: Direction, on: bool) -> Vec<PlainRule> {
        let rules = policy.rules(direction).filter(|_| on).into_iter().flatten();
        (0..).zip(rules).filter_map(|(place, rule)| self.rule(place, rule)).collect()
    }

    /// `None`: it matches nothing.
    fn rule(&mut self, place: u32, rule: &'a Rule) -> Option<PlainRule> {
        let ports = match PortSet::of(&rule.ports) {
            None => None,
            Some((numbers, names)) if numbers.is_empty() && names.is_empty() => return None,
            Some((numbers, names)) => {
                let find = |name: &PortName| self.names.binary_search(name).ok().map(index);
                Some(RulePorts { numbers, names: names.iter().filter_map(find).collect() })
            }
        };
        let peers = self.sets.find(&rule.peers, self.population)?;
        Some(PlainRule { place, action: rule.action, peers, ports })
    }
}

/// The distinct sets of peers, and which list of a rule gave which.
struct PeerSets<'a> {
    sets: Vec<Vec<PeerId>>,
    numbers: HashMap<Vec<PeerId>, PeerSetId>,
    known: HashMap<&'a Peers, Option<PeerSetId>>,
}

impl<'a> PeerSets<'a> {
    fn new(population: &Population<'_>) -> Self {
        let mut sets = Self { sets: Vec::new(), numbers: HashMap::new(), known: HashMap::new() };
        sets.intern((0..index(population.peers.len())).collect());
        sets
    }

    /// `None`: nobody.
    fn find(&mut self, peers: &'a Peers, population: &Population<'_>) -> Option<PeerSetId> {
        let Peers::OneOf(items) = peers else { return Some(EVERYBODY) };
        if let Some(&known) = self.known.get(peers) {
            return known;
        }
        let mut matched: Vec<PeerId> =
            items.iter().flat_map(|item| population.matched(item)).collect();
        matched.sort_unstable();
        matched.dedup();
        let found = (!matched.is_empty()).then(|| self.intern(matched));
        self.known.insert(peers, found);
        found
    }

    fn intern(&mut self, set: Vec<PeerId>) -> PeerSetId {
        if let Some(&number) = self.numbers.get(&set) {
            return number;
        }
        let number = index(self.sets.len());
        self.sets.push(set.clone());
        self.numbers.insert(set, number);
        number
    }
}

//! Which policies apply to which endpoints. What applies to none takes no further part.

use std::collections::{BTreeSet, HashMap};

use flowgate_abi::policy::Direction;
use flowgate_identity::Ipcache;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    compile::{
        input::Input,
        kinds::{Kinds, index},
    },
    model::{Peer, Peers, PolicyRef, Rule},
};

/// An index into the sorted policies.
pub(super) type PolicyId = u32;
/// Both directions, in the order of their numbers.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// Which policies apply to which endpoints.
pub(super) struct Subjects {
    /// By direction and kind: the policies that apply to its endpoints, ascending.
    pub(super) applying: [Vec<Vec<PolicyId>>; 2],
    /// By direction and policy: it applies to somebody.
    pub(super) effective: [Vec<bool>; 2],
}

impl Subjects {
    pub(super) fn new(input: &Input<'_>, kinds: &Kinds) -> Self {
        let mut subjects = Self {
            applying: DIRECTIONS.map(|_| vec![Vec::new(); kinds.len()]),
            effective: DIRECTIONS.map(|_| vec![false; input.policies.len()]),
        };
        let mut known = HashMap::new();
        for (number, policy) in input.policies.iter().enumerate() {
            let kinds = known
                .entry(&policy.subject)
                .or_insert_with(|| kinds.select_subjects(&policy.subject));
            for direction in DIRECTIONS.into_iter().filter(|d| policy.rules(*d).is_some()) {
                for &kind in kinds.iter() {
                    subjects.applying[direction as usize][kind as usize].push(index(number));
                    subjects.effective[direction as usize][number] = true;
                }
            }
        }
        subjects
    }

    /// The networks that effective policies name, and the default routes.
    pub(super) fn networks(&self, input: &Input<'_>) -> Ipcache<()> {
        let routes = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())].into_iter();
        let named = self.networks_by_policy(input).into_iter().flat_map(|(_, networks)| networks);
        routes.chain(named).map(|network| (network, ())).collect()
    }

    /// The networks that each policy names where it is effective, sorted.
    pub(super) fn networks_by_policy(&self, input: &Input<'_>) -> Vec<(PolicyRef, Vec<IpNet>)> {
        let policies = input.policies.iter().enumerate();
        let named = policies.map(|(number, policy)| {
            let effective = |d: &Direction| self.effective[*d as usize][number];
            let rules = DIRECTIONS.into_iter().filter(effective).filter_map(|d| policy.rules(d));
            let networks: BTreeSet<IpNet> = rules.flatten().flat_map(networks_of_rule).collect();
            (policy.id.clone(), networks.into_iter().collect::<Vec<_>>())
        });
        named.filter(|(_, networks)| !networks.is_empty()).collect()
    }
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

//! Cases (an inventory and policies) and flows, from a seed or from given choices.

mod addresses;
mod aimed;
mod choices;
mod flows;
mod inventory;
mod policies;

use flowgate_policy::{
    inventory::Inventory,
    model::Policy,
    options::{EndpointScope, Options},
    outcome::Flow,
};

use self::choices::Choices;

/// Everything that decides about flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Two to four namespaces, one to three nodes, three to twelve workloads.
    pub inventory: Inventory,
    /// One to ten policies.
    pub policies: Vec<Policy>,
}

/// Makes cases and flows.
#[derive(Clone, Debug)]
pub struct Generator {
    choices: Choices,
}

impl Generator {
    /// A number below `bound`, which isn't 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.choices.below(usize::try_from(bound).unwrap_or(usize::MAX)) as u64
    }

    /// A generator whose every choice follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { choices: Choices::seeded(seed) }
    }

    /// A generator that makes these choices, and the first of all possibilities when they end.
    #[must_use]
    pub fn replay(choices: Vec<u32>) -> Self {
        Self { choices: Choices::replayed(choices) }
    }

    /// The next case.
    pub fn case(&mut self) -> Case {
        let inventory = inventory::inventory(&mut self.choices);
        let policies = policies::policies(&mut self.choices, &inventory);
        Case { inventory, policies }
    }

    /// Options for a case: its first node local or none, whose endpoints are all or alone, node
    /// traffic free or not; tables dense, narrow or scattered.
    pub fn options(&mut self, case: &Case) -> Options {
        let node = case.inventory.nodes.first().map(|node| node.name.clone());
        let local_node = node.filter(|_| self.choices.percent(50));
        let alone = local_node.is_some() && self.choices.percent(40);
        let Options { dense_cells, narrow_cells, .. } = Options::default();
        let (dense_cells, narrow_cells) = match case.policies.len() % 4 {
            0 => (0, narrow_cells),
            2 => (0, 0),
            _ => (dense_cells, narrow_cells),
        };
        Options {
            local_node,
            endpoints: if alone { EndpointScope::LocalNode } else { EndpointScope::All },
            allow_local_node: !self.choices.percent(25),
            dense_cells,
            narrow_cells,
            ..Options::default()
        }
    }

    /// The next flow of a case: between two different addresses of one family.
    pub fn flow(&mut self, case: &Case) -> Flow {
        flows::flow(&mut self.choices, case)
    }

    /// The next flow of a case at one of its rules: what the rule names, or what is just beside. Mostly
    /// at rules that deny, if there are any.
    pub fn flow_at_a_rule(&mut self, case: &Case) -> Flow {
        aimed::flow(&mut self.choices, case)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_cases() {
        let (mut one, mut other) = (Generator::new(3), Generator::new(3));
        for _ in 0..20 {
            let case = one.case();
            assert_eq!(case, other.case());
            assert_eq!(one.flow(&case), other.flow(&case));
        }
        assert_ne!(Generator::new(4).case(), Generator::new(5).case());
    }

    #[test]
    fn no_choices_give_the_smallest_case() {
        let case = Generator::replay(Vec::new()).case();
        assert_eq!((case.inventory.workloads.len(), case.policies.len()), (3, 1));
    }

    #[test]
    fn flows_stay_in_the_documented_ranges() {
        let mut generator = Generator::new(1);
        for _ in 0..50 {
            let case = generator.case();
            for flow in (0..100).map(|_| generator.flow(&case)).collect::<BTreeSet<_>>() {
                assert!(addresses::is_documented(flow.source), "{flow}");
                assert!(addresses::is_documented(flow.destination), "{flow}");
                assert_ne!(flow.source, flow.destination);
                assert_eq!(flow.source.is_ipv4(), flow.destination.is_ipv4(), "{flow}");
            }
            let aimed = (0..100).map(|_| generator.flow_at_a_rule(&case));
            for flow in aimed.collect::<BTreeSet<_>>() {
                assert!(addresses::is_documented(flow.source), "{flow}");
                assert!(addresses::is_documented(flow.destination), "{flow}");
                assert_eq!(flow.source.is_ipv4(), flow.destination.is_ipv4(), "{flow}");
            }
        }
    }
}

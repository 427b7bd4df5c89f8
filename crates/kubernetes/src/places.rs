//! Where policies and their rules are.
//!
//! Rules are found by shape: `spec.ingress[i]` and `spec.egress[i]`. Invariant: a rule's location is
//! told only if the object lists as many rules as were read from it; else its policy's is.

use flowgate_policy::model::{Direction, Policy};

use crate::{
    Location,
    object::value,
    tree::{Node, Value, path_of_key},
};

/// Where the items of `spec.egress` and `spec.ingress` of an object are, by direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct RulePlaces([Vec<Location>; 2]);

impl RulePlaces {
    /// Those of the object that is at `at`.
    pub(crate) fn of(at: &Location, object: &Node) -> Self {
        Self(["egress", "ingress"].map(|list| items(at, object, list).unwrap_or_default()))
    }
}

fn items(at: &Location, object: &Node, list: &str) -> Option<Vec<Location>> {
    let Value::Sequence(items) = &value(value(object, "spec")?, list)?.value else { return None };
    let path = path_of_key(&path_of_key(&at.path, "spec"), list);
    let item = |(index, item): (usize, &std::rc::Rc<Node>)| Location {
        line: item.line,
        path: format!("{path}[{index}]"),
        ..at.clone()
    };
    Some(items.iter().enumerate().map(item).collect())
}

/// Where a policy and its rules are.
#[derive(Clone, Debug)]
pub(crate) struct PolicyPlaces {
    pub(crate) policy: Location,
    /// By direction; empty where it isn't known.
    rules: [Vec<Location>; 2],
}

impl PolicyPlaces {
    pub(crate) fn of(policy: &Policy, at: &Location, places: &RulePlaces) -> Self {
        let rules = [Direction::Egress, Direction::Ingress].map(|direction| {
            let found = &places.0[direction as usize];
            let read = policy.rules(direction).map_or(0, Vec::len);
            if found.len() == read { found.clone() } else { Vec::new() }
        });
        Self { policy: at.clone(), rules }
    }

    /// Where a rule is, or else the policy.
    pub(crate) fn rule(&self, direction: Direction, index: usize) -> &Location {
        self.rules[direction as usize].get(index).unwrap_or(&self.policy)
    }
}

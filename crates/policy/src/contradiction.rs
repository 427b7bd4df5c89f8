//! Policies at one place of the order that may contradict each other: no specification says which of
//! them counts.
//!
//! Sound rather than complete: of any two that can contradict each other it tells, and of some that
//! can't. It spares pairs that always do the same, and pairs whose subjects demand different values
//! of one label. Peers and ports aren't compared.

use std::collections::BTreeSet;

use flowgate_abi::policy::Direction;
use flowgate_identity::{Operator, Selector};

use crate::model::{
    Directions, NamespaceSelector, Policy, RuleAction, Subject, Tier, WorkloadSelector,
};

impl Policy {
    /// The directions in which the two may contradict each other, of one ordered tier and one
    /// priority as they are. Which one counts is then undefined; here it is the first by
    /// [`PolicyRef`](crate::model::PolicyRef).
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> Directions {
        let unordered = self.tier == Tier::Namespace || self.tier != other.tier;
        if unordered || self == other || disjoint(&self.subject, &other.subject) {
            return Directions::empty();
        }
        let directions = [Direction::Egress, Direction::Ingress].into_iter();
        let differing = directions.filter(|&direction| {
            let (ours, theirs) = (actions(self, direction), actions(other, direction));
            ours.iter().any(|action| theirs.iter().any(|other| other != action))
        });
        differing.map(Directions::of).fold(Directions::empty(), Directions::union)
    }
}

fn actions(policy: &Policy, direction: Direction) -> BTreeSet<RuleAction> {
    let rules = policy.rules(direction).into_iter().flatten();
    rules.map(|rule| rule.action).collect()
}

/// Nobody can be selected by both.
fn disjoint(one: &Subject, other: &Subject) -> bool {
    match (one, other) {
        (Subject::Workloads(one), Subject::Workloads(other)) => no_workload(one, other),
        (Subject::Nodes(one), Subject::Nodes(other)) => exclude_each_other(one, other),
        _ => true,
    }
}

fn no_workload(one: &WorkloadSelector, other: &WorkloadSelector) -> bool {
    let namespaces = match (&one.namespaces, &other.namespaces) {
        (NamespaceSelector::Named(one), NamespaceSelector::Named(other)) => one != other,
        (NamespaceSelector::Matching(one), NamespaceSelector::Matching(other)) => {
            exclude_each_other(one, other)
        }
        _ => false,
    };
    namespaces || exclude_each_other(&one.labels, &other.labels)
}

/// They demand different values of one label.
fn exclude_each_other(one: &Selector, other: &Selector) -> bool {
    let others = other.requirements();
    one.requirements().iter().any(|requirement| {
        let same_key = others.iter().filter(|other| other.key == requirement.key);
        same_key.into_iter().any(|other| match (&requirement.operator, &other.operator) {
            (Operator::In(one), Operator::In(other)) => one.is_disjoint(other),
            _ => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Peers, PolicyKind, PolicyRef, Ports, Rule};

    const PRIORITY: Tier = Tier::Admin { priority: 5 };

    fn everybody() -> WorkloadSelector {
        let namespaces = NamespaceSelector::Matching(Selector::everything());
        WorkloadSelector { namespaces, labels: Selector::everything() }
    }

    fn policy(name: &str, ingress: &[RuleAction]) -> Policy {
        let kind = PolicyKind::ClusterNetworkPolicy;
        let id = PolicyRef { kind, namespace: "".into(), name: name.into() };
        let rule = |&action| Rule { action, peers: Peers::Any, ports: Ports::Any };
        let ingress = Some(ingress.iter().map(rule).collect());
        Policy { tier: PRIORITY, ingress, ..Policy::new(id, everybody()) }
    }

    #[test]
    fn actions_that_differ_contradict() {
        use RuleAction::{Allow, Deny, Pass};
        let table: [(&[_], &[_], bool); 7] = [
            (&[Allow], &[Deny], true),
            (&[Pass], &[Deny], true),
            (&[Allow, Deny], &[Allow], true),
            (&[Allow, Deny], &[Allow, Deny], true),
            (&[Allow], &[Allow, Allow], false),
            (&[Deny], &[Deny], false),
            (&[Deny], &[], false),
        ];
        for (one, other, contradict) in table {
            let (first, second) = (policy("a", one), policy("b", other));
            let expected = if contradict { Directions::INGRESS } else { Directions::empty() };
            assert_eq!(first.contradicts(&second), expected, "{one:?} {other:?}");
            assert_eq!(second.contradicts(&first), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn only_at_one_place_of_the_order_and_in_one_direction() {
        let (allow, deny) = ([RuleAction::Allow], [RuleAction::Deny]);
        let one = policy("a", &allow);
        let other = |tier| Policy { tier, ..policy("b", &deny) };
        assert!(one.contradicts(&other(Tier::Admin { priority: 6 })).is_empty());
        assert!(one.contradicts(&other(Tier::Baseline { priority: 5 })).is_empty());
        let namespaced = Policy { tier: Tier::Namespace, ..one.clone() };
        assert!(namespaced.contradicts(&other(Tier::Namespace)).is_empty());
        let mut egress = other(PRIORITY);
        egress.egress = egress.ingress.take();
        assert!(one.contradicts(&egress).is_empty());
        egress.ingress.clone_from(&egress.egress);
        assert_eq!(one.contradicts(&egress), Directions::INGRESS);
    }

    #[test]
    fn nodes_are_no_workloads_and_differ_by_their_labels() {
        let on = |name, action, selector| {
            let subject = Subject::Nodes(selector);
            Policy { subject, ..policy(name, &[action]) }
        };
        let edge = || Selector::match_label("role", "edge");
        let allow = on("a", RuleAction::Allow, edge());
        assert!(!allow.contradicts(&on("b", RuleAction::Deny, edge())).is_empty());
        let core = Selector::match_label("role", "core");
        assert!(allow.contradicts(&on("b", RuleAction::Deny, core)).is_empty());
        assert!(allow.contradicts(&policy("b", &[RuleAction::Deny])).is_empty());
    }

    #[test]
    fn subjects_that_share_no_workload_do_not() {
        let of = |key: &str, value: &str| Selector::match_label(key, value);
        let with = |name, namespaces, labels| {
            let action = if name == "a" { RuleAction::Allow } else { RuleAction::Deny };
            let namespaces = NamespaceSelector::Matching(namespaces);
            let subject = WorkloadSelector { namespaces, labels }.into();
            Policy { subject, ..policy(name, &[action]) }
        };
        let all = Selector::everything;
        let web = with("a", all(), of("app", "web"));
        assert!(web.contradicts(&with("b", all(), of("app", "db"))).is_empty());
        assert!(!web.contradicts(&with("b", all(), of("app", "web"))).is_empty());
        assert!(!web.contradicts(&with("b", all(), of("tier", "db"))).is_empty());
        assert!(!web.contradicts(&with("b", of("app", "db"), all())).is_empty());
        let tenant = with("a", of("tenant", "x"), all());
        assert!(tenant.contradicts(&with("b", of("tenant", "y"), all())).is_empty());
    }
}

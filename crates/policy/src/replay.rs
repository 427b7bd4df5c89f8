//! Which recorded flows a plan would judge differently.
//!
//! A record knows what was said where somebody judged. An end of which nothing is recorded, since it
//! was no endpoint of that node or since the other end had denied already, isn't compared.
//!
//! Not here: reading records. Tested below.

use crate::{
    outcome::{Flow, Outcome, SideVerdict},
    plan::Plan,
};

/// A flow, and what was said about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The flow.
    pub flow: Flow,
    /// What the source said, if it judged.
    pub egress: Option<SideVerdict>,
    /// What the destination said, if it judged.
    pub ingress: Option<SideVerdict>,
}

/// What a plan says about a recorded flow, if an end that had judged says something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<'a> {
    /// The record.
    pub recorded: &'a Recorded,
    /// What the plan says.
    pub outcome: Outcome,
}

impl Recorded {
    /// No end that judged has denied it.
    #[must_use]
    pub fn allowed(&self) -> bool {
        [self.egress, self.ingress].into_iter().flatten().all(SideVerdict::allowed)
    }

    /// What `plan` says, if that is anything else at an end that had judged.
    #[must_use]
    pub fn changed(&self, plan: &Plan) -> Option<Changed<'_>> {
        let outcome = plan.decide(&self.flow);
        let differs = |then: Option<SideVerdict>, now| then.is_some() && then != now;
        let changed = differs(self.egress, outcome.egress.verdict())
            || differs(self.ingress, outcome.ingress.verdict());
        changed.then_some(Changed { recorded: self, outcome })
    }
}

impl Changed<'_> {
    /// It passes by the plan, as far as the ends are concerned that had judged.
    #[must_use]
    pub fn allowed(&self) -> bool {
        let egress = self.recorded.egress.is_none() || self.outcome.egress.allowed();
        egress && (self.recorded.ingress.is_none() || self.outcome.ingress.allowed())
    }
}

/// The recorded flows that `plan` judges differently, in their order.
pub fn replay<'a>(
    plan: &'a Plan,
    records: impl IntoIterator<Item = &'a Recorded> + 'a,
) -> impl Iterator<Item = Changed<'a>> {
    records.into_iter().filter_map(|recorded| recorded.changed(plan))
}

#[cfg(test)]
mod tests {
    use flowgate_identity::{Labels, LocalAllocator, Selector};

    use super::*;
    use crate::{
        compile::Compiler,
        inventory::{Inventory, Workload, WorkloadRef},
        model::{NamespaceSelector, Policy, PolicyKind, PolicyRef, WorkloadSelector},
        options::Options,
        outcome::FlowProtocol,
    };

    /// One pod, which is isolated for ingress.
    fn plan() -> Plan {
        let web = Workload {
            id: WorkloadRef { namespace: "a".into(), name: "web".into() },
            labels: Labels::new(),
            addresses: vec!["198.18.0.1".parse().unwrap()],
            ports: vec![],
            node: None,
            host_network: false,
        };
        let id =
            PolicyRef { kind: PolicyKind::NetworkPolicy, namespace: "a".into(), name: "p".into() };
        let namespaces = NamespaceSelector::Named("a".into());
        let subject = WorkloadSelector { namespaces, labels: Selector::everything() };
        let closed = Policy { ingress: Some(vec![]), ..Policy::new(id, subject) };
        let inventory = Inventory { workloads: vec![web], ..Inventory::default() };
        let mut compiler = Compiler::new(LocalAllocator::new());
        compiler.compile(&inventory, &[closed], &Options::default()).unwrap()
    }

    fn recorded(egress: Option<SideVerdict>, ingress: Option<SideVerdict>) -> Recorded {
        let (source, destination) = ("203.0.113.1".parse().unwrap(), "198.18.0.1".parse().unwrap());
        let flow = Flow { source, destination, protocol: FlowProtocol::Tcp(80) };
        Recorded { flow, egress, ingress }
    }

    #[test]
    fn what_was_said_before_is_no_change() {
        let same = recorded(None, Some(SideVerdict::DefaultDeny));
        assert_eq!(same.changed(&plan()), None);
        assert!(!same.allowed());
    }

    #[test]
    fn what_passed_and_would_not_is_a_change() {
        let (plan, passed) = (plan(), recorded(None, Some(SideVerdict::DefaultAllow)));
        let records = [passed];
        let changed: Vec<_> = replay(&plan, &records).collect();
        assert_eq!(changed.len(), 1);
        assert!(changed[0].recorded.allowed() && !changed[0].allowed());
    }

    #[test]
    fn an_end_of_which_nothing_is_recorded_is_not_compared() {
        assert_eq!(recorded(None, None).changed(&plan()), None);
        let gone = recorded(Some(SideVerdict::Allow), None);
        assert!(gone.changed(&plan()).unwrap().allowed(), "its source is no endpoint any more");
    }
}

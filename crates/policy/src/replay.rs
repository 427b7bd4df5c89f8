//! Which recorded flows a plan would judge differently.
//!
//! A record knows what was said where somebody judged. An end of which nothing is recorded, since it
//! was no endpoint of that node or since the other end had denied already, isn't compared.
//!
//! Not here: reading records. Tested below.

use crate::{
    fate::Fate,
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
    /// It was denied and passed all the same, since it was established and the plan kept it
    /// ([`Kind::Kept`](flowgate_abi::event::Kind::Kept)).
    pub kept: bool,
}

/// What a plan says about a recorded flow, if an end that had judged says something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<'a> {
    /// The record.
    pub recorded: &'a Recorded,
    /// What the plan says.
    pub outcome: Outcome,
    /// What becomes of it if it is established, as far as the ends are concerned that had judged.
    pub fate: Fate,
}

impl Recorded {
    /// No end that judged has denied it.
    #[must_use]
    pub fn allowed(&self) -> bool {
        [self.egress, self.ingress].into_iter().flatten().all(SideVerdict::allowed)
    }

    /// What `plan` says, if that is anything else at an end that had judged, or ends what was kept.
    #[must_use]
    pub fn changed(&self, plan: &Plan) -> Option<Changed<'_>> {
        let outcome = plan.decide(&self.flow);
        let differs = |then: Option<SideVerdict>, now| then.is_some() && then != now;
        let differs = differs(self.egress, outcome.egress.verdict())
            || differs(self.ingress, outcome.ingress.verdict());
        let fate = plan.fate(self.allowed_by(&outcome));
        let changed = differs || (self.kept && fate == Fate::Ends);
        changed.then_some(Changed { recorded: self, outcome, fate })
    }

    /// The ends that had judged allow it.
    fn allowed_by(&self, outcome: &Outcome) -> bool {
        let egress = self.egress.is_none() || outcome.egress.allowed();
        egress && (self.ingress.is_none() || outcome.ingress.allowed())
    }
}

impl Changed<'_> {
    /// It passes by the plan, as far as the ends are concerned that had judged.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.recorded.allowed_by(&self.outcome)
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
        plan_with(Options::default())
    }

    fn plan_with(options: Options) -> Plan {
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
        compiler.compile(&inventory, &[closed], &options).unwrap()
    }

    fn recorded(egress: Option<SideVerdict>, ingress: Option<SideVerdict>) -> Recorded {
        let (source, destination) = ("203.0.113.1".parse().unwrap(), "198.18.0.1".parse().unwrap());
        let flow = Flow { source, destination, protocol: FlowProtocol::Tcp(80) };
        Recorded { flow, egress, ingress, kept: false }
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
    fn what_is_established_ends_unless_the_plan_keeps_it() {
        let keeping = plan_with(Options { keep_established: true, ..Options::default() });
        let passed = recorded(None, Some(SideVerdict::DefaultAllow));
        assert_eq!(passed.changed(&plan()).unwrap().fate, Fate::Ends);
        assert_eq!(passed.changed(&keeping).unwrap().fate, Fate::Kept);
    }

    #[test]
    fn what_was_kept_and_would_end_is_a_change() {
        let keeping = plan_with(Options { keep_established: true, ..Options::default() });
        let denied = recorded(None, Some(SideVerdict::DefaultDeny));
        let kept = Recorded { kept: true, ..denied };
        assert_eq!(kept.changed(&keeping), None);
        assert_eq!(kept.changed(&plan()).unwrap().fate, Fate::Ends);
        assert_eq!(denied.changed(&plan()), None, "it wasn't kept");
    }

    #[test]
    fn an_end_of_which_nothing_is_recorded_is_not_compared() {
        assert_eq!(recorded(None, None).changed(&plan()), None);
        let gone = recorded(Some(SideVerdict::Allow), None);
        assert!(gone.changed(&plan()).unwrap().allowed(), "its source is no endpoint any more");
    }
}

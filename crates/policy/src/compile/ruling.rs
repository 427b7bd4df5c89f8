//! What the rules that match a flow come to at one end: the order of evaluation.

use crate::{
    compile::{subjects::PolicyId, tables::ClassSetId},
    model::{Mode, RuleAction, Tier},
    outcome::SideVerdict,
};

/// A rule that matches a class of peers on a set of port classes. In the order of the fields rules
/// are evaluated, where there is an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Match {
    pub(super) tier: Tier,
    pub(super) policy: PolicyId,
    /// Its place in the policy; 0 in the namespace tier, where order makes no difference.
    pub(super) rule: u32,
    pub(super) action: RuleAction,
    pub(super) mode: Mode,
    pub(super) ports: ClassSetId,
}

/// A policy that isolates an endpoint.
pub(super) type Isolating = (PolicyId, Mode);

/// What is decided, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ruling {
    pub(super) verdict: SideVerdict,
    /// Ascending.
    pub(super) policies: Vec<PolicyId>,
    /// What staged policies would decide instead.
    pub(super) staged: Option<SideVerdict>,
}

/// What `matches`, which are sorted, come to at an endpoint that `isolating` isolate.
pub(super) fn rule(isolating: &[Isolating], matches: &[Match]) -> Ruling {
    let (verdict, policies) = effective(isolating, matches, |mode| mode != Mode::Staged);
    let modes = || isolating.iter().map(|(_, mode)| mode).chain(matches.iter().map(|m| &m.mode));
    let staged = modes().any(|mode| *mode == Mode::Staged);
    let staged = staged.then(|| effective(isolating, matches, |_| true).0);
    Ruling { verdict, policies, staged: staged.filter(|staged| *staged != verdict) }
}

/// The verdict in which only what would be denied without audited policies is denied.
fn effective(
    isolating: &[Isolating],
    matches: &[Match],
    takes: impl Fn(Mode) -> bool,
) -> (SideVerdict, Vec<PolicyId>) {
    let (verdict, policies) = evaluate(isolating, matches, &takes);
    if verdict.allowed() {
        return (verdict, policies);
    }
    let enforced = |mode: Mode| takes(mode) && mode != Mode::Audit;
    match evaluate(isolating, matches, enforced).0.allowed() {
        true => (SideVerdict::Audit, policies),
        false => (verdict, policies),
    }
}

fn evaluate(
    isolating: &[Isolating],
    matches: &[Match],
    takes: impl Fn(Mode) -> bool,
) -> (SideVerdict, Vec<PolicyId>) {
    let taken = || matches.iter().filter(|one| takes(one.mode));
    let admin = taken().find(|one| matches!(one.tier, Tier::Admin { .. }));
    if let Some(decided) = admin.and_then(first) {
        return decided;
    }
    for (action, verdict) in
        [(RuleAction::Deny, SideVerdict::Deny), (RuleAction::Allow, SideVerdict::Allow)]
    {
        let own = taken().filter(|one| one.tier == Tier::Namespace && one.action == action);
        let policies = distinct(own.map(|one| one.policy));
        if !policies.is_empty() {
            return (verdict, policies);
        }
    }
    let isolating = distinct(isolating.iter().filter(|(_, mode)| takes(*mode)).map(|(id, _)| *id));
    if !isolating.is_empty() {
        return (SideVerdict::DefaultDeny, isolating);
    }
    let baseline = taken().find(|one| matches!(one.tier, Tier::Baseline { .. }));
    baseline.and_then(first).unwrap_or((SideVerdict::DefaultAllow, Vec::new()))
}

/// What the first rule of a tier that has an order decides, unless it passes on.
fn first(one: &Match) -> Option<(SideVerdict, Vec<PolicyId>)> {
    let verdict = match one.action {
        RuleAction::Allow => SideVerdict::Allow,
        RuleAction::Deny => SideVerdict::Deny,
        RuleAction::Pass => return None,
    };
    Some((verdict, vec![one.policy]))
}

fn distinct(policies: impl Iterator<Item = PolicyId>) -> Vec<PolicyId> {
    let mut policies: Vec<PolicyId> = policies.collect();
    policies.sort_unstable();
    policies.dedup();
    policies
}

//! What the rules that match a flow come to at one end: the order of evaluation.

use crate::{
    compile::{policies::PolicyId, rules::PortSetId},
    model::{Mode, Policy, Response, RuleAction, Tier},
    outcome::SideVerdict,
};

/// A rule that matches a class of peers on a set of ports. In the order of the fields rules
/// are evaluated, where there is an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Match {
    pub(super) tier: Tier,
    pub(super) policy: PolicyId,
    /// Its place in the policy; 0 in the namespace tier, where order makes no difference.
    pub(super) rule: u32,
    pub(super) action: RuleAction,
    pub(super) mode: Mode,
    pub(super) response: Option<Response>,
    /// `None`: every port and protocol.
    pub(super) ports: Option<PortSetId>,
}

/// A policy that isolates an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Isolating {
    pub(super) policy: PolicyId,
    pub(super) mode: Mode,
    pub(super) response: Option<Response>,
}

/// What is decided, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ruling {
    pub(super) verdict: SideVerdict,
    /// Ascending.
    pub(super) policies: Vec<PolicyId>,
    /// What the sender is told, if it is denied.
    pub(super) response: Response,
    /// What staged policies would decide instead.
    pub(super) staged: Option<SideVerdict>,
}

/// What `matches`, which are sorted, come to at an endpoint that `isolating` isolate.
pub(super) fn rule(isolating: &[Isolating], matches: &[Match]) -> Ruling {
    let now = effective(isolating, matches, |mode| mode != Mode::Staged);
    let modes = isolating.iter().map(|one| one.mode).chain(matches.iter().map(|one| one.mode));
    let staged = modes.into_iter().any(|mode| mode == Mode::Staged);
    let staged = staged.then(|| effective(isolating, matches, |_| true).verdict);
    Ruling { staged: staged.filter(|staged| *staged != now.verdict), ..now }
}

/// The verdict in which only what would be denied without audited policies is denied, and answered as
/// it would be without them.
fn effective(isolating: &[Isolating], matches: &[Match], takes: impl Fn(Mode) -> bool) -> Ruling {
    let all = evaluate(isolating, matches, &takes);
    if all.verdict.allowed() {
        return all;
    }
    let enforced = evaluate(isolating, matches, |mode| takes(mode) && mode != Mode::Audit);
    let verdict = if enforced.verdict.allowed() { SideVerdict::Audit } else { all.verdict };
    Ruling { verdict, response: enforced.response, ..all }
}

fn evaluate(isolating: &[Isolating], matches: &[Match], takes: impl Fn(Mode) -> bool) -> Ruling {
    let taken = || matches.iter().filter(|one| takes(one.mode));
    let admin = taken().find(|one| matches!(one.tier, Tier::Admin { .. }));
    if let Some(decided) = admin.and_then(first) {
        return decided;
    }
    for (action, verdict) in
        [(RuleAction::Deny, SideVerdict::Deny), (RuleAction::Allow, SideVerdict::Allow)]
    {
        let own = taken().filter(|one| one.tier == Tier::Namespace && one.action == action);
        let own: Vec<_> = own.map(|one| (one.policy, one.response)).collect();
        if !own.is_empty() {
            return Ruling::by(verdict, own);
        }
    }
    let isolating = isolating.iter().filter(|one| takes(one.mode));
    let isolating: Vec<_> = isolating.map(|one| (one.policy, one.response)).collect();
    if !isolating.is_empty() {
        return Ruling::by(SideVerdict::DefaultDeny, isolating);
    }
    let baseline = taken().find(|one| matches!(one.tier, Tier::Baseline { .. }));
    baseline.and_then(first).unwrap_or_else(|| Ruling::by(SideVerdict::DefaultAllow, Vec::new()))
}

/// What the first rule of a tier that has an order decides, unless it passes on.
fn first(one: &Match) -> Option<Ruling> {
    let verdict = match one.action {
        RuleAction::Allow => SideVerdict::Allow,
        RuleAction::Deny => SideVerdict::Deny,
        RuleAction::Pass => return None,
    };
    Some(Ruling::by(verdict, vec![(one.policy, one.response)]))
}

impl Ruling {
    /// What these policies say, each with what it would tell whom it denies.
    pub(super) fn by(verdict: SideVerdict, mut said: Vec<(PolicyId, Option<Response>)>) -> Self {
        said.sort_unstable();
        said.dedup();
        let response = match verdict.allowed() {
            true => Response::Silence,
            false => Policy::told_by(said.iter().map(|(_, response)| *response)),
        };
        let policies = said.into_iter().map(|(policy, _)| policy).collect();
        Self { verdict, policies, response, staged: None }
    }
}

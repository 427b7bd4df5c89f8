//! Why a flow is judged as it is: the rules that match it, tier by tier, and what each tier says.
//!
//! Like [`crate::oracle`], whose matching it shares, it goes through every policy for every
//! question. What the matching rules come to it works out itself.
//!
//! Not here: where in the manifests a rule stands (`flowgate-kubernetes`), and packets.
//! Invariant: an account ends with the verdict, and the policies, that oracle and plan give.
//! Tested against both over generated cases (`tests/account.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use flowgate_abi::policy::Direction;

use crate::{
    inventory::{Inventory, WorkloadRef},
    model::{Mode, Policy, PolicyRef, Response, Rule, RuleAction, Tier},
    options::Options,
    oracle::{End, Judge, World},
    outcome::{Flow, Outcome, Side, SideVerdict},
};

/// Names one rule of a policy; displays as `kind/namespace/name ingress[0]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleRef {
    /// The policy.
    pub policy: PolicyRef,
    /// Which of its two lists of rules.
    pub direction: Direction,
    /// The place in that list, counted from 0.
    pub index: usize,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.direction {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        };
        write!(f, "{} {list}[{}]", self.policy, self.index)
    }
}

/// Why a flow is judged as it is, at both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The source's, if it is an endpoint.
    pub egress: Option<EndAccount>,
    /// The destination's, if it is an endpoint.
    pub ingress: Option<EndAccount>,
}

impl Account {
    /// What both ends come to.
    pub fn outcome(&self) -> Outcome {
        let side =
            |end: &Option<EndAccount>| end.as_ref().map_or(Side::NotAnEndpoint, EndAccount::side);
        Outcome { egress: side(&self.egress), ingress: side(&self.ingress) }
    }
}

/// Why one end judges a flow as it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndAccount {
    /// The endpoint: a workload or a node.
    pub workload: WorkloadRef,
    /// The flow comes from the endpoint's own node, which may always reach it. No tier is asked
    /// then.
    pub from_own_node: bool,
    /// The tiers in the order of evaluation; each of them once.
    pub tiers: Vec<TierAccount>,
    /// What the end says.
    pub verdict: SideVerdict,
    /// The policies that say so: those whose rules decide, or, for a default denial, those that
    /// isolate the endpoint.
    pub policies: BTreeSet<PolicyRef>,
    /// What the sender is told if the end denies: what the policies say that deny without those on
    /// trial. Silence if it doesn't.
    pub response: Response,
    /// The values for the log that the policies name.
    pub log: BTreeSet<Arc<str>>,
    /// What it would say if all staged policies were enforced, if that is anything else.
    pub staged: Option<SideVerdict>,
    /// The staged and audited policies, each of which would change the verdict if it alone were
    /// enforced.
    pub trials: Vec<Trial>,
}

impl EndAccount {
    /// What the end says, in the terms of an outcome.
    #[must_use]
    pub fn side(&self) -> Side {
        Side::Verdict {
            verdict: self.verdict,
            policies: self.policies.clone(),
            staged: self.staged,
            response: self.response,
            log: self.log.clone(),
        }
    }
}

/// A tier, without the priorities in it. Displays as `admin`, `namespace` or `baseline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TierName {
    /// [`Tier::Admin`].
    Admin,
    /// [`Tier::Namespace`].
    Namespace,
    /// [`Tier::Baseline`].
    Baseline,
}

impl TierName {
    /// The tiers in the order of evaluation.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Namespace, Self::Baseline];
}

impl From<Tier> for TierName {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Admin { .. } => Self::Admin,
            Tier::Namespace => Self::Namespace,
            Tier::Baseline { .. } => Self::Baseline,
        }
    }
}

impl fmt::Display for TierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Admin => "admin",
            Self::Namespace => "namespace",
            Self::Baseline => "baseline",
        })
    }
}

/// What one tier says about a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierAccount {
    /// The tier.
    pub tier: TierName,
    /// The rules that match the flow, in the order of evaluation; in the namespace tier, which has
    /// no order, by name.
    pub candidates: Vec<Candidate>,
    /// The policies that isolate the endpoint, by name; in the namespace tier alone.
    pub isolating: Vec<Isolation>,
    /// What it comes to.
    pub conclusion: Conclusion,
}

/// A rule that matches a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The rule.
    pub rule: RuleRef,
    /// What it does with the flow.
    pub action: RuleAction,
    /// What its policy does to packets. Staged rules never decide.
    pub mode: Mode,
    /// It is the rule, or one of the rules, by which its tier decides or passes on.
    pub decides: bool,
}

/// A policy that isolates an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// The policy.
    pub policy: PolicyRef,
    /// What it does to packets. Staged policies isolate nobody yet.
    pub mode: Mode,
    /// Isolation is what decides, and this policy takes part.
    pub decides: bool,
}

/// What a tier comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// An earlier tier has decided.
    NotAsked,
    /// Nothing of it matches.
    Silent,
    /// A rule leaves the decision to the next tier.
    Passes,
    /// It decides, those in audit mode taken as enforced.
    Decides(SideVerdict),
}

/// A policy that isn't enforced, and what the end would say if it alone were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The policy.
    pub policy: PolicyRef,
    /// Its mode as it is.
    pub mode: Mode,
    /// What the end would say.
    pub verdict: SideVerdict,
}

/// Accounts for what becomes of a new flow.
///
/// If one address has two owners, the first workload, then the first node counts; the compiler
/// refuses such input.
#[must_use]
pub fn explain(
    inventory: &Inventory,
    policies: &[Policy],
    options: &Options,
    flow: &Flow,
) -> Account {
    let world = World { inventory, policies, options };
    let (source, destination) = (world.end(flow.source), world.end(flow.destination));
    let matches =
        |peer: &End<'_>, rule: &Rule| world.rule_matches(rule, peer, &destination, flow.protocol);
    let egress = world.sender(&source, &destination).map(|subject| {
        let found = Found::new(&world, subject, Direction::Egress, &|r| matches(&destination, r));
        found.account(subject)
    });
    let ingress = world.receiver(&destination).map(|subject| {
        let found = Found::new(&world, subject, Direction::Ingress, &|r| matches(&source, r));
        match found.applies && world.is_own_node(subject, &source) {
            true => from_own_node(subject),
            false => found.account(subject),
        }
    });
    Account { egress, ingress }
}

fn from_own_node(subject: Judge<'_>) -> EndAccount {
    let not_asked = |tier| TierAccount {
        tier,
        candidates: Vec::new(),
        isolating: Vec::new(),
        conclusion: Conclusion::NotAsked,
    };
    EndAccount {
        workload: subject.id(),
        from_own_node: true,
        tiers: TierName::ALL.map(not_asked).into(),
        verdict: SideVerdict::Allow,
        policies: BTreeSet::new(),
        response: Response::Silence,
        log: BTreeSet::new(),
        staged: None,
        trials: Vec::new(),
    }
}

/// What was found for one end: the rules that match, and who isolates it.
#[derive(Default)]
struct Found {
    /// Some policy speaks of the end.
    applies: bool,
    /// In the order of evaluation.
    rules: Vec<FoundRule>,
    isolating: Vec<(PolicyRef, Mode)>,
    /// What each policy would tell a sender, and its value for the log.
    says: BTreeMap<PolicyRef, (Option<Response>, Option<Arc<str>>)>,
}

struct FoundRule {
    tier: TierName,
    rule: RuleRef,
    action: RuleAction,
    mode: Mode,
}

/// The mode in which a policy counts.
type ModeOf<'a> = &'a dyn Fn(&PolicyRef, Mode) -> Mode;

/// Where the evaluation ends: the tier, what it says, and the places of the rules that say so. No
/// tier: nothing decides.
struct Ruling {
    tier: Option<TierName>,
    verdict: SideVerdict,
    rules: Vec<usize>,
    /// The places of the rules that pass on, one for each tier that does.
    passing: Vec<usize>,
}

impl Found {
    fn new(
        world: &World<'_>,
        subject: Judge<'_>,
        direction: Direction,
        matches: &dyn Fn(&Rule) -> bool,
    ) -> Self {
        let mut applying = world.applying(subject, direction);
        applying.sort_by(|a, b| (a.tier, &a.id).cmp(&(b.tier, &b.id)));
        let mut found = Self { applies: !applying.is_empty(), ..Self::default() };
        for policy in applying {
            found.add(policy, direction, matches);
        }
        found
    }

    fn add(&mut self, policy: &Policy, direction: Direction, matches: &dyn Fn(&Rule) -> bool) {
        self.says.insert(policy.id.clone(), (policy.response, policy.log.clone()));
        let rules = policy.rules(direction).into_iter().flatten().enumerate();
        self.rules.extend(rules.filter(|(_, rule)| matches(rule)).map(|(index, rule)| FoundRule {
            tier: policy.tier.into(),
            rule: RuleRef { policy: policy.id.clone(), direction, index },
            action: rule.action,
            mode: policy.mode,
        }));
        if policy.isolates(direction) {
            self.isolating.push((policy.id.clone(), policy.mode));
        }
    }

    fn account(&self, subject: Judge<'_>) -> EndAccount {
        let ruling = self.rule(&|_, mode| mode != Mode::Staged);
        let verdict = self.verdict(&|_, mode| mode);
        let staged =
            self.verdict(&|_, mode| if mode == Mode::Staged { Mode::Enforce } else { mode });
        let policies = self.deciding(&ruling);
        EndAccount {
            workload: subject.id(),
            from_own_node: false,
            tiers: TierName::ALL.map(|tier| self.tier(tier, &ruling)).into(),
            verdict,
            response: if verdict.allowed() { Response::Silence } else { self.response() },
            log: policies.iter().filter_map(|policy| self.says[policy].1.clone()).collect(),
            policies,
            staged: Some(staged).filter(|staged| *staged != verdict),
            trials: self.trials(verdict),
        }
    }

    /// The verdict in which only what would be denied without audited policies is denied.
    fn verdict(&self, mode_of: ModeOf<'_>) -> SideVerdict {
        let verdict = self.rule(&|policy, mode| mode_of(policy, mode) != Mode::Staged).verdict;
        let enforced = self.rule(&|policy, mode| mode_of(policy, mode) == Mode::Enforce).verdict;
        if !verdict.allowed() && enforced.allowed() { SideVerdict::Audit } else { verdict }
    }

    /// What those that deny without the ones on trial tell the sender together.
    fn response(&self) -> Response {
        let ruling = self.rule(&|_, mode| mode == Mode::Enforce);
        Policy::told_by(
            self.deciding_in(&ruling, |mode| mode == Mode::Enforce)
                .map(|policy| self.says[policy].0),
        )
    }

    /// Admin tier, namespaces, baseline tier, allow.
    fn rule(&self, takes: &dyn Fn(&PolicyRef, Mode) -> bool) -> Ruling {
        let mut passing = Vec::new();
        for tier in TierName::ALL {
            let of_tier = |place: &usize| {
                let found = &self.rules[*place];
                found.tier == tier && takes(&found.rule.policy, found.mode)
            };
            let places: Vec<usize> = (0..self.rules.len()).filter(of_tier).collect();
            let decided = match tier {
                TierName::Namespace => self.of_namespaces(places, takes),
                TierName::Admin | TierName::Baseline => self.first(&places, &mut passing),
            };
            if let Some((verdict, rules)) = decided {
                return Ruling { tier: Some(tier), verdict, rules, passing };
            }
        }
        Ruling { tier: None, verdict: SideVerdict::DefaultAllow, rules: Vec::new(), passing }
    }

    fn first(
        &self,
        places: &[usize],
        passing: &mut Vec<usize>,
    ) -> Option<(SideVerdict, Vec<usize>)> {
        let place = *places.first()?;
        match self.rules[place].action {
            RuleAction::Allow => Some((SideVerdict::Allow, vec![place])),
            RuleAction::Deny => Some((SideVerdict::Deny, vec![place])),
            RuleAction::Pass => {
                passing.push(place);
                None
            }
        }
    }

    fn of_namespaces(
        &self,
        places: Vec<usize>,
        takes: &dyn Fn(&PolicyRef, Mode) -> bool,
    ) -> Option<(SideVerdict, Vec<usize>)> {
        let with = |action| {
            let places = places.iter().filter(|place| self.rules[**place].action == action);
            places.copied().collect::<Vec<usize>>()
        };
        let (denying, allowing) = (with(RuleAction::Deny), with(RuleAction::Allow));
        let isolated = self.isolating.iter().any(|(policy, mode)| takes(policy, *mode));
        match (denying.is_empty(), allowing.is_empty(), isolated) {
            (false, _, _) => Some((SideVerdict::Deny, denying)),
            (true, false, _) => Some((SideVerdict::Allow, allowing)),
            (true, true, true) => Some((SideVerdict::DefaultDeny, Vec::new())),
            (true, true, false) => None,
        }
    }

    fn tier(&self, tier: TierName, ruling: &Ruling) -> TierAccount {
        let rules = self.rules.iter().enumerate().filter(|(_, found)| found.tier == tier);
        let candidate = |(place, found): (usize, &FoundRule)| Candidate {
            rule: found.rule.clone(),
            action: found.action,
            mode: found.mode,
            decides: ruling.rules.contains(&place) || ruling.passing.contains(&place),
        };
        let isolation = |(policy, mode): &(PolicyRef, Mode)| Isolation {
            policy: policy.clone(),
            mode: *mode,
            decides: ruling.is_isolation() && *mode != Mode::Staged,
        };
        let own = self.isolating.iter().filter(|_| tier == TierName::Namespace);
        TierAccount {
            tier,
            candidates: rules.map(candidate).collect(),
            isolating: own.map(isolation).collect(),
            conclusion: self.conclusion(tier, ruling),
        }
    }

    fn conclusion(&self, tier: TierName, ruling: &Ruling) -> Conclusion {
        match ruling.tier {
            Some(last) if last == tier => Conclusion::Decides(ruling.verdict),
            Some(last) if last < tier => Conclusion::NotAsked,
            _ if ruling.passing.iter().any(|&place| self.rules[place].tier == tier) => {
                Conclusion::Passes
            }
            _ => Conclusion::Silent,
        }
    }

    fn deciding(&self, ruling: &Ruling) -> BTreeSet<PolicyRef> {
        self.deciding_in(ruling, |mode| mode != Mode::Staged).cloned().collect()
    }

    /// The policies that decide, of those in modes that count.
    fn deciding_in(
        &self,
        ruling: &Ruling,
        counts: impl Fn(Mode) -> bool,
    ) -> impl Iterator<Item = &PolicyRef> {
        let isolating = self.isolating.iter().filter(move |(_, mode)| counts(*mode));
        let isolating = isolating.map(|(policy, _)| policy).filter(|_| ruling.is_isolation());
        ruling.rules.iter().map(|&place| &self.rules[place].rule.policy).chain(isolating)
    }

    fn trials(&self, verdict: SideVerdict) -> Vec<Trial> {
        let matching = self.rules.iter().map(|found| (&found.rule.policy, found.mode));
        let isolating = self.isolating.iter().map(|(policy, mode)| (policy, *mode));
        let on_trial: BTreeSet<(&PolicyRef, Mode)> =
            matching.chain(isolating).filter(|(_, mode)| *mode != Mode::Enforce).collect();
        let enforced = |policy: &PolicyRef| {
            self.verdict(&|other, mode| if other == policy { Mode::Enforce } else { mode })
        };
        let trials = on_trial.into_iter().map(|(policy, mode)| Trial {
            policy: policy.clone(),
            mode,
            verdict: enforced(policy),
        });
        trials.filter(|trial| trial.verdict != verdict).collect()
    }
}

impl Ruling {
    fn is_isolation(&self) -> bool {
        self.verdict == SideVerdict::DefaultDeny
    }
}

//! Why a flow is allowed or denied: the rules that match it, tier by tier, and where they are.
//!
//! Each family that both ends have is answered by itself; a table puts those together that have the
//! same answer.

use std::num::NonZeroU16;

use flowgate_kubernetes::{Location, Manifests};
use flowgate_policy::{
    account::{self, Account, Candidate, Conclusion, EndAccount, Isolation, TierAccount, Trial},
    fate::Fate,
    model::{Mode, PolicyRef, RuleAction},
    options::Options,
    outcome::Flow,
    plan::Plan,
};
use serde::Serialize;
use thiserror::Error;

use crate::{
    Failure, Report,
    answer::told,
    cli::{self, Format},
    end::Ends,
    print,
    probe::{Family, Port, Probe, Proto},
    question::{Mistake, Question},
    read, table,
};

/// Why a flow can't be explained.
#[derive(Debug, Error)]
pub(crate) enum ExplainError {
    #[error(
        "which flow? explain takes <FROM> <TO> <PORT/PROTO>, as in: shop/front shop/db 5432/TCP"
    )]
    NoFlow,
    #[error("{text:?} is not PORT/PROTO, as in 8080/TCP, http/TCP, ICMP or 8/ICMP")]
    NotAService { text: String },
    #[error(transparent)]
    Mistake(#[from] Mistake),
}

/// Answers.
pub(crate) fn run(arguments: &cli::Explain) -> Result<Report, Failure> {
    let (manifests, flow) = arguments.parts().ok_or(ExplainError::NoFlow)?;
    let probe = probe(&flow)?;
    let manifests = read::manifests(manifests, &arguments.place)?;
    let question = Question::new(probe, &Ends::new(&manifests.inventory));
    let question = question.map_err(ExplainError::Mistake)?;
    // What contradicts itself has no plan, and so no answer.
    let keep_established = arguments.keep_established;
    let options = Options { keep_established, ..arguments.place.options() };
    let plan = read::compile(&manifests, &options)?;
    let accounts = accounts(&manifests, &question, &plan, &options);
    let text = match arguments.output {
        Format::Json => json(&manifests, &question, &accounts),
        Format::Table => text(&manifests, &named(&flow, &arguments.place), &question, &accounts),
    };
    Ok(Report { text, differs: false, disagreements: Vec::new() })
}

type Accounts = Vec<(Family, Flow, Account, Fate)>;

fn accounts(
    manifests: &Manifests,
    question: &Question,
    plan: &Plan,
    options: &Options,
) -> Accounts {
    let (inventory, policies) = (&manifests.inventory, &manifests.policies);
    let explain = |flow: &Flow| account::explain(inventory, policies, options, flow);
    let account = |(family, flow): &(Family, Flow)| {
        let account = explain(flow);
        let fate = plan.fate(question.stays_inside || account.outcome().allowed());
        (*family, *flow, account, fate)
    };
    question.flows.iter().map(account).collect()
}

fn probe([from, to, service]: &[String; 3]) -> Result<Probe, ExplainError> {
    let refused = || ExplainError::NotAService { text: service.clone() };
    let (what, proto) = match service.split_once('/') {
        None => (None, protocol(service)),
        // As differences and flow logs write it.
        Some((first, what)) if protocol(first).is_some() => (Some(what), protocol(first)),
        Some((what, last)) => (Some(what), protocol(last)),
    };
    let proto = proto.ok_or_else(refused)?;
    let (from, to) = (from.clone(), to.clone());
    let mut probe =
        Probe { from, to, port: None, proto, icmp_type: None, code: None, family: None };
    match (proto, what) {
        (_, None) => {}
        (Proto::Icmp | Proto::Icmp6, Some(text)) => {
            probe.icmp_type = Some(text.parse().map_err(|_| refused())?);
        }
        (_, Some(text)) => probe.port = Some(port(text).ok_or_else(refused)?),
    }
    Ok(probe)
}

fn protocol(text: &str) -> Option<Proto> {
    let all = [Proto::Tcp, Proto::Udp, Proto::Sctp, Proto::Icmp, Proto::Icmp6];
    all.into_iter().find(|proto| proto.to_string() == text)
}

fn port(text: &str) -> Option<Port> {
    if text.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<NonZeroU16>().ok().map(Port::Number);
    }
    Some(Port::Name(text.to_owned()))
}

const HEADER: [&str; 7] = ["END", "TIER", "SAYS", "DECIDES", "RULE", "ACTION", "WHERE"];

/// The flow, and whose answer it is.
fn named([from, to, service]: &[String; 3], place: &cli::Place) -> String {
    let node = place.node.iter().map(|node| format!(" on node {node}"));
    format!("{from} -> {to} {service}") + &node.collect::<String>()
}

fn text(manifests: &Manifests, flow: &str, question: &Question, accounts: &Accounts) -> String {
    let mut told: Vec<(Vec<String>, &Account, Fate)> = Vec::new();
    for (family, _, account, fate) in accounts {
        match told.iter_mut().find(|(_, known, _)| *known == account) {
            Some((families, ..)) => families.push(family.to_string()),
            None => told.push((vec![family.to_string()], account, *fate)),
        }
    }
    let answer = |(families, account, fate): &(Vec<String>, &Account, Fate)| {
        let families = families.join(" and ");
        let said = said(question, *fate);
        let rows = rows(manifests, account);
        format!("{flow} over {families}: {said}\n{}", table::print(&rows))
    };
    told.iter().map(answer).collect::<Vec<_>>().join("\n")
}

fn said(question: &Question, fate: Fate) -> &'static str {
    match fate {
        _ if question.stays_inside => "allowed, since it doesn't leave the pod",
        Fate::Passes => "allowed",
        Fate::Kept => {
            "denied; what is established is kept while its addresses stay in the same hands"
        }
        _ => "denied; what is established ends",
    }
}

fn rows(manifests: &Manifests, account: &Account) -> Vec<[String; 7]> {
    let mut rows = vec![HEADER.map(str::to_owned)];
    for (name, end) in [("egress", &account.egress), ("ingress", &account.ingress)] {
        match end {
            None => rows.push(row([name, "", "n/a", "", "no endpoint is there", "", ""])),
            Some(end) => rows.extend(rows_of_end(manifests, name, end)),
        }
    }
    rows
}

fn row(cells: [&str; 7]) -> [String; 7] {
    cells.map(str::to_owned)
}

fn rows_of_end(manifests: &Manifests, name: &str, end: &EndAccount) -> Vec<[String; 7]> {
    let mut verdict = end.verdict.to_string();
    if let Some(response) = told(end.response) {
        verdict += &format!(" with {response}");
    }
    let mut rows = vec![row([&format!("{name} {}", end.workload), "", &verdict, "", "", "", ""])];
    if end.from_own_node {
        rows.push(row(["", "", "", "yes", "its own node may reach it", "allow", ""]));
        return rows;
    }
    for tier in &end.tiers {
        rows.extend(rows_of_tier(manifests, tier));
    }
    for Trial { policy, mode, verdict } in &end.trials {
        let says = format!("{verdict} if enforced");
        let at = place(manifests.location_of(policy));
        rows.push(row(["", "on trial", &says, "", &policy.to_string(), mode_name(*mode), &at]));
    }
    if let Some(staged) = end.staged {
        let says = format!("{staged} if all staged were");
        rows.push(row(["", "on trial", &says, "", "", "", ""]));
    }
    rows
}

fn rows_of_tier(manifests: &Manifests, tier: &TierAccount) -> Vec<[String; 7]> {
    let candidates = tier.candidates.iter().map(|candidate| {
        let Candidate { rule, action, mode, decides } = candidate;
        let at = manifests.rule_location(&rule.policy, rule.direction, rule.index);
        let action = with_mode(action_name(*action), *mode);
        row(["", "", "", mark(*decides), &rule.to_string(), &action, &place(at)])
    });
    let isolating = tier.isolating.iter().map(|isolation| {
        let Isolation { policy, mode, decides } = isolation;
        let at = place(manifests.location_of(policy));
        let action = with_mode("isolate", *mode);
        row(["", "", "", mark(*decides), &policy.to_string(), &action, &at])
    });
    let mut rows: Vec<_> = candidates.chain(isolating).collect();
    if rows.is_empty() {
        rows.push(row(["", "", "", "", "", "", ""]));
    }
    rows[0][1] = tier.tier.to_string();
    rows[0][2] = conclusion(tier.conclusion);
    rows
}

fn mark(decides: bool) -> &'static str {
    if decides { "yes" } else { "no" }
}

const fn action_name(action: RuleAction) -> &'static str {
    match action {
        RuleAction::Allow => "allow",
        RuleAction::Deny => "deny",
        RuleAction::Pass => "pass",
    }
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
        Mode::Staged => "staged",
    }
}

fn with_mode(action: &str, mode: Mode) -> String {
    match mode {
        Mode::Enforce => action.to_owned(),
        Mode::Audit | Mode::Staged => format!("{action} ({})", mode_name(mode)),
    }
}

fn conclusion(conclusion: Conclusion) -> String {
    match conclusion {
        Conclusion::NotAsked => "not asked".to_owned(),
        Conclusion::Silent => "nothing".to_owned(),
        Conclusion::Passes => "pass".to_owned(),
        Conclusion::Decides(verdict) => verdict.to_string(),
    }
}

fn place(at: Option<&Location>) -> String {
    match at {
        None => String::new(),
        Some(Location { source, line: Some(line), .. }) => format!("{source}:{line}"),
        Some(at) => at.to_string(),
    }
}

/// The answer for one family. The order of the fields is that of the output.
#[derive(Serialize)]
struct Line<'a> {
    from: &'a str,
    to: &'a str,
    family: Family,
    source: String,
    destination: String,
    service: String,
    allowed: bool,
    /// What becomes of what is established: `passes`, `kept` or `ends`.
    established: String,
    egress: Option<End>,
    ingress: Option<End>,
}

#[derive(Serialize)]
struct End {
    endpoint: String,
    verdict: String,
    policies: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    staged: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    log: Vec<String>,
    from_own_node: bool,
    tiers: Vec<Tier>,
    trials: Vec<OnTrial>,
}

#[derive(Serialize)]
struct Tier {
    tier: String,
    says: String,
    candidates: Vec<Rule>,
    isolating: Vec<Isolating>,
}

#[derive(Serialize)]
struct Rule {
    policy: String,
    rule: String,
    index: usize,
    action: &'static str,
    mode: Mode,
    decides: bool,
    at: Option<At>,
}

#[derive(Serialize)]
struct Isolating {
    policy: String,
    mode: Mode,
    decides: bool,
    at: Option<At>,
}

#[derive(Serialize)]
struct OnTrial {
    policy: String,
    mode: Mode,
    verdict: String,
    at: Option<At>,
}

/// Where something is.
#[derive(Serialize)]
struct At {
    file: String,
    line: Option<usize>,
    path: String,
}

impl From<&Location> for At {
    fn from(at: &Location) -> Self {
        Self { file: at.source.to_string(), line: at.line, path: at.path.clone() }
    }
}

fn json(manifests: &Manifests, question: &Question, accounts: &Accounts) -> String {
    let end = |end: &Option<EndAccount>| end.as_ref().map(|end| End::new(manifests, end));
    let line = |(family, flow, account, fate): &(Family, Flow, Account, Fate)| Line {
        from: &question.probe.from,
        to: &question.probe.to,
        family: *family,
        source: flow.source.to_string(),
        destination: flow.destination.to_string(),
        service: flow.protocol.to_string(),
        allowed: *fate == Fate::Passes,
        established: fate.to_string(),
        egress: end(&account.egress),
        ingress: end(&account.ingress),
    };
    print::json(&accounts.iter().map(line).collect::<Vec<_>>())
}

impl End {
    fn new(manifests: &Manifests, end: &EndAccount) -> Self {
        let trial = |trial: &Trial| OnTrial {
            policy: trial.policy.to_string(),
            mode: trial.mode,
            verdict: trial.verdict.to_string(),
            at: manifests.location_of(&trial.policy).map(At::from),
        };
        Self {
            endpoint: end.workload.to_string(),
            verdict: end.verdict.to_string(),
            policies: end.policies.iter().map(PolicyRef::to_string).collect(),
            staged: end.staged.map(|staged| staged.to_string()),
            response: told(end.response),
            log: end.log.iter().map(ToString::to_string).collect(),
            from_own_node: end.from_own_node,
            tiers: end.tiers.iter().map(|tier| Tier::new(manifests, tier)).collect(),
            trials: end.trials.iter().map(trial).collect(),
        }
    }
}

impl Tier {
    fn new(manifests: &Manifests, tier: &TierAccount) -> Self {
        let rule = |Candidate { rule, action, mode, decides }: &Candidate| Rule {
            policy: rule.policy.to_string(),
            rule: rule.to_string(),
            index: rule.index,
            action: action_name(*action),
            mode: *mode,
            decides: *decides,
            at: manifests.rule_location(&rule.policy, rule.direction, rule.index).map(At::from),
        };
        let isolating = |Isolation { policy, mode, decides }: &Isolation| Isolating {
            policy: policy.to_string(),
            mode: *mode,
            decides: *decides,
            at: manifests.location_of(policy).map(At::from),
        };
        Self {
            tier: tier.tier.to_string(),
            says: conclusion(tier.conclusion),
            candidates: tier.candidates.iter().map(rule).collect(),
            isolating: tier.isolating.iter().map(isolating).collect(),
        }
    }
}

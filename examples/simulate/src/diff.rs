//! What two sets of manifests decide differently.

use std::collections::BTreeMap;

use flowgate_policy::{
    diff::{Difference, PeerPair, PlanDiff, Presence, Said, Services, Subject},
    model::{Direction, Protocol},
    outcome::Flow,
    peer_key::PeerKey,
};
use serde::Serialize;

use crate::{
    Failure, Report,
    answer::told,
    cli::{self, Format},
    print, read, table, unseen,
};

/// Answers.
pub(crate) fn run(arguments: &cli::Diff) -> Result<Report, Failure> {
    let with_both = |own: &[_]| [own, &arguments.manifests].concat();
    let (before, after) = (with_both(&arguments.before), with_both(&arguments.after));
    let (before, after) = read::both(&before, &after, &arguments.place)?;
    let options = arguments.place.options();
    let diff = read::compile(&before, &options)?.diff(&read::compile(&after, &options)?);
    for note in unseen::notes(&before, &after, diff.is_empty()) {
        eprintln!("warning: {note}");
    }
    let text = match arguments.output {
        Format::Json => json(&diff),
        Format::Table => text(&diff),
    };
    Ok(Report { text, differs: !diff.is_empty(), disagreements: Vec::new() })
}

const HEADER: [&str; 8] =
    ["CHANGE", "ENDPOINTS", "FLOWS", "PEERS", "SERVICES", "BEFORE", "AFTER", "EXAMPLE"];

fn text(diff: &PlanDiff) -> String {
    let mut text = String::new();
    if !diff.differences.is_empty() {
        let mut rows = vec![HEADER.map(str::to_owned)];
        rows.extend(diff.differences.iter().map(row));
        text += &table::print(&rows);
    }
    for (word, presences) in [("added", &diff.added), ("removed", &diff.removed)] {
        for Presence { owner, address } in presences {
            text += &format!("{word}: {owner} at {address}\n");
        }
    }
    text
}

fn row(difference: &Difference) -> [String; 8] {
    let subjects: Vec<String> =
        difference.subjects.iter().map(|subject| subject.workload.to_string()).collect();
    let example = example(difference).map(|flow| flow.to_string());
    [
        change(difference).to_owned(),
        table::some(&subjects),
        match difference.direction {
            Direction::Egress => "to".to_owned(),
            Direction::Ingress => "from".to_owned(),
        },
        peers(difference),
        services(&difference.services),
        difference.before.to_string(),
        difference.after.to_string(),
        example.unwrap_or_default(),
    ]
}

/// A flow between two ends, if there is one: what a pod sends to itself doesn't leave it.
fn example(difference: &Difference) -> Option<Flow> {
    let mut flows = difference.flows().map(|(_, _, flow)| flow);
    let between = flows.clone().find(|flow| flow.source != flow.destination);
    between.or_else(|| flows.next())
}

/// What becomes of the flows: they pass now, pass no more, or fare as before, and their sender is told
/// something else, or it is for another reason.
fn change(difference: &Difference) -> &'static str {
    let (before, after) = (difference.before, difference.after);
    match (before.verdict.allowed(), after.verdict.allowed()) {
        (false, true) => "opens",
        (true, false) => "closes",
        _ if before.response != after.response => "answer",
        _ => "reason",
    }
}

/// The services, or those that are left out if these are fewer.
fn services(services: &[Services]) -> String {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter();
    let missing: Vec<Services> = protocols.flat_map(|protocol| gaps(services, protocol)).collect();
    let all_others = services.contains(&Services::WithoutPorts);
    if all_others && !missing.is_empty() && missing.len() < services.len() {
        return format!("all but {}", listed(&missing));
    }
    listed(services)
}

fn listed(services: &[Services]) -> String {
    services.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The ports of a protocol that sorted services leave out.
fn gaps(services: &[Services], wanted: Protocol) -> Vec<Services> {
    let mut gaps = Vec::new();
    let mut next = Some(0);
    for service in services {
        let Services::Ports { protocol, first, last } = *service else { continue };
        let Some(start) = next.filter(|_| protocol == wanted) else { continue };
        if start < first {
            gaps.push(Services::Ports { protocol, first: start, last: first - 1 });
        }
        next = last.checked_add(1);
    }
    let rest = |first| Services::Ports { protocol: wanted, first, last: u16::MAX };
    gaps.extend(next.map(rest));
    gaps
}

fn peers(difference: &Difference) -> String {
    if difference.everyone {
        return "everyone".to_owned();
    }
    let mut names: Vec<String> = difference.peers.iter().map(|peer| name_of_pair(peer)).collect();
    names.sort();
    names.dedup();
    table::some(&names)
}

fn name_of_pair(pair: &PeerPair) -> String {
    let (before, after) = (name(&pair.before), name(&pair.after));
    match (&pair.before, &pair.after) {
        // The narrower of both says who they are.
        (PeerKey::Network(old), PeerKey::Network(new)) if old.contains(new) => after,
        (PeerKey::Network(_), PeerKey::Network(_)) => before,
        _ if before == after => before,
        _ => format!("{before} (then {after})"),
    }
}

fn name(key: &PeerKey) -> String {
    match key {
        PeerKey::Workload { namespace, labels, .. } if labels.is_empty() => {
            format!("{namespace} without labels")
        }
        PeerKey::Workload { namespace, labels, .. } => format!("{namespace} {labels}"),
        PeerKey::Node { name, .. } => format!("node {name}"),
        PeerKey::Network(network) => match (network.prefix_len(), network.addr().is_ipv4()) {
            (0, true) => "other IPv4".to_owned(),
            (0, false) => "other IPv6".to_owned(),
            _ => network.to_string(),
        },
    }
}

/// One line of JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Line {
    Differs(Box<Differs>),
    Present { change: &'static str, owner: String, address: String },
}

/// What differs for one subject and one class of peers. The order of the fields is that of the
/// output.
#[derive(Serialize)]
struct Differs {
    change: &'static str,
    subject: String,
    direction: &'static str,
    peer: Peers,
    services: Vec<String>,
    before: Verdict,
    after: Verdict,
    flow: Sample,
}

#[derive(Serialize)]
struct Peers {
    before: Peer,
    after: Peer,
}

/// Other ends, by what makes them one peer of a plan.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Peer {
    Workloads { namespace: String, labels: BTreeMap<String, String>, network: String },
    Node { name: String, network: String },
    Network { network: String },
}

impl From<&PeerKey> for Peer {
    fn from(key: &PeerKey) -> Self {
        let network = key.network().to_string();
        match key {
            PeerKey::Workload { namespace, labels, .. } => Self::Workloads {
                namespace: namespace.to_string(),
                labels: labels.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
                network,
            },
            PeerKey::Node { name, .. } => Self::Node { name: name.to_string(), network },
            PeerKey::Network(_) => Self::Network { network },
        }
    }
}

#[derive(Serialize)]
struct Verdict {
    verdict: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    staged: Option<String>,
}

#[derive(Serialize)]
struct Sample {
    source: String,
    destination: String,
    service: String,
}

fn json(diff: &PlanDiff) -> String {
    let mut lines = Vec::new();
    for difference in &diff.differences {
        let line = |(subject, peer, flow)| Differs::new(difference, subject, peer, flow);
        lines.extend(difference.flows().map(|found| Line::Differs(Box::new(line(found)))));
    }
    for (change, presences) in [("added", &diff.added), ("removed", &diff.removed)] {
        lines.extend(presences.iter().map(|Presence { owner, address }| {
            let (owner, address) = (owner.to_string(), address.to_string());
            Line::Present { change, owner, address }
        }));
    }
    print::json(&lines)
}

impl Differs {
    fn new(difference: &Difference, subject: &Subject, peer: &PeerPair, flow: Flow) -> Self {
        Self {
            change: change(difference),
            subject: subject.workload.to_string(),
            direction: match difference.direction {
                Direction::Egress => "egress",
                Direction::Ingress => "ingress",
            },
            peer: Peers { before: (&peer.before).into(), after: (&peer.after).into() },
            services: difference.services.iter().map(ToString::to_string).collect(),
            before: difference.before.into(),
            after: difference.after.into(),
            flow: Sample {
                source: flow.source.to_string(),
                destination: flow.destination.to_string(),
                service: flow.protocol.to_string(),
            },
        }
    }
}

impl From<Said> for Verdict {
    fn from(said: Said) -> Self {
        let staged = said.staged.map(|staged| staged.to_string());
        Self { verdict: said.verdict.to_string(), response: told(said.response), staged }
    }
}

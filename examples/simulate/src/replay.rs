//! Which flows of a flow log would be judged differently.
//!
//! The log leaves out the family: every family that both ends have is asked, and an entry changes if
//! it changes over one of them. Entries that nobody judged, or whose ends or ports aren't known, are
//! not compared; stderr says how many.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use flowgate_policy::{
    fate::Fate,
    model::Protocol,
    options::Options,
    outcome::{Flow, FlowProtocol, Outcome, Side, SideVerdict},
    plan::Plan,
    replay::{self, Recorded},
};
use serde::Serialize;

use crate::{
    Failure, Report,
    answer::Half,
    cli::{self, Format},
    end::{End, Ends},
    flow_log::{self, Entry, Event, LineMistake},
    print,
    probe::Family,
    read, table,
};

/// RFC 792, RFC 4443.
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;

/// Answers.
pub(crate) fn run(arguments: &cli::Replay) -> Result<Report, Failure> {
    let manifests = read::manifests(&arguments.manifests, &arguments.place)?;
    let keep_established = arguments.keep_established;
    let options = Options { keep_established, ..arguments.place.options() };
    let plan = read::compile(&manifests, &options)?;
    let ends = Ends::new(&manifests.inventory);
    let entries = flow_log::read(&arguments.flows, |entry| Question::new(entry, &ends))?;
    let changed: Vec<Changed<'_>> =
        entries.iter().filter_map(|question| question.ask(&plan)).collect();
    warn(&entries);
    let text = match arguments.output {
        Format::Json => print::json(&changed),
        Format::Table => text(&changed),
    };
    Ok(Report { text, differs: !changed.is_empty(), disagreements: Vec::new() })
}

/// An entry with its flows, or why it can't be asked.
struct Question {
    entry: Entry,
    flows: Result<Vec<Recorded>, NotCompared>,
}

/// Why an entry isn't compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NotCompared {
    NobodyJudged,
    UnknownPod,
    NoFamily,
    UnknownPort,
    StaysInside,
}

impl fmt::Display for NotCompared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NobodyJudged => "nobody had judged them",
            Self::UnknownPod => "they name a pod that the manifests don't have",
            Self::NoFamily => "their ends have no address family in common",
            Self::UnknownPort => "the log doesn't have SCTP ports",
            Self::StaysInside => "they don't leave their pod",
        })
    }
}

impl Question {
    fn new(entry: Entry, ends: &Ends<'_>) -> Result<Self, LineMistake> {
        let service = Service::parse(&entry.service)?;
        let (from, to) = (end(&entry.from, ends)?, end(&entry.to, ends)?);
        let flows = flows(&entry, service, from, to);
        Ok(Self { entry, flows })
    }

    fn ask(&self, plan: &Plan) -> Option<Changed<'_>> {
        let mut records = self.flows.iter().flatten();
        let changed = records.find_map(|recorded| recorded.changed(plan))?;
        let (recorded, outcome) = (changed.recorded, &changed.outcome);
        Some(Changed {
            event: self.entry.event,
            from: &self.entry.from,
            to: &self.entry.to,
            service: &self.entry.service,
            times: self.entry.times,
            before: Then {
                allowed: recorded.allowed(),
                egress: then(recorded.egress),
                ingress: then(recorded.ingress),
            },
            established: self.entry.event.is_alive().then(|| changed.fate.to_string()),
            change: change(self.entry.event, &changed),
            after: Now::new(changed.allowed(), recorded, outcome),
        })
    }
}

/// What is asked, as the log writes it.
#[derive(Clone, Copy)]
enum Service {
    Ping,
    Port(Protocol, u16),
    Number(u8),
}

impl Service {
    fn parse(text: &str) -> Result<Self, LineMistake> {
        let parsed = match (text.split_once('/'), text.strip_prefix("protocol ")) {
            _ if text == "ping" => Some(Self::Ping),
            (Some(("TCP", port)), _) => port.parse().ok().map(|p| Self::Port(Protocol::Tcp, p)),
            (Some(("UDP", port)), _) => port.parse().ok().map(|p| Self::Port(Protocol::Udp, p)),
            (_, Some(number)) => number.parse().ok().map(Self::Number),
            _ => None,
        };
        parsed.ok_or_else(|| LineMistake::NotAService { text: text.to_owned() })
    }

    const fn protocol(self, family: Family) -> FlowProtocol {
        match (self, family) {
            (Self::Port(protocol, port), _) => FlowProtocol::to_port(protocol, port),
            (Self::Ping, Family::V4) => FlowProtocol::Icmp { icmp_type: ECHO_REQUEST },
            (Self::Ping, Family::V6) => FlowProtocol::Icmp6 { icmp_type: ECHO_REQUEST_V6 },
            (Self::Number(number), _) => FlowProtocol::Other(number),
        }
    }
}

/// `None`: a pod that isn't there.
fn end<'a>(text: &str, ends: &Ends<'a>) -> Result<Option<End<'a>>, LineMistake> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(ends.find(&format!("ip:{text}")).ok());
    }
    let is_pod = text.split_once('/').is_some_and(|(namespace, name)| {
        !namespace.is_empty() && !name.is_empty() && !name.contains('/')
    });
    match is_pod {
        true => Ok(ends.find(text).ok()),
        false => Err(LineMistake::NotAnEnd { text: text.to_owned() }),
    }
}

fn flows(
    entry: &Entry,
    service: Service,
    from: Option<End<'_>>,
    to: Option<End<'_>>,
) -> Result<Vec<Recorded>, NotCompared> {
    let half = |half: &Option<flow_log::Half>| half.as_ref().and_then(flow_log::Half::said);
    let (egress, ingress) = (half(&entry.egress), half(&entry.ingress));
    if egress.or(ingress).is_none() {
        return Err(NotCompared::NobodyJudged);
    }
    if matches!(service, Service::Number(number) if number == Protocol::Sctp.number()) {
        return Err(NotCompared::UnknownPort);
    }
    let (from, to) = from.zip(to).ok_or(NotCompared::UnknownPod)?;
    if from.is_same_pod(&to) {
        return Err(NotCompared::StaysInside);
    }
    let flow = |family: Family| {
        let (source, destination) = (from.address(family)?, to.address(family)?);
        let flow = Flow { source, destination, protocol: service.protocol(family) };
        Some(Recorded { flow, egress, ingress, kept: entry.event == Event::Kept })
    };
    let flows: Vec<Recorded> = Family::ALL.into_iter().filter_map(flow).collect();
    if flows.is_empty() { Err(NotCompared::NoFamily) } else { Ok(flows) }
}

fn warn(questions: &[Question]) {
    if questions.is_empty() {
        eprintln!("warning: the flow log has no entries");
    }
    let mut reasons: BTreeMap<NotCompared, usize> = BTreeMap::new();
    for reason in questions.iter().filter_map(|question| question.flows.as_ref().err()) {
        *reasons.entry(*reason).or_default() += 1;
    }
    for (reason, count) in reasons {
        eprintln!("warning: {count} of {} entries are not compared: {reason}", questions.len());
    }
}

/// An entry that would be judged differently. The order of the fields is that of the output.
#[derive(Serialize)]
struct Changed<'a> {
    event: Event,
    from: &'a str,
    to: &'a str,
    service: &'a str,
    times: u64,
    /// What becomes of it if it is established: `passes`, `kept` or `ends`. Nothing of what is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    established: Option<String>,
    #[serde(skip)]
    change: &'static str,
    before: Then,
    after: Now,
}

/// What was said.
#[derive(Serialize)]
struct Then {
    allowed: bool,
    egress: String,
    ingress: String,
}

fn then(said: Option<SideVerdict>) -> String {
    said.map_or_else(|| "n/a".to_owned(), |verdict| verdict.to_string())
}

/// What would be said, at the ends of which something is recorded.
#[derive(Serialize)]
struct Now {
    allowed: bool,
    egress: Half,
    ingress: Half,
}

impl Now {
    fn new(allowed: bool, recorded: &Recorded, outcome: &Outcome) -> Self {
        let half = |said: Option<SideVerdict>, side: &Side| match said {
            Some(_) => Half::new(side, false),
            None => Half::new(&Side::NotAnEndpoint, false),
        };
        let egress = half(recorded.egress, &outcome.egress);
        Self { allowed, egress, ingress: half(recorded.ingress, &outcome.ingress) }
    }
}

const HEADER: [&str; 9] =
    ["CHANGE", "TIMES", "EVENT", "FROM", "TO", "SERVICE", "END", "RECORDED", "NOW"];

fn text(changed: &[Changed<'_>]) -> String {
    if changed.is_empty() {
        return String::new();
    }
    let mut rows = vec![HEADER.map(str::to_owned)];
    for one in changed {
        let ends = [
            ("egress", &one.before.egress, &one.after.egress),
            ("ingress", &one.before.ingress, &one.after.ingress),
        ];
        for (place, (end, then, now)) in worth_a_row(ends).enumerate() {
            let first = |text: String| if place == 0 { text } else { String::new() };
            rows.push([
                first(one.change.to_owned()),
                first(one.times.to_string()),
                first(event(one.event).to_owned()),
                first(one.from.to_owned()),
                first(one.to.to_owned()),
                first(one.service.to_owned()),
                end.to_owned(),
                then.clone(),
                print::cell(now),
            ]);
        }
    }
    table::print(&rows)
}

type EndRow<'a> = (&'static str, &'a String, &'a Half);

/// The ends that say something else; where none does, both that judged.
fn worth_a_row<'a>(ends: [EndRow<'a>; 2]) -> impl Iterator<Item = EndRow<'a>> {
    let same = |(_, then, now): &EndRow<'a>| **then == now.verdict;
    let both = ends.iter().all(same);
    ends.into_iter().filter(move |end| if both { end.1 != "n/a" } else { !same(end) })
}

/// What becomes of new flows like it, and if these stay denied, of those that were kept.
fn change(event: Event, changed: &replay::Changed<'_>) -> &'static str {
    match (changed.recorded.allowed(), changed.allowed()) {
        (false, true) => "opens",
        (true, false) if event.is_alive() && changed.fate == Fate::Kept => "keeps",
        (true, false) => "closes",
        (false, false) if event == Event::Kept && changed.fate == Fate::Ends => "ends",
        (true, true) | (false, false) => "reason",
    }
}

const fn event(event: Event) -> &'static str {
    match event {
        Event::New => "new",
        Event::Denied => "denied",
        Event::Closed => "closed",
        Event::Rejudged => "rejudged",
        Event::Revoked => "revoked",
        Event::Kept => "kept",
    }
}

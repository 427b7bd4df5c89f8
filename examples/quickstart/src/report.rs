//! What is printed: for the eye, or as JSON.

use std::{fmt::Write, time::Duration};

use flowgate_policy::inventory::Workload;
use serde::Serialize;

use crate::{
    answer::Answer,
    change::Connection,
    cli::{Backend, Format},
    flow_log::{self, Entry},
    matrix,
    question::Service,
};

/// Everything that there is to say.
#[derive(Debug)]
pub(crate) struct Report<'q> {
    pub(crate) backend: Backend,
    pub(crate) pods: Vec<&'q Workload>,
    pub(crate) policies: usize,
    pub(crate) answers: Vec<Answer<'q>>,
    /// What only a datapath with traffic can tell.
    pub(crate) traffic: Option<Traffic>,
}

/// What a datapath with traffic tells.
#[derive(Debug, Serialize)]
pub(crate) struct Traffic {
    /// What opening found out and did, in words.
    pub(crate) datapath: String,
    pub(crate) attach: Attached,
    pub(crate) apply: Applied,
    pub(crate) change: Option<Changed>,
    pub(crate) flow_log: Vec<Entry>,
    /// Events that were kept back by the rate limit, or found no room.
    pub(crate) events_missed: u64,
}

/// The endpoints were attached.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Attached {
    pub(crate) endpoints: usize,
    /// By which mechanism.
    pub(crate) hooks: String,
    #[serde(rename = "microseconds", serialize_with = "microseconds")]
    pub(crate) took: Duration,
}

/// A plan was applied.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Applied {
    pub(crate) generation: u32,
    #[serde(rename = "microseconds", serialize_with = "microseconds")]
    pub(crate) took: Duration,
}

/// A policy was changed while two connections were open.
#[derive(Debug, Serialize)]
pub(crate) struct Changed {
    pub(crate) what: String,
    pub(crate) apply: Applied,
    pub(crate) revoked: Talked,
    pub(crate) kept: Talked,
}

/// What became of an open connection.
#[derive(Debug, Serialize)]
pub(crate) struct Talked {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) port: u16,
    pub(crate) proto: &'static str,
    /// It still carries data, after the change.
    pub(crate) alive: bool,
}

impl Talked {
    pub(crate) fn new(connection: &Connection<'_>, alive: bool) -> Self {
        let question = connection.question;
        let port = connection.flow.protocol.port().map_or(0, |(_, port)| port);
        let (from, to) = (question.from.id.to_string(), question.to.id.to_string());
        Self { from, to, port, proto: "TCP", alive }
    }
}

impl Changed {
    /// The revoked connection is cut, and the other lives.
    fn is_as_predicted(&self) -> bool {
        !self.revoked.alive && self.kept.alive
    }
}

/// The last line of JSON.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    backend: &'static str,
    pods: usize,
    policies: usize,
    /// Lines above, and what they say.
    probes: usize,
    allowed: usize,
    denied: usize,
    /// Of all that was tried, pings and the change of policy included.
    mismatches: usize,
    pings: Pings,
    #[serde(flatten)]
    traffic: Option<&'a Traffic>,
}

/// Echo requests, of which there are no lines.
#[derive(Debug, Serialize)]
struct Pings {
    probes: usize,
    allowed: usize,
    mismatches: usize,
}

impl Report<'_> {
    /// The text for stdout.
    pub(crate) fn print(&self, format: Format) -> String {
        match format {
            Format::Json => self.json(),
            Format::Table => self.table(),
        }
    }

    /// What isn't as predicted.
    pub(crate) fn mismatches(&self) -> usize {
        let answers = self.answers.iter().filter(|answer| !answer.is_as_predicted()).count();
        let change = self.traffic.iter().filter_map(|traffic| traffic.change.as_ref());
        answers + change.filter(|change| !change.is_as_predicted()).count()
    }

    fn json(&self) -> String {
        let mut text = String::new();
        for line in self.answers.iter().filter_map(Answer::line) {
            write_line(&mut text, &line);
        }
        write_line(&mut text, &self.summary());
        text
    }

    fn summary(&self) -> Summary<'_> {
        let (pings, ports): (Vec<_>, Vec<_>) =
            self.answers.iter().partition(|answer| answer.question.service == Service::Ping);
        let allowed = ports.iter().filter(|answer| answer.allowed()).count();
        Summary {
            backend: match self.backend {
                Backend::Kernel => "kernel",
                Backend::Host => "host",
            },
            pods: self.pods.len(),
            policies: self.policies,
            probes: ports.len(),
            allowed,
            denied: ports.len() - allowed,
            mismatches: self.mismatches(),
            pings: Pings {
                probes: pings.len(),
                allowed: pings.iter().filter(|answer| answer.allowed()).count(),
                mismatches: pings.iter().filter(|answer| !answer.is_as_predicted()).count(),
            },
            traffic: self.traffic.as_ref(),
        }
    }

    fn table(&self) -> String {
        let mut text = format!("{} pods, {} policies\n", self.pods.len(), self.policies);
        if let Some(traffic) = &self.traffic {
            text += &traffic.beginning();
        }
        text += "\nReachability\n";
        text += &matrix::print(&self.pods, &self.answers);
        if let Some(traffic) = &self.traffic {
            text += &traffic.end();
        }
        text + "\n" + &self.conclusion() + "\n"
    }

    fn conclusion(&self) -> String {
        let flows: usize = self.answers.iter().map(|answer| answer.families.len()).sum();
        match (&self.traffic, self.mismatches()) {
            (None, _) => format!("{flows} flows predicted; nothing was sent"),
            (Some(_), 0) => format!("{flows} flows tried, all as predicted"),
            (Some(_), mismatches) => format!("{flows} flows tried, {mismatches} MISMATCHES"),
        }
    }
}

impl Traffic {
    fn beginning(&self) -> String {
        let Attached { endpoints, hooks, took } = &self.attach;
        let Applied { generation, took: apply_took } = self.apply;
        format!(
            "datapath: {}
{endpoints} endpoints attached by {hooks} in {took:.1?}
\
             policies applied in {apply_took:.1?}: generation {generation}
",
            self.datapath
        )
    }

    fn end(&self) -> String {
        let mut text = "\nA policy changes while connections are open\n".to_owned();
        text += &match &self.change {
            Some(change) => change.text(),
            None => "no change of a policy would revoke one TCP connection and leave another\n"
                .to_owned(),
        };
        text += "\nFlow log\n";
        text += &flow_log::print(&self.flow_log);
        match self.events_missed {
            0 => text,
            missed => text + &format!("  {missed} events were missed\n"),
        }
    }
}

impl Changed {
    fn text(&self) -> String {
        let Applied { generation, took } = self.apply;
        let mut text = format!("{}; applied in {took:.1?}: generation {generation}\n", self.what);
        for (talked, wanted) in [(&self.revoked, false), (&self.kept, true)] {
            let Talked { from, to, port, proto, alive } = talked;
            let state = if *alive { "lives" } else { "is cut" };
            let mark = if *alive == wanted { "" } else { "  MISMATCH" };
            text += &format!("  {from} -> {to} {proto}/{port} {state}{mark}\n");
        }
        text
    }
}

fn write_line(text: &mut String, value: &impl Serialize) {
    let line = serde_json::to_string(value).expect("strings and numbers are JSON");
    writeln!(text, "{line}").expect("a string takes all text");
}

fn microseconds<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
}

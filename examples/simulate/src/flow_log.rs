//! Reads the flow log: one entry a line, as flowgate's quickstart writes them.
//!
//! Not here: who the ends are, and what a plan says. Invariant: a line with an unknown field or
//! value is refused, with file and line.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use flowgate_policy::outcome::SideVerdict;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What was said about a flow, and how often.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields are the format")]
pub(crate) struct Entry {
    pub(crate) event: Event,
    /// `ns/pod` or an address.
    pub(crate) from: String,
    /// The same.
    pub(crate) to: String,
    /// `TCP/8080`, `UDP/53`, `ping`, or `protocol 47`.
    pub(crate) service: String,
    reason: Option<String>,
    pub(crate) egress: Option<Half>,
    pub(crate) ingress: Option<Half>,
    policies: BTreeSet<String>,
    generation: u32,
    pub(crate) times: u64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Event {
    New,
    Denied,
    Closed,
    Rejudged,
    Revoked,
    Kept,
}

impl Event {
    /// The flow goes on after it.
    pub(crate) const fn is_alive(self) -> bool {
        matches!(self, Self::New | Self::Rejudged | Self::Kept)
    }
}

/// What one end said.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the fields are the format")]
pub(crate) struct Half {
    pub(crate) verdict: Verdict,
    policies: Vec<String>,
    #[serde(default)]
    staged: Option<Verdict>,
    #[serde(default)]
    response: Option<Told>,
    #[serde(default)]
    log: Vec<String>,
}

/// What the sender was told.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Told {
    Icmp,
    Reset,
}

/// The verdict of one end, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Allow,
    Deny,
    DefaultAllow,
    DefaultDeny,
    Audit,
    #[serde(rename = "n/a")]
    NotAnEndpoint,
}

impl Half {
    /// What it said, if an endpoint was there.
    pub(crate) const fn said(&self) -> Option<SideVerdict> {
        match self.verdict {
            Verdict::Allow => Some(SideVerdict::Allow),
            Verdict::Deny => Some(SideVerdict::Deny),
            Verdict::DefaultAllow => Some(SideVerdict::DefaultAllow),
            Verdict::DefaultDeny => Some(SideVerdict::DefaultDeny),
            Verdict::Audit => Some(SideVerdict::Audit),
            Verdict::NotAnEndpoint => None,
        }
    }
}

/// Why a flow log was refused: where, and why.
#[derive(Debug, Error)]
pub(crate) enum FlowLogError {
    #[error("{}: can't be read: {error}", .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}:{line}: {mistake}", .path.display())]
    Mistake { path: PathBuf, line: usize, mistake: LineMistake },
}

/// Why a line was refused.
#[derive(Debug, Error)]
pub(crate) enum LineMistake {
    #[error("{0}")]
    Json(serde_json::Error),
    #[error("an entry must be a JSON object")]
    NotAnObject,
    #[error("{text:?} is neither ns/pod nor an address")]
    NotAnEnd { text: String },
    #[error("{text:?} is no service, as in TCP/8080, UDP/53, ping or protocol 47")]
    NotAService { text: String },
}

/// Reads a file, and makes something of each entry. Blank lines are passed over.
pub(crate) fn read<T>(
    path: &Path,
    make: impl Fn(Entry) -> Result<T, LineMistake>,
) -> Result<Vec<T>, FlowLogError> {
    let bytes =
        fs::read(path).map_err(|error| FlowLogError::Unreadable { path: path.into(), error })?;
    let lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty());
    let entries = lines.map(|(index, line)| {
        let line_number = index + 1;
        parse(line).and_then(&make).map_err(|mistake| FlowLogError::Mistake {
            path: path.into(),
            line: line_number,
            mistake,
        })
    });
    entries.collect()
}

fn parse(line: &[u8]) -> Result<Entry, LineMistake> {
    // serde takes an array for a structure, too.
    if line.starts_with(b"[") {
        return Err(LineMistake::NotAnObject);
    }
    serde_json::from_slice(line).map_err(LineMistake::Json)
}

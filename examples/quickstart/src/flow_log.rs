//! The flow log: what the datapath said about the flows, equal entries together.

use std::fmt::Write;

use serde::Serialize;

/// What was said about a flow, and how often.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Entry {
    /// What happened: `new`, `denied`, `closed`, `re-judged` or `revoked`.
    pub(crate) event: String,
    pub(crate) from: String,
    pub(crate) to: String,
    /// Protocol and destination port, or type.
    pub(crate) service: String,
    /// `allow`, `deny`, `default-allow` or `default-deny`.
    pub(crate) verdict: String,
    /// Why it was dropped; nothing if it wasn't.
    pub(crate) reason: Option<String>,
    /// The policies that decided, as `kind/namespace/name`, sorted.
    pub(crate) policies: Vec<String>,
    pub(crate) generation: u32,
    pub(crate) times: usize,
}

/// At most `lines` entries as text, the last ones: those of the change.
pub(crate) fn print(entries: &[Entry], lines: usize) -> String {
    let left_out = entries.len().saturating_sub(lines);
    let mut text = String::new();
    if left_out > 0 {
        text += &format!("  ({left_out} earlier ones: see -o json)\n");
    }
    for entry in &entries[left_out..] {
        let Entry { event, from, to, service, verdict, reason, policies, generation, times } =
            entry;
        let reason = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        let by = if policies.is_empty() { "no policy".to_owned() } else { policies.join(", ") };
        let times = if *times > 1 { format!(" ({times} times)") } else { String::new() };
        writeln!(
            text,
            "  g{generation} {event:<9} {from} -> {to} {service} {verdict}{reason} by {by}{times}"
        )
        .expect("a string takes all text");
    }
    text
}

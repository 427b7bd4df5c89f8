//! The flow log: what the datapath said about flows, equal entries together.
//!
//! Events wait in a ring of fixed size, so they are read while traffic flows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use flowgate_abi::event::Kind;
use flowgate_datapath::{Events, FlowEnd, FlowEvent};
use serde::Serialize;

use crate::judgement::Half;

/// As many lines of each kind are printed for the eye; JSON has all.
const LINES: usize = 12;
const PATIENCE: Duration = Duration::from_millis(20);

/// What was said about a flow, and how often.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub(crate) what: What,
    pub(crate) times: usize,
}

/// What was said about a flow. Its families and the ports of its sources are left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct What {
    /// What happened: `new`, `denied`, `closed`, `rejudged` or `revoked`.
    pub(crate) event: &'static str,
    pub(crate) from: String,
    pub(crate) to: String,
    /// Protocol and destination port, or the kind of query.
    pub(crate) service: String,
    /// Why packets are dropped; nothing if they aren't.
    pub(crate) reason: Option<String>,
    /// What was decided at each end; nothing if nobody decided.
    pub(crate) egress: Option<Half>,
    pub(crate) ingress: Option<Half>,
    /// The policies that decided, as `kind/namespace/name`, sorted.
    pub(crate) policies: BTreeSet<String>,
    /// Which plan decided.
    pub(crate) generation: u32,
}

/// Reads events on a thread of its own.
#[derive(Debug)]
pub(crate) struct Recorder {
    over: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Vec<Entry>>>,
}

impl Recorder {
    /// Begins to read.
    pub(crate) fn start(mut events: Events) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let record = move || {
            let mut log = Log::default();
            loop {
                // Asked first, so that what was written before it was over is read to the end.
                let over = told.load(Ordering::Acquire);
                match events.next_timeout(PATIENCE)? {
                    Some(event) => log.add(What::from(&event)),
                    None if over => return Ok(log.entries),
                    None => {}
                }
            }
        };
        let thread = thread::Builder::new().name("events".to_owned()).spawn(record)?;
        Ok(Self { over, thread })
    }

    /// What was said so far, in the order in which it was first said.
    pub(crate) fn finish(self) -> io::Result<Vec<Entry>> {
        self.over.store(true, Ordering::Release);
        self.thread.join().expect("reading events doesn't panic")
    }
}

/// Entries in the order in which they were first said, and where each is.
#[derive(Default)]
struct Log {
    entries: Vec<Entry>,
    places: BTreeMap<What, usize>,
}

impl Log {
    fn add(&mut self, what: What) {
        match self.places.get(&what) {
            Some(&place) => self.entries[place].times += 1,
            None => {
                self.places.insert(what.clone(), self.entries.len());
                self.entries.push(Entry { what, times: 1 });
            }
        }
    }
}

impl From<&FlowEvent> for What {
    fn from(event: &FlowEvent) -> Self {
        let half = |side| Half::from(side);
        let egress = event.outcome.as_ref().map(|outcome| half(&outcome.egress));
        let ingress = event.outcome.as_ref().map(|outcome| half(&outcome.ingress));
        let policies = egress.iter().chain(&ingress).flat_map(|half| half.policies.clone());
        Self {
            event: name(event.kind),
            from: end(&event.source),
            to: end(&event.destination),
            service: service(event),
            reason: event.reason.map(|reason| reason.to_string()),
            policies: policies.collect(),
            egress,
            ingress,
            generation: event.generation,
        }
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::New => "new",
        Kind::Denied => "denied",
        Kind::Closed => "closed",
        Kind::Rejudged => "rejudged",
        Kind::Revoked => "revoked",
        Kind::Kept => "kept",
    }
}

fn end(end: &FlowEnd) -> String {
    end.workload.as_ref().map_or_else(|| end.address.to_string(), ToString::to_string)
}

fn service(event: &FlowEvent) -> String {
    match event.protocol {
        1 | 58 => "ping".to_owned(),
        6 => format!("TCP/{}", event.destination.port),
        17 => format!("UDP/{}", event.destination.port),
        number => format!("protocol {number}"),
    }
}

/// The log for the eye: what the change did, and some of each other kind.
pub(crate) fn print(entries: &[Entry]) -> String {
    let mut text = String::new();
    for kind in ["denied", "new", "rejudged", "kept", "revoked"] {
        let of_kind: Vec<_> = entries.iter().filter(|entry| entry.what.event == kind).collect();
        for entry in of_kind.iter().take(LINES) {
            writeln!(text, "  {}", line(entry)).expect("a string takes all text");
        }
        if let Some(more @ 1..) = of_kind.len().checked_sub(LINES) {
            text += &format!("  ... {more} more of {kind}: -o json has all\n");
        }
    }
    text
}

fn line(Entry { what, times }: &Entry) -> String {
    let mut text = format!("{:<8} {} -> {} {}", what.event, what.from, what.to, what.service);
    if let Some(reason) = &what.reason {
        text += &format!(": {reason}");
    }
    for (side, half) in [("egress", &what.egress), ("ingress", &what.ingress)] {
        let Some(half) = half else { continue };
        text += &format!(", {side} {}", half.verdict);
        if let Some(response) = &half.response {
            text += &format!(" with {response}");
        }
        if !half.policies.is_empty() {
            text += &format!(" by {}", half.policies.join(", "));
        }
        if !half.log.is_empty() {
            text += &format!(" (log: {})", half.log.join(", "));
        }
    }
    if *times > 1 {
        text += &format!(" (x{times})");
    }
    text
}

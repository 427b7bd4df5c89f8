//! What came of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use serde::Serialize;

use super::{
    load::{Cause, Record},
    stage::NAMES,
};
use crate::table::table;

/// A step, by its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) name: &'static str,
}

/// The whole result.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    steps: Vec<Row>,
    connections: Connections,
    /// Failed requests that weren't the killed backend's.
    failed: usize,
}

/// What happened in a step.
#[derive(Debug, Serialize)]
struct Row {
    step: &'static str,
    requests: usize,
    /// By who answered.
    answered: BTreeMap<String, usize>,
    /// Requests that the killed backend had, or would have had until it was taken out.
    of_the_killed: usize,
    /// All other failed requests, by cause.
    failed: BTreeMap<Cause, usize>,
}

/// Connections that last.
#[derive(Debug, Default, Serialize)]
struct Connections {
    opened: usize,
    kept: usize,
    /// Those that ended with the killed backend.
    of_the_killed: usize,
    /// Those that ended otherwise, or came to another backend.
    broken: usize,
}

impl Report {
    /// Counts; steps come with the number of their first request.
    pub(super) fn new(
        steps: Vec<(Step, usize)>,
        records: Vec<Record>,
        (killed, taken_out): (&str, Option<Instant>),
    ) -> Self {
        let starts: Vec<usize> = steps.iter().map(|(_, first)| *first).collect();
        let ends = starts.iter().skip(1).copied().chain([records.len()]);
        let killing = steps.iter().position(|(step, _)| step.name == "one is killed");
        let since = killing.map(|at| starts[at]);
        let is_of_killed = |at: usize, record: &Record| match (&record.backend, taken_out) {
            (Some(backend), _) => backend == killed,
            (None, Some(out)) => since.is_some_and(|since| at >= since) && record.begun < out,
            (None, None) => false,
        };
        let row = |((step, first), end): (&(Step, usize), usize)| {
            let mut row = Row::new(step.name, end - first);
            for (at, record) in (*first..end).zip(&records[*first..end]) {
                row.count(record, is_of_killed(at, record));
            }
            row
        };
        let rows: Vec<Row> = steps.iter().zip(ends).map(row).collect();
        let failed = rows.iter().flat_map(|row| row.failed.values()).sum();
        Self { steps: rows, connections: Connections::new(&records, killed), failed }
    }

    pub(super) fn is_good(&self) -> bool {
        self.failed == 0 && self.connections.broken == 0
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }

    pub(super) fn text(&self) -> String {
        let mut header = vec!["step", "requests"];
        header.extend(NAMES);
        header.extend(["killed's", "failed", "by cause"]);
        let row = |row: &Row| {
            let mut cells = vec![row.step.to_owned(), row.requests.to_string()];
            let answered = |name| row.answered.get(name).copied().unwrap_or_default();
            cells.extend(NAMES.map(|name| answered(name).to_string()));
            let causes = row.failed.iter().map(|(cause, count)| format!("{cause:?} {count}"));
            let causes: BTreeSet<String> = causes.collect();
            cells.push(row.of_the_killed.to_string());
            cells.push(row.failed.values().sum::<usize>().to_string());
            cells.push(causes.into_iter().collect::<Vec<_>>().join(", "));
            cells
        };
        let Connections { opened, kept, of_the_killed, broken } = self.connections;
        format!(
            "{}\nlasting connections: {opened} opened, {kept} kept, {of_the_killed} ended with the killed backend, \
             {broken} broken or moved\n{}\n",
            table(&header, self.steps.iter().map(row)),
            if self.is_good() { "no other request failed" } else { "REQUESTS FAILED" }
        )
    }
}

impl Row {
    fn new(step: &'static str, requests: usize) -> Self {
        Self {
            step,
            requests,
            answered: BTreeMap::new(),
            of_the_killed: 0,
            failed: BTreeMap::new(),
        }
    }

    fn count(&mut self, record: &Record, is_of_killed: bool) {
        match (record.failed, &record.backend) {
            (None, Some(backend)) => *self.answered.entry(backend.clone()).or_default() += 1,
            (None, None) => {}
            (Some(Cause::Moved), _) => *self.failed.entry(Cause::Moved).or_default() += 1,
            (Some(_), _) if is_of_killed => self.of_the_killed += 1,
            (Some(cause), _) => *self.failed.entry(cause).or_default() += 1,
        }
    }
}

impl Connections {
    fn new(records: &[Record], killed: &str) -> Self {
        let lasting = || records.iter().filter(|record| record.lasting);
        let ended = || lasting().filter(|record| record.failed.is_some());
        let of_killed = |record: &&Record| {
            record.backend.as_deref() == Some(killed) && record.failed != Some(Cause::Moved)
        };
        let of_the_killed = ended().filter(of_killed).count();
        let broken = ended().count() - of_the_killed;
        let opened = super::load::LONG;
        Self { opened, kept: opened - ended().count(), of_the_killed, broken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn record(
        begun: Instant,
        lasting: bool,
        backend: Option<&str>,
        failed: Option<Cause>,
    ) -> Record {
        Record { begun, lasting, backend: backend.map(str::to_owned), failed }
    }

    fn report(records: Vec<Record>, out: Instant) -> Report {
        let steps = ["three backends", "one is killed", "one is drained"];
        let steps = steps.into_iter().zip([0, 1, 3]).map(|(name, first)| (Step { name }, first));
        Report::new(steps.collect(), records, ("a", Some(out)))
    }

    #[test]
    fn only_the_killed_backends_requests_may_fail() {
        let start = Instant::now();
        let out = start + Duration::from_secs(1);
        let good = || record(start, false, Some("b"), None);
        let refused = |begun| record(begun, false, None, Some(Cause::Refused));
        let cut = |backend| record(start, true, Some(backend), Some(Cause::Reset));
        assert!(report(vec![good(), refused(start), cut("a"), good()], out).is_good());
        for bad in [
            vec![refused(start), good(), good(), good()],
            vec![good(), good(), good(), refused(out)],
            vec![good(), cut("b"), good(), good()],
            vec![good(), record(start, true, Some("a"), Some(Cause::Moved)), good(), good()],
        ] {
            let report = report(bad, out);
            assert!(!report.is_good(), "{}", report.text());
            assert!(report.text().contains("REQUESTS FAILED"));
        }
    }

    #[test]
    fn requests_are_counted_in_their_steps() {
        let start = Instant::now();
        let good = |name| record(start, false, Some(name), None);
        let report = report(vec![good("a"), good("b"), good("b"), good("c")], start);
        let row: Vec<String> =
            report.text().lines().nth(2).unwrap().split_whitespace().map(Into::into).collect();
        assert_eq!(row, ["one", "is", "killed", "2", "0", "2", "0", "0", "0", "0"]);
    }
}

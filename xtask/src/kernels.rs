//! `cargo xtask kernels`: the kernel tests on other kernels, and on the running one.
//!
//! [`crate::ask`] has each kernel say what its verifier thinks of the programs, and compare a corpus with the
//! host and the oracle, with the JIT compiler as it is and hardened. [`crate::findings`] judges what they
//! said, [`crate::table`] prints it. The corpus is smaller than elsewhere, because emulation is slow.

use std::process::ExitCode;
use std::str::FromStr;

use crate::ask;
use crate::budget::Budget;
use crate::error::{self, Error};
use crate::findings::{Finding, Terms};
use crate::line::{Line, NotALine};
use crate::table::{self, Row};
use crate::tree;

/// The lines that are promised, and those that are reported as far as they go.
const PROMISED: [Line; 2] = [Line::new(6, 1), Line::new(6, 12)];
const FURTHER: Line = Line::new(5, 10);

/// Which kernels, and what to do with what they say.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Versions such as 6.1, `newest` for Debian's newest, `running` for this machine's; all if none is
    /// named
    kernels: Vec<Wanted>,
    /// Record what programs cost and how far each kernel goes, instead of comparing with the record
    #[arg(long)]
    record: bool,
    /// Cases of the corpus for each kernel
    #[arg(long, default_value_t = 3000)]
    pub(crate) corpus: u32,
    /// Seconds that one kernel may take
    #[arg(long, default_value_t = 2700)]
    pub(crate) timeout: u64,
    /// Harden the running kernel's JIT compiler, too, while the tests run: a setting of the whole machine
    #[arg(long)]
    pub(crate) harden_running: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kernels: Vec::new(),
            record: false,
            corpus: 3000,
            timeout: 2700,
            harden_running: false,
        }
    }
}

/// A kernel that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Line(Line),
    Newest,
    Running,
}

impl FromStr for Wanted {
    type Err = NotALine;

    fn from_str(text: &str) -> Result<Self, NotALine> {
        match text {
            "newest" => Ok(Self::Newest),
            "running" => Ok(Self::Running),
            line => line.parse().map(Self::Line),
        }
    }
}

impl Wanted {
    fn all() -> Vec<Self> {
        let promised = PROMISED.map(Self::Line).into_iter();
        promised.chain([Self::Running, Self::Line(FURTHER), Self::Newest]).collect()
    }

    /// As it is named on the command line.
    pub(crate) fn shown(self) -> String {
        match self {
            Self::Line(line) => line.to_string(),
            Self::Newest => "newest".to_owned(),
            Self::Running => "running".to_owned(),
        }
    }

    /// Whether all kernel tests run there; the others compare the corpora alone. On the running kernel the
    /// lane `kernel` runs them.
    pub(crate) fn runs_every_test(self) -> bool {
        matches!(self, Self::Line(line) if PROMISED.contains(&line))
    }

    /// Whether an embedder runs there too, which takes a minute: on one kernel, because what differs between kernels is the
    /// datapath's.
    pub(crate) fn runs_the_embedder(self) -> bool {
        self == Self::Line(PROMISED[1])
    }

    /// What is asked of it. The running kernel's figures depend on the machine, so they may be missing from
    /// the record.
    pub(crate) fn terms(self, line: Line) -> Terms {
        let promised = match self {
            Self::Line(line) => PROMISED.contains(&line),
            Self::Running => line >= PROMISED[0],
            Self::Newest => false,
        };
        Terms { promised, recorded: promised && self != Self::Running }
    }
}

/// Runs the matrix and prints it.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Error> {
    matrix(options).map(|_skipped| ExitCode::SUCCESS)
}

/// The matrix as CI runs it; names the kernels that were skipped.
pub(crate) fn run_all() -> Result<Vec<String>, Error> {
    matrix(&Options::default())
}

fn matrix(options: &Options) -> Result<Vec<String>, Error> {
    let wanted = match options.kernels.as_slice() {
        [] => Wanted::all(),
        some => some.to_vec(),
    };
    let mut rows = ask::rows(&wanted, options)?;
    let mut budget = Budget::read(&Budget::place())?;
    if options.record {
        record(&rows, &mut budget)?;
    }
    for row in &mut rows {
        judge(row, &budget);
    }
    println!("\n{}", table::matrix(&rows));
    println!("{}", table::figures(&rows, &budget));
    outcome(&rows)
}

/// Takes over what was seen. A line that two kernels are of is recorded from the first.
fn record(rows: &[Row], budget: &mut Budget) -> Result<(), Error> {
    let mut recorded = Vec::new();
    for seen in rows.iter().filter_map(|row| row.seen.as_ref().ok()) {
        if let Some(expected) = seen.expected()
            && !recorded.contains(&seen.line)
        {
            recorded.push(seen.line);
            budget.lines.insert(seen.line, expected);
        }
    }
    tree::write(&Budget::place(), budget.to_text()?.as_bytes())
}

fn judge(row: &mut Row, budget: &Budget) {
    let Ok(seen) = &row.seen else { return };
    let terms = row.wanted.terms(seen.line);
    row.findings = seen.findings(budget.lines.get(&seen.line), terms);
    if seen.line < PROMISED[0] {
        let text = format!("before {}: opens by `Builder::minimum_kernel` alone", PROMISED[0]);
        row.findings.push(Finding::Note(text));
    }
}

/// Says what was skipped; fails if a kernel failed, or if none could be asked.
fn outcome(rows: &[Row]) -> Result<Vec<String>, Error> {
    let mut skipped = Vec::new();
    for row in rows {
        match &row.seen {
            Err(error) if error.is_absence() => skipped.push(row.wanted.shown()),
            Err(error) => eprintln!("{}: {}", row.kernel, error::chain(error)),
            Ok(_) => {}
        }
    }
    let count = rows.iter().filter(|row| row.failed()).count();
    match (count, skipped.len() == rows.len()) {
        (0, false) => Ok(skipped),
        (0, true) => Err(Error::NoKernels { kernels: skipped }),
        _ => Err(Error::Some { count, total: rows.len(), what: "kernels" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_named_by_line_or_by_what_they_are() {
        assert_eq!("6.1".parse::<Wanted>().unwrap(), Wanted::Line(Line::new(6, 1)));
        assert_eq!("newest".parse::<Wanted>().unwrap(), Wanted::Newest);
        assert!("latest".parse::<Wanted>().is_err());
    }

    #[test]
    fn what_is_asked_depends_on_the_kernel() {
        let terms =
            |wanted: Wanted, line| (wanted.terms(line).promised, wanted.terms(line).recorded);
        let [old, new] = PROMISED;
        assert_eq!(terms(Wanted::Line(old), old), (true, true));
        assert_eq!(terms(Wanted::Running, new), (true, false));
        assert_eq!(terms(Wanted::Running, FURTHER), (false, false));
        assert_eq!(terms(Wanted::Line(FURTHER), FURTHER), (false, false));
        assert_eq!(terms(Wanted::Newest, Line::new(9, 0)), (false, false));
    }
}

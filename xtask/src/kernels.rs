//! `cargo xtask kernels`: the kernel tests on other kernels, and on the running one.
//!
//! A kernel of Debian's boots in a virtual machine with the test executables in its initramfs; the running one
//! is asked in namespaces. Each says what its verifier thinks of the programs, and compares a corpus with the
//! host and the oracle, with the JIT compiler as it is and hardened. [`crate::findings`] judges what they
//! said, [`crate::table`] prints it. The corpus is smaller than elsewhere, because emulation is slow.

use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::error::{self, Error};
use crate::findings::{Finding, Seen, Terms};
use crate::guest::{self, Job};
use crate::kernel_image::{KernelImage, KernelImages};
use crate::line::{Line, NotALine};
use crate::machine::{Finished, QEMU};
use crate::namespaces;
use crate::privileges;
use crate::process;
use crate::said;
use crate::setting::{self, Changed};
use crate::setup::VM_SETUP;
use crate::table::{self, Row};
use crate::test_binary::{TestBinary, TestTarget};
use crate::tree;

/// The lines that are promised, and those that are reported as far as they go.
const PROMISED: [Line; 2] = [Line::new(6, 1), Line::new(6, 12)];
const FURTHER: Line = Line::new(5, 10);
/// The comparison of oracle, host and kernel, alone.
const COMPARISON: &str = "oracle_host_and_kernel_agree";
/// Virtual machines at a time: each keeps one CPU busy.
const MACHINES: usize = 2;

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
    corpus: u32,
    /// Seconds that one kernel may take
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Harden the running kernel's JIT compiler, too, while the tests run: a setting of the whole machine
    #[arg(long)]
    harden_running: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kernels: Vec::new(),
            record: false,
            corpus: 3000,
            timeout: 600,
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

    fn shown(self) -> String {
        match self {
            Self::Line(line) => line.to_string(),
            Self::Newest => "newest".to_owned(),
            Self::Running => "running".to_owned(),
        }
    }

    /// The running kernel's figures depend on the machine, so they may be missing from the record.
    fn terms(self, line: Line) -> Terms {
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
    let tests = Tests::build()?;
    let mut rows = in_machines(&wanted, &tests, options);
    if wanted.contains(&Wanted::Running) {
        rows.push(row(Wanted::Running, || running(&tests, options)));
    }
    rows.sort_by_key(|row| wanted.iter().position(|wanted| *wanted == row.wanted));
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

/// The test executables.
struct Tests {
    verifier: TestBinary,
    kernel: TestBinary,
}

impl Tests {
    fn build() -> Result<Self, Error> {
        Ok(Self {
            verifier: TestTarget::verifier().build()?,
            kernel: TestTarget::kernel().build()?,
        })
    }

    /// The verifier's word, and the corpus as it is and hardened. All of the kernel tests run once on the
    /// kernels that are promised.
    fn jobs(&self, promised: bool) -> [Job; 3] {
        let job = |test: &TestBinary, filter: &[&str], hardened| Job {
            executable: test.executable.clone(),
            arguments: [&["--test-threads=1", "--show-output"], filter]
                .concat()
                .iter()
                .map(|a| (*a).to_owned())
                .collect(),
            hardened,
        };
        let comparison: &[&str] = &["--exact", COMPARISON];
        [
            job(&self.verifier, &[], false),
            job(&self.kernel, if promised { &[] } else { comparison }, false),
            job(&self.kernel, comparison, true),
        ]
    }
}

/// The rows of all kernels but the running one, some machines at a time.
fn in_machines(wanted: &[Wanted], tests: &Tests, options: &Options) -> Vec<Row> {
    let wanted = wanted.iter().copied().filter(|wanted| *wanted != Wanted::Running);
    let images = require_programs().map(|()| KernelImages::open());
    let image = |wanted| match (&images, wanted) {
        (Ok(images), Wanted::Line(line)) => images.newest(Some(line)),
        (Ok(images), _) => images.newest(None),
        (Err(program), _) => Err(Error::MissingProgram { program, hint: VM_SETUP }),
    };
    let images: Vec<_> = wanted.map(|wanted| (wanted, image(wanted))).collect();
    let queue = Mutex::new(images.into_iter());
    let rows = Mutex::new(Vec::new());
    let next = || queue.lock().ok()?.next();
    thread::scope(|scope| {
        for _ in 0..MACHINES {
            scope.spawn(|| {
                while let Some((wanted, image)) = next() {
                    let row = row(wanted, || in_machine(wanted, &image?, tests, options));
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
                }
            });
        }
    });
    rows.into_inner().unwrap_or_default()
}

/// The first program that a virtual machine needs and that isn't installed.
fn require_programs() -> Result<(), &'static str> {
    [QEMU, "busybox", "modprobe", "depmod", "xz", "zstd", "dpkg", "apt-get"]
        .into_iter()
        .find(|program| process::find(program).is_none())
        .map_or(Ok(()), Err)
}

fn row(wanted: Wanted, ask: impl FnOnce() -> Result<(String, Seen), Error>) -> Row {
    let begun = Instant::now();
    let (kernel, seen) = match ask() {
        Ok((release, seen)) => (release, Ok(seen)),
        Err(error) => (wanted.shown(), Err(error)),
    };
    Row { wanted, kernel, seen, findings: Vec::new(), took: begun.elapsed() }
}

fn in_machine(
    wanted: Wanted,
    image: &KernelImage,
    tests: &Tests,
    options: &Options,
) -> Result<(String, Seen), Error> {
    let line = line_of(&image.release)?;
    let jobs = tests.jobs(wanted.terms(line).promised);
    let limit = Duration::from_secs(options.timeout);
    let said = guest::run(image, &jobs, options.corpus, limit)?;
    let [verifier, corpus, hardened] = said.as_slice() else {
        let tail = format!("{} of {} programs ended", said.len(), jobs.len());
        return Err(Error::Machine { timed_out: false, tail });
    };
    Ok((image.release.clone(), seen(line, verifier, corpus, Some(hardened))))
}

fn running(tests: &Tests, options: &Options) -> Result<(String, Seen), Error> {
    privileges::require()?;
    let release = tree::read_text(Path::new("/proc/sys/kernel/osrelease"))?.trim().to_owned();
    let line = line_of(&release)?;
    let [verifier, corpus, hardened] = tests.jobs(false);
    let hear = |test, job: &Job| namespaces::hear(test, &job.arguments, options.corpus);
    let verifier = hear(&tests.verifier, &verifier)?;
    let corpus = hear(&tests.kernel, &corpus)?;
    let hardened = match options.harden_running {
        true => {
            let _until_the_end = Changed::to(Path::new(setting::HARDENING), "2")?;
            Some(hear(&tests.kernel, &hardened)?)
        }
        false => None,
    };
    Ok((release, seen(line, &verifier, &corpus, hardened.as_ref())))
}

fn line_of(release: &str) -> Result<Line, Error> {
    Line::of_release(release).ok_or_else(|| Error::Release { release: release.to_owned() })
}

fn seen(line: Line, verifier: &Finished, corpus: &Finished, hardened: Option<&Finished>) -> Seen {
    Seen {
        line,
        programs: said::programs(verifier),
        corpus: said::agreement(corpus),
        hardened: hardened.map(said::agreement),
    }
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

//! `cargo xtask ci`: the lanes of CI. Each can be called alone; one that fails doesn't stop the others.
//!
//! A lane that can't run here says why in one line and counts as skipped: it never passes silently. The
//! last line of the output counts lanes and is there for machines to read.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::error::{self, Error};
use crate::kernels;
use crate::namespaces;
use crate::packaged;
use crate::privileges;
use crate::process;
use crate::test_binary;
use crate::tree;
use crate::verify;

/// The test that replays the fuzz targets' inputs.
const CORPORA: &str = "corpora";

/// A lane, cheap ones first: that is the order in which `cargo xtask ci` runs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lane {
    /// rustfmt on every package
    Fmt,
    /// The manifest's hashes against sources and object: no toolchain for eBPF needed
    Manifest,
    /// clippy on every target, warnings denied
    Clippy,
    /// Unit, property and integration tests that need no privileges
    Test,
    /// Doctests, and the documentation with warnings denied
    Doc,
    /// Tests of the real eBPF programs in the running kernel
    Kernel,
    /// The quickstart: real sockets in network namespaces
    E2e,
    /// The objects rebuilt and compared with those shipped
    Prebuilt,
    /// The quickstart built from packaged crates, outside of this workspace
    Packaged,
    /// The kernel tests on other kernels, in virtual machines; the verifier's budget
    Kernels,
    /// The corpora of the fuzz targets, replayed
    Fuzz,
}

impl Lane {
    fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self)
            .map_or_else(String::new, |v| v.get_name().to_owned())
    }

    fn run(self) -> Result<Outcome, Error> {
        match self {
            Self::Fmt => fmt(),
            Self::Manifest => verify::hashes(),
            Self::Clippy => clippy(),
            Self::Test => test(),
            Self::Doc => doc(),
            Self::Kernel => return kernel(),
            Self::E2e => e2e(),
            Self::Prebuilt => verify::run(),
            Self::Packaged => packaged::run(),
            Self::Kernels => return kernels(),
            Self::Fuzz => fuzz(),
        }
        .map(|()| Outcome::Passed(String::new()))
    }
}

/// How a lane ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// With a note for the summary, or none.
    Passed(String),
    Failed(Error),
    /// It can't run here, for this reason.
    Skipped(String),
    /// There is nothing to run: counted nowhere.
    Empty(String),
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::Passed(_) => "passed",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "skipped",
            Self::Empty(_) => "empty",
        }
    }

    fn note(&self) -> String {
        match self {
            Self::Failed(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
            Self::Passed(note) | Self::Skipped(note) | Self::Empty(note) => note.clone(),
        }
    }
}

struct Row {
    lane: Lane,
    outcome: Outcome,
    took: Duration,
}

/// Runs the lanes named, or all, and prints the summary.
pub(crate) fn run(lanes: &[Lane]) -> ExitCode {
    let all = <Lane as clap::ValueEnum>::value_variants();
    let lanes = if lanes.is_empty() { all } else { lanes };
    let rows: Vec<Row> = lanes.iter().map(|lane| run_one(*lane)).collect();
    summary(&rows)
}

fn run_one(lane: Lane) -> Row {
    eprintln!("\n=== {} ===", lane.name());
    let begun = Instant::now();
    let outcome = lane.run().unwrap_or_else(|error| match error.is_absence() {
        true => Outcome::Skipped(error.to_string()),
        false => Outcome::Failed(error),
    });
    match &outcome {
        Outcome::Passed(_) => {}
        Outcome::Failed(error) => eprintln!("{}", error::chain(error)),
        Outcome::Skipped(reason) => println!("SKIPPED {}: {reason}", lane.name()),
        Outcome::Empty(reason) => println!("EMPTY {}: {reason}", lane.name()),
    }
    let took = begun.elapsed();
    eprintln!("=== {}: {} after {:.1} s ===", lane.name(), outcome.word(), took.as_secs_f32());
    Row { lane, outcome, took }
}

fn summary(rows: &[Row]) -> ExitCode {
    println!("\n{:<10} {:<8} {:>8}  note", "lane", "result", "seconds");
    for Row { lane, outcome, took } in rows {
        let line = format!(
            "{:<10} {:<8} {:>8.1}  {}",
            lane.name(),
            outcome.word(),
            took.as_secs_f32(),
            outcome.note()
        );
        println!("{}", line.trim_end());
    }
    let count =
        |wanted: fn(&Outcome) -> bool| rows.iter().filter(|row| wanted(&row.outcome)).count();
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    println!(
        "{} passed, {failed} failed, {} skipped",
        count(|outcome| matches!(outcome, Outcome::Passed(_))),
        count(|outcome| matches!(outcome, Outcome::Skipped(_)))
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fmt() -> Result<(), Error> {
    process::run(process::cargo().args(["fmt", "--all", "--check"]))?;
    let programs = tree::PRODUCTS.map(|product| product.programs);
    for package in programs {
        let manifest = tree::root().join(package).join("Cargo.toml");
        process::run(process::cargo().args(["fmt", "--check", "--manifest-path"]).arg(manifest))?;
    }
    Ok(())
}

fn clippy() -> Result<(), Error> {
    process::run(
        process::cargo()
            .args(["clippy", "--locked", "--workspace", "--all-targets"])
            .args(["--", "-D", "warnings"]),
    )
}

/// Everything but doctests (lane doc), privileged tests (lane kernel) and corpora (lane fuzz).
///
/// One call of cargo for the whole workspace: packages tested apart would be built apart, each with the
/// features that it alone asks for.
fn test() -> Result<(), Error> {
    let mut command = process::cargo();
    command.args(["test", "--locked", "--workspace", "--no-fail-fast"]);
    command.args(["--lib", "--bins", "--examples"]);
    let others = test_binary::targets()?.others;
    others.iter().filter(|test| *test != CORPORA).for_each(|test| {
        command.args(["--test", test]);
    });
    process::run(&mut command)
}

fn fuzz() -> Result<(), Error> {
    process::run(process::cargo().args(["test", "--locked", "--workspace", "--test", CORPORA]))
}

fn doc() -> Result<(), Error> {
    process::run(process::cargo().args(["test", "--locked", "--workspace", "--doc"]))?;
    process::run(
        process::cargo()
            .args(["doc", "--locked", "--workspace", "--no-deps", "--lib"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

fn kernel() -> Result<Outcome, Error> {
    privileges::require()?;
    let targets = test_binary::targets()?.privileged;
    if targets.is_empty() {
        return Ok(Outcome::Empty("no test target is called kernel* or netns*".to_owned()));
    }
    let mut skipped = 0;
    for target in targets {
        println!("{} --test {}", target.package, target.test);
        skipped += namespaces::run(&target.build()?, None)?;
    }
    Ok(Outcome::Passed(match skipped {
        0 => String::new(),
        count => format!("{count} tests said SKIPPED"),
    }))
}

fn kernels() -> Result<Outcome, Error> {
    let skipped = kernels::run_all()?;
    Ok(Outcome::Passed(match skipped.as_slice() {
        [] => String::new(),
        skipped => format!("SKIPPED: {}", skipped.join(", ")),
    }))
}

fn e2e() -> Result<(), Error> {
    privileges::require()?;
    process::run(process::cargo().args([
        "run",
        "--locked",
        "--release",
        "-p",
        "flowgate-example-quickstart",
    ]))
}

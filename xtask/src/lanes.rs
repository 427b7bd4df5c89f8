//! `cargo xtask ci`: the lanes of CI. Each can be called alone; one that fails doesn't stop the others.
//!
//! A lane that can't run here says why in one line and counts as skipped: it never passes silently. The
//! last line of the output counts lanes and is there for machines to read.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::error::{self, Error};
use crate::kernels;
use crate::packaged;
use crate::process;
use crate::test_binary::{self, TestBinary, TestTarget, TestTargets};
use crate::toolchain::Toolchain;
use crate::tree;
use crate::verify;

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
    /// The kernel tests on other kernels, in virtual machines
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
            Self::Manifest => verify::hashes().map(|()| Outcome::Passed),
            Self::Clippy => clippy(),
            Self::Test => test(),
            Self::Doc => doc(),
            Self::Kernel => kernel(),
            Self::E2e => e2e(),
            Self::Prebuilt => prebuilt(),
            Self::Packaged => packaged::run().map(|()| Outcome::Passed),
            Self::Kernels => matrix(),
            Self::Fuzz => crate::fuzz::replay(),
        }
    }
}

/// How a lane ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    Failed(Error),
    /// It can't run here, for this reason.
    Skipped(String),
    /// There is nothing to run: counted nowhere.
    Empty(String),
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "skipped",
            Self::Empty(_) => "empty",
        }
    }

    fn note(&self) -> String {
        match self {
            Self::Passed => String::new(),
            Self::Failed(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
            Self::Skipped(reason) | Self::Empty(reason) => reason.clone(),
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
    let outcome = lane.run().unwrap_or_else(Outcome::Failed);
    match &outcome {
        Outcome::Passed => {}
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
        count(|outcome| matches!(outcome, Outcome::Passed)),
        count(|outcome| matches!(outcome, Outcome::Skipped(_)))
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fmt() -> Result<Outcome, Error> {
    process::run(process::cargo().args(["fmt", "--all", "--check"]))?;
    for package in [tree::PROGRAMS, "fuzz"] {
        let manifest = tree::root().join(package).join("Cargo.toml");
        if manifest.is_file() {
            process::run(
                process::cargo().args(["fmt", "--check", "--manifest-path"]).arg(manifest),
            )?;
        }
    }
    Ok(Outcome::Passed)
}

fn clippy() -> Result<Outcome, Error> {
    process::run(
        process::cargo()
            .args(["clippy", "--locked", "--workspace", "--all-targets"])
            .args(["--", "-D", "warnings"]),
    )?;
    Ok(Outcome::Passed)
}

/// Everything but doctests (lane doc) and privileged tests (lane kernel).
fn test() -> Result<Outcome, Error> {
    let TestTargets { privileged, beside } = test_binary::targets()?;
    let mut packages: Vec<&str> = privileged.iter().map(|t| t.package.as_str()).collect();
    packages.dedup();
    let mut rest = process::cargo();
    rest.args(["test", "--locked", "--workspace", "--lib", "--bins", "--tests", "--examples"]);
    packages.iter().for_each(|package| {
        rest.args(["--exclude", package]);
    });
    process::run(&mut rest)?;
    packages.into_iter().try_for_each(|package| test_beside(package, &beside))?;
    Ok(Outcome::Passed)
}

/// The tests of a package that also has privileged ones.
fn test_beside(package: &str, beside: &[TestTarget]) -> Result<(), Error> {
    let mut command = process::cargo();
    command.args(["test", "--locked", "-p", package, "--lib", "--bins"]);
    beside.iter().filter(|target| target.package == package).for_each(|target| {
        command.args(["--test", &target.test]);
    });
    process::run(&mut command)
}

fn doc() -> Result<Outcome, Error> {
    process::run(process::cargo().args(["test", "--locked", "--workspace", "--doc"]))?;
    process::run(
        process::cargo()
            .args(["doc", "--locked", "--workspace", "--no-deps", "--lib"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    Ok(Outcome::Passed)
}

fn kernel() -> Result<Outcome, Error> {
    if let Some(reason) = crate::privileges::missing() {
        return Ok(Outcome::Skipped(reason));
    }
    let targets = test_binary::targets()?.privileged;
    if targets.is_empty() {
        return Ok(Outcome::Empty("no test target is called kernel* or netns*".to_owned()));
    }
    for target in targets {
        process::run(&mut in_namespaces(&target.build()?))?;
    }
    Ok(Outcome::Passed)
}

/// The test in network and mount namespaces of its own, with a bpffs of its own.
fn in_namespaces(test: &TestBinary) -> Command {
    const INIT: &str = "mount -t bpf bpf /sys/fs/bpf && ip link set lo up && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--", "sh", "-c", INIT, "sh"])
        .arg(&test.executable)
        .arg("--nocapture")
        .current_dir(&test.directory)
        .env("CARGO_MANIFEST_DIR", &test.directory);
    command
}

fn e2e() -> Result<Outcome, Error> {
    if let Some(reason) = crate::privileges::missing() {
        return Ok(Outcome::Skipped(reason));
    }
    process::run(process::cargo().args([
        "run",
        "--locked",
        "--release",
        "-p",
        "flowgate-example-quickstart",
    ]))?;
    Ok(Outcome::Passed)
}

fn prebuilt() -> Result<Outcome, Error> {
    match Toolchain::find(None) {
        Ok(_) => verify::run().map(|()| Outcome::Passed),
        Err(missing) => Ok(Outcome::Skipped(missing.to_string())),
    }
}

fn matrix() -> Result<Outcome, Error> {
    match kernels::missing_program() {
        Some(error) => Ok(Outcome::Skipped(error.to_string())),
        None => kernels::run_matrix(&[]).map(|()| Outcome::Passed),
    }
}

//! `cargo xtask fuzz`: each target for some minutes, one after the other, and then what of the code
//! the corpora reach.
//!
//! libFuzzer comes with the crate `libfuzzer-sys`, and what it needs of the compiler is in stable
//! Rust: neither nightly nor cargo-fuzz takes part. Without a sanitizer, that is; where all code is
//! safe, a panic, an overflow or a failed assertion is what there is to find.
//!
//! New inputs go into `fuzz/corpus` of the target directory and serve the next run; `--merge` takes
//! those that reach anything new over into the tree.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::coverage;
use crate::error::Error;
use crate::fuzz::{self, Build, Target};
use crate::process;
use crate::tree;

/// Instrumented as cargo-fuzz does it: counters at edges, comparisons traced.
const INSTRUMENTED: Build = Build {
    directory: "fuzz/instrumented",
    flags: &[
        "--cfg=fuzzing",
        "-Cpasses=sancov-module",
        "-Cllvm-args=-sanitizer-coverage-level=4",
        "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
        "-Cllvm-args=-sanitizer-coverage-pc-table",
        "-Cllvm-args=-sanitizer-coverage-trace-compares",
        "-Ccodegen-units=1",
    ],
};
/// A target that fails ends; it is started again so often.
const FINDINGS: usize = 10;
/// The most inputs of a target that libFuzzer has found and the tree keeps.
const KEPT: usize = 150;
/// Seconds for one input, and MiB of memory.
const LIMITS: [&str; 2] = ["-timeout=30", "-rss_limit_mb=2048"];
/// The longest input that libFuzzer makes.
const MAX_LEN: &str = "-max_len=4096";

/// What to fuzz, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Minutes for each target; 0: only build
    #[arg(long, value_name = "N", default_value_t = 1)]
    minutes: u64,
    /// Afterwards, take over into the tree what of the new inputs reaches anything new
    #[arg(long)]
    merge: bool,
    /// Targets; all if none is named
    targets: Vec<String>,
}

/// Fuzzes, prints what came of it, and replays the corpora for their coverage.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Error> {
    let targets = chosen(&options.targets)?;
    let executables = INSTRUMENTED.executables(&targets)?;
    let time = Duration::from_secs(options.minutes * 60);
    let mut rows = Vec::new();
    for (target, executable) in targets.into_iter().zip(executables) {
        let session = Session::new(target, executable)?;
        rows.push(session.fuzz(time)?);
        if options.merge {
            session.merge()?;
        }
    }
    println!(
        "\n{:<12} {:>12} {:>8} {:>8} {:>9}  corpus",
        "target", "executions", "per s", "new", "findings"
    );
    rows.iter().for_each(Row::print);
    coverage::report_or_skip()?;
    match rows.iter().map(|row| row.findings.len()).sum() {
        0 => Ok(ExitCode::SUCCESS),
        count => Err(Error::Findings { count }),
    }
}

fn chosen(names: &[String]) -> Result<Vec<Target>, Error> {
    let all = fuzz::targets()?;
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|t| t.name == **name)) {
        let known = all.iter().map(|target| target.name.clone()).collect();
        return Err(Error::NoTarget { name: unknown.clone(), known });
    }
    Ok(all.into_iter().filter(|t| names.is_empty() || names.contains(&t.name)).collect())
}

/// A target with its directories.
struct Session {
    target: Target,
    executable: PathBuf,
    /// Inputs found so far, by this and earlier runs.
    corpus: PathBuf,
    findings: PathBuf,
    log: PathBuf,
}

/// What came of fuzzing a target.
struct Row {
    name: String,
    executions: u64,
    took: Duration,
    new: usize,
    corpus: usize,
    findings: Vec<PathBuf>,
}

impl Row {
    fn print(&self) {
        let Self { name, executions, took, new, corpus, findings } = self;
        let rate = *executions as f64 / took.as_secs_f64().max(1.0);
        println!(
            "{name:<12} {executions:>12} {rate:>8.0} {new:>8} {:>9}  {corpus}",
            findings.len()
        );
        findings.iter().for_each(|finding| println!("  found: {}", finding.display()));
    }
}

impl Session {
    fn new(target: Target, executable: PathBuf) -> Result<Self, Error> {
        let of = |kind: &str| tree::target().join("fuzz").join(kind).join(&target.name);
        let (corpus, findings) = (of("corpus"), of("findings"));
        let log = of("logs").with_extension("log");
        for directory in [&corpus, &findings, &log.with_file_name("")] {
            make(directory)?;
        }
        Ok(Self { executable, corpus, findings, log, target })
    }

    /// Runs until the time is over, starting again after each finding.
    fn fuzz(&self, time: Duration) -> Result<Row, Error> {
        let begun = Instant::now();
        let (found, known) = (fuzz::inputs_in(&self.findings)?, self.corpus_size()?);
        let (mut executions, mut starts) = (0, 0);
        while begun.elapsed() + Duration::from_secs(1) < time && starts < FINDINGS {
            executions += self.once(time.saturating_sub(begun.elapsed()))?;
            starts += 1;
        }
        let mut findings = fuzz::inputs_in(&self.findings)?;
        findings.retain(|finding| !found.contains(finding));
        Ok(Row {
            name: self.target.name.clone(),
            executions,
            took: begun.elapsed(),
            // Inputs are replaced by shorter ones that reach the same.
            new: self.corpus_size()?.saturating_sub(known),
            corpus: self.corpus_size()?,
            findings,
        })
    }

    fn corpus_size(&self) -> Result<usize, Error> {
        Ok(fuzz::inputs_in(&self.corpus)?.len() + fuzz::inputs_in(&self.target.corpus())?.len())
    }

    /// One process of the target; returns how often it ran.
    fn once(&self, time: Duration) -> Result<u64, Error> {
        let mut command = Command::new(&self.executable);
        command.args([format!("-max_total_time={}", time.as_secs().max(1)), self.prefix()]);
        command.args(LIMITS).args([MAX_LEN, "-print_final_stats=1"]);
        command.arg(&self.corpus).arg(self.target.corpus());
        self.logged(&mut command)?;
        let text = tree::read(&self.log)?;
        let text = String::from_utf8_lossy(&text);
        let executions =
            text.lines().find_map(|l| l.strip_prefix("stat::number_of_executed_units:"));
        Ok(executions.and_then(|number| number.trim().parse().ok()).unwrap_or_default())
    }

    fn prefix(&self) -> String {
        format!("-artifact_prefix={}/", self.findings.display())
    }

    /// Takes over into the tree's corpus as few of the new inputs as reach everything that they reach.
    fn merge(&self) -> Result<(), Error> {
        let kept = self.target.corpus();
        make(&kept)?;
        let mut command = Command::new(&self.executable);
        command.args(["-set_cover_merge=1".to_owned(), self.prefix()]).args(LIMITS);
        command.arg(&kept).arg(&self.corpus);
        if !self.logged(&mut command)? {
            return Err(Error::Merge { log: self.log.clone() });
        }
        trim(&kept)?;
        println!("{}: {} inputs in the tree", self.target.name, fuzz::inputs_in(&kept)?.len());
        Ok(())
    }

    /// Runs a command with its output going into the log; whether it succeeded.
    fn logged(&self, command: &mut Command) -> Result<bool, Error> {
        let failed = |source| file_error("cannot be written", &self.log, source);
        let log = File::create(&self.log).map_err(failed)?;
        let copy = log.try_clone().map_err(failed)?;
        eprintln!("+ {} (log: {})", self.target.name, self.log.display());
        command.stdin(Stdio::null()).stdout(copy).stderr(log);
        let status = command.status().map_err(|source| process::start_error(command, source))?;
        Ok(status.success())
    }
}

/// Leaves the longest of the inputs that libFuzzer has named (by their hashes): one long input reaches
/// what many short ones do.
fn trim(corpus: &Path) -> Result<(), Error> {
    let mut found = Vec::new();
    for input in fuzz::inputs_in(corpus)? {
        let name = input.file_name().unwrap_or_default().to_string_lossy();
        if name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            found.push((tree::read(&input)?.len(), input));
        }
    }
    found.sort();
    let over = found.len().saturating_sub(KEPT);
    found.into_iter().take(over).try_for_each(|(_, input)| {
        fs::remove_file(&input).map_err(|source| file_error("cannot be removed", &input, source))
    })
}

fn make(directory: &Path) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(|source| file_error("cannot be made", directory, source))
}

fn file_error(doing: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { doing, path: path.to_owned(), source }
}

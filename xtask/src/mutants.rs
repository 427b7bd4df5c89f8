//! `cargo xtask mutants`: changes the code that decides, one place at a time, and asks whether a test notices.
//!
//! cargo-mutants makes the changes in a copy of the tree and runs the tests that hold the code. A change
//! that no test notices is a survivor; each is either met by a better test or named in `docs/mutants.md`, with
//! the reason why it makes no difference. A survivor that isn't named there fails the command.
//!
//! Each change is met by a few tests first, and by the rest only if these don't notice: a change takes
//! seconds. What it builds stays in `target/mutants/build`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::error::Error;
use crate::process;
use crate::tree;

/// Where survivors are named.
const REASONS: &str = "docs/mutants.md";
/// Ends of cargo-mutants that tell of mutants, not of a failure of its own: all caught, some missed, some
/// that ran too long.
const TOLD: [i32; 3] = [0, 2, 3];

/// What to change.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Parts of the code; all if none is named
    #[arg(value_enum, value_name = "PART")]
    parts: Vec<Part>,
    /// Only files with this name: `conntrack.rs`
    #[arg(long, value_name = "NAME")]
    file: Option<String>,
}

/// Code that decides, and the tests that hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Policies to tables
    Compile,
    /// The verdict and the flow table
    Pipeline,
}

impl Part {
    /// A directory's files, or files.
    const fn code(self) -> &'static [&'static str] {
        match self {
            Self::Compile => &["crates/policy/src/compile"],
            Self::Pipeline => &[
                "crates/pipeline/src/policy.rs",
                "crates/pipeline/src/hook/track.rs",
                "crates/pipeline/src/conntrack.rs",
            ],
        }
    }

    const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Compile => &["flowgate-policy"],
            Self::Pipeline => &["flowgate-pipeline", "flowgate-policy"],
        }
    }

    /// Those that notice most in the least time.
    const fn first(self) -> &'static [&'static str] {
        match self {
            Self::Compile => &["agreement"],
            Self::Pipeline => &["connections", "established", "flow_table", "meanwhile", "packets"],
        }
    }

    /// What else holds the code, beside the tests within it.
    const fn others(self) -> &'static [&'static str] {
        match self {
            Self::Compile => {
                &["advisories", "capacity", "diff", "narrow", "responses", "session", "trials"]
            }
            Self::Pipeline => &["agreement", "kill", "responses", "trials", "under_way"],
        }
    }
}

/// Changes the parts, and prints what no test noticed.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Error> {
    if process::find("cargo-mutants").is_none() {
        return Err(Error::NoMutants);
    }
    let all = <Part as clap::ValueEnum>::value_variants();
    let parts = if options.parts.is_empty() { all } else { &options.parts };
    let reasons = read(&tree::root().join(REASONS))?;
    let mut nameless = 0;
    let files = chosen(parts, options.file.as_deref())?;
    println!("{}", Tally::HEAD);
    for (part, file) in files {
        let tally = mutate(part, &file)?;
        println!("{}", tally.row(&file));
        for (survivor, count) in tally.survivors() {
            let more = count.saturating_sub(named(&reasons, &survivor));
            if more > 0 {
                println!("survived, and {REASONS} doesn't say why: {more} x {survivor}");
            }
            nameless += more;
        }
    }
    match nameless {
        0 => Ok(ExitCode::SUCCESS),
        count => Err(Error::Survivors { count }),
    }
}

/// The files of parts: all, or those of a name.
fn chosen(parts: &[Part], name: Option<&str>) -> Result<Vec<(Part, String)>, Error> {
    let mut chosen = Vec::new();
    for part in parts {
        chosen.extend(files(*part)?.into_iter().map(|file| (*part, file)));
    }
    let Some(name) = name else { return Ok(chosen) };
    chosen.retain(|(_, file)| Path::new(file).ends_with(name));
    if chosen.is_empty() {
        return Err(Error::NoSuchCode { name: name.to_owned() });
    }
    Ok(chosen)
}

/// The files of a part, without those that are tests.
fn files(part: Part) -> Result<Vec<String>, Error> {
    let mut files = Vec::new();
    for code in part.code() {
        let path = tree::root().join(code);
        if path.is_file() {
            files.push((*code).to_owned());
            continue;
        }
        let unread = |source| failed("cannot be read", &path, source);
        for entry in fs::read_dir(&path).map_err(unread)? {
            let name = entry.map_err(unread)?.file_name();
            files.push(format!("{code}/{}", name.to_string_lossy()));
        }
    }
    files.retain(|file| !file.ends_with("/tests.rs"));
    files.sort();
    Ok(files)
}

/// What became of a file's changes.
#[derive(Default)]
struct Tally {
    caught: usize,
    unviable: usize,
    late: usize,
    missed: Vec<String>,
}

impl Tally {
    const HEAD: &str = "| file | caught | missed | timed out | unviable |\n|---|---|---|---|---|";

    /// A row of the table in `docs/mutants.md`.
    fn row(&self, file: &str) -> String {
        let Self { caught, unviable, late, missed } = self;
        format!("| {file} | {caught} | {} | {late} | {unviable} |", missed.len())
    }

    /// Without their places in the file, and how many there are of each.
    fn survivors(&self) -> BTreeMap<String, usize> {
        let mut survivors = BTreeMap::new();
        for mutant in &self.missed {
            *survivors.entry(placeless(mutant)).or_default() += 1;
        }
        survivors
    }
}

/// Changes a file.
fn mutate(part: Part, file: &str) -> Result<Tally, Error> {
    let out = tree::target().join("mutants").join(file);
    fs::create_dir_all(&out).map_err(|source| failed("cannot be made", &out, source))?;
    let mut tally = Tally::default();
    for pass in [Pass::First, Pass::Rest] {
        meet(part, file, &out, pass)?;
        let list = |name| read(&out.join("mutants.out").join(name));
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        tally.caught += lines(list("caught.txt")?).len();
        tally.unviable += lines(list("unviable.txt")?).len();
        tally.late = lines(list("timeout.txt")?).len();
        tally.missed = lines(list("missed.txt")?);
        if tally.missed.is_empty() {
            break;
        }
    }
    Ok(tally)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Every change before the tests that notice most.
    First,
    /// What they haven't noticed before the rest.
    Rest,
}

/// Has a file's changes met by tests.
fn meet(part: Part, file: &str, out: &Path, pass: Pass) -> Result<(), Error> {
    let mut command = process::cargo();
    command
        .args(["mutants", "--no-shuffle", "--colors=never", "--file", file, "--output"])
        .arg(out);
    command.args(part.packages().iter().flat_map(|package| ["--test-package", package]));
    if pass == Pass::Rest {
        command.args(["--iterate", "--", "--lib"]);
        command.args(part.others().iter().flat_map(|test| ["--test", test]));
    } else {
        command.arg("--");
        command.args(part.first().iter().flat_map(|test| ["--test", test]));
    }
    sparing(&mut command);
    let ended = command.status().map_err(|source| process::start_error(&command, source))?;
    if !ended.code().is_some_and(|code| TOLD.contains(&code)) {
        return Err(Error::Failed { command: "cargo mutants".to_owned(), status: ended });
    }
    Ok(())
}

/// Builds again what a change touches and nothing else; a test that fails has said enough.
fn sparing(command: &mut Command) {
    command
        .env("CARGO_TARGET_DIR", tree::target().join("mutants/build"))
        .env("CARGO_INCREMENTAL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("PROPTEST_MAX_SHRINK_ITERS", "0");
}

/// `file:line:column: change` as `file: change`.
fn placeless(mutant: &str) -> String {
    let Some((place, change)) = mutant.split_once(": ") else { return mutant.to_owned() };
    let file = place.split(':').next().unwrap_or(place);
    format!("{file}: {change}")
}

/// How many survivors of a name have a reason: `` - `file: change`: why ``, or `` - `file: change` x 3: why ``.
fn named(reasons: &str, survivor: &str) -> usize {
    let marked = format!("- `{survivor}`");
    let rest = reasons.lines().filter_map(|line| line.strip_prefix(&marked)?.split_once(':'));
    rest.filter_map(|(times, _)| match times.strip_prefix(" x ") {
        Some(times) => times.parse().ok(),
        None => Some(1),
    })
    .sum()
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| failed("cannot be read", path, source))
}

fn failed(doing: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { doing, path: PathBuf::from(path), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survivor_is_known_wherever_it_moves_in_its_file() {
        let change = "replace rule -> Ruling with Default::default()";
        let moved = |line| placeless(&format!("crates/policy/src/x.rs:{line}:9: {change}"));
        assert_eq!(moved(7), format!("crates/policy/src/x.rs: {change}"));
        assert_eq!(moved(7), moved(41));
    }

    #[test]
    fn a_reason_counts_for_as_many_as_it_names() {
        let reasons = "- `a.rs: x in f`: same.\n- `a.rs: y in f` x 2: same: twice.\n- `a.rs: y in f`: a third.";
        assert_eq!(named(reasons, "a.rs: x in f"), 1);
        assert_eq!(named(reasons, "a.rs: y in f"), 3);
        assert_eq!(named(reasons, "a.rs: y in"), 0);
    }

    #[test]
    fn every_file_that_is_changed_and_every_test_is_there() {
        for part in <Part as clap::ValueEnum>::value_variants() {
            for code in part.code() {
                assert!(tree::root().join(code).exists(), "{code}");
            }
            for test in part.first().iter().chain(part.others()) {
                let tests = tree::root().join("crates/policy/tests");
                let there = tests.join(format!("{test}.rs")).exists() || tests.join(test).is_dir();
                assert!(there, "{test}");
            }
        }
    }

    #[test]
    fn a_file_is_chosen_by_its_name() {
        let all = <Part as clap::ValueEnum>::value_variants();
        let track = (Part::Pipeline, "crates/pipeline/src/hook/track.rs".to_owned());
        assert_eq!(chosen(all, Some("track.rs")).unwrap(), [track]);
        assert!(matches!(chosen(all, Some("rack.rs")), Err(Error::NoSuchCode { .. })));
        assert!(chosen(all, None).unwrap().len() > 10);
    }
}

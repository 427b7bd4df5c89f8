//! `cargo xtask mutants`: changes the code that decides, one place at a time, and asks whether a test notices.
//!
//! cargo-mutants makes the changes in a copy of the tree and runs the tests that hold the code. A change
//! that no test notices is a survivor; each is either met by a better test or named in `docs/mutants.md`, with
//! the reason why it makes no difference. A survivor that isn't named there fails the command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
    /// Only every n-th change, beginning with the k-th: `0/8`
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
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
    const fn name(self) -> &'static str {
        match self {
            Self::Compile => "compile",
            Self::Pipeline => "pipeline",
        }
    }

    const fn files(self) -> &'static [&'static str] {
        match self {
            Self::Compile => &["crates/policy/src/compile/*.rs"],
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

    /// Those that notice most, and take seconds.
    const fn tests(self) -> &'static [&'static str] {
        match self {
            Self::Compile => &["agreement", "advisories", "trials", "responses", "session", "diff"],
            Self::Pipeline => &["agreement", "connections", "packets", "under_way", "trials"],
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
    println!("{:<10} {:>7} {:>8} {:>9} {:>9}", "part", "caught", "missed", "timed out", "unviable");
    for part in parts {
        let survivors = mutate(*part, options.shard.as_deref())?;
        for survivor in survivors.iter().filter(|survivor| !reasons.contains(survivor.as_str())) {
            println!("survived, and {REASONS} doesn't say why: {survivor}");
            nameless += 1;
        }
    }
    match nameless {
        0 => Ok(ExitCode::SUCCESS),
        count => Err(Error::Survivors { count }),
    }
}

/// The survivors of a part, without their places in the files.
fn mutate(part: Part, shard: Option<&str>) -> Result<Vec<String>, Error> {
    let out = tree::target().join("mutants").join(part.name());
    fs::create_dir_all(&out).map_err(|source| failed("cannot be made", &out, source))?;
    let mut command = process::cargo();
    command.args(["mutants", "--no-shuffle", "--colors=never", "--output"]).arg(&out);
    command.args(part.files().iter().flat_map(|file| ["--file", file]));
    command.args(part.packages().iter().flat_map(|package| ["--test-package", package]));
    command.args(shard.iter().flat_map(|shard| ["--shard", shard]));
    command.args(["--", "--lib"]);
    command.args(part.tests().iter().flat_map(|test| ["--test", test]));
    let ended = command.status().map_err(|source| process::start_error(&command, source))?;
    if !ended.code().is_some_and(|code| TOLD.contains(&code)) {
        return Err(Error::Failed { command: "cargo mutants".to_owned(), status: ended });
    }
    let list = |name: &str| read(&out.join("mutants.out").join(name));
    let [caught, missed, late, unviable] =
        ["caught.txt", "missed.txt", "timeout.txt", "unviable.txt"].map(list);
    let (missed, count) = (missed?, |text: &str| text.lines().count());
    println!(
        "{:<10} {:>7} {:>8} {:>9} {:>9}",
        part.name(),
        count(&caught?),
        count(&missed),
        count(&late?),
        count(&unviable?)
    );
    Ok(missed.lines().map(placeless).collect())
}

/// `file:line:column: change` as `file: change`.
fn placeless(mutant: &str) -> String {
    let Some((place, change)) = mutant.split_once(": ") else { return mutant.to_owned() };
    let file = place.split(':').next().unwrap_or(place);
    format!("{file}: {change}")
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
    fn every_file_that_is_changed_is_there() {
        for part in <Part as clap::ValueEnum>::value_variants() {
            for file in part.files() {
                let file = file.trim_end_matches("/*.rs");
                assert!(tree::root().join(file).exists(), "{file}");
            }
            for test in part.tests() {
                let tests = tree::root().join("crates/policy/tests");
                let there = tests.join(format!("{test}.rs")).exists() || tests.join(test).is_dir();
                assert!(there, "{test}");
            }
        }
    }
}

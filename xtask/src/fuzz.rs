//! The fuzz lane: every input of the corpora and every kept crasher goes through its target once.
//!
//! No fuzzing engine is needed for that: the targets are built by plain cargo on stable Rust, and
//! libFuzzer's `main` runs the files that it is given. Finding new inputs is `cargo fuzz run`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::lanes::Outcome;
use crate::process;
use crate::tree;

/// Directories under fuzz/ that hold a directory of inputs for each target.
const INPUTS: [&str; 2] = ["corpus", "crashers"];

/// Replays what is there.
pub(crate) fn replay() -> Result<Outcome, Error> {
    let fuzz = tree::root().join("fuzz");
    let targets = if fuzz.join("Cargo.toml").is_file() { targets(&fuzz)? } else { Vec::new() };
    if targets.is_empty() {
        return Ok(Outcome::Empty("nothing to replay".to_owned()));
    }
    for target in targets {
        let inputs = inputs(&fuzz, &target)?;
        println!("{target}: {} inputs", inputs.len());
        if !inputs.is_empty() {
            replay_one(&fuzz, &target, &inputs)?;
        }
    }
    Ok(Outcome::Passed(String::new()))
}

fn replay_one(fuzz: &Path, target: &str, inputs: &[PathBuf]) -> Result<(), Error> {
    process::run(
        process::cargo()
            .args(["build", "--release", "--bin", target, "--manifest-path"])
            .arg(fuzz.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(tree::target().join("fuzz")),
    )?;
    let executable = tree::target().join("fuzz/release").join(target);
    // One command line holds some thousand paths; corpora may be larger.
    inputs
        .chunks(1000)
        .try_for_each(|chunk| process::capture(Command::new(&executable).args(chunk)).map(drop))
}

fn targets(fuzz: &Path) -> Result<Vec<String>, Error> {
    let manifest = fuzz.join("Cargo.toml");
    let parsed: toml::Table =
        tree::read_text(&manifest)?.parse().map_err(|e: toml::de::Error| Error::Toml {
            what: manifest.display().to_string(),
            why: e.to_string(),
        })?;
    let bins = parsed.get("bin").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    Ok(bins.iter().filter_map(|bin| bin.get("name")?.as_str().map(str::to_owned)).collect())
}

fn inputs(fuzz: &Path, target: &str) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for kind in INPUTS {
        let directory = fuzz.join(kind).join(target);
        if directory.is_dir() {
            found.extend(tree::files(&directory)?.into_iter().map(|file| directory.join(file)));
        }
    }
    Ok(found)
}

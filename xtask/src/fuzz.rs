//! The fuzz targets: which there are, their inputs, and the fuzz lane, in which every input of the
//! corpora and every kept crasher goes through its target once.
//!
//! No fuzzing engine is needed for that: the targets are built by plain cargo on stable Rust, and
//! libFuzzer's `main` runs the files that it is given. Finding new inputs is [`crate::fuzz_run`].

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::lanes::Outcome;
use crate::process;
use crate::tree;

/// Directories under fuzz/ that hold a directory of inputs for each target.
const INPUTS: [&str; 2] = ["corpus", "crashers"];
/// One command line holds some thousand paths; corpora may be larger.
const PATHS: usize = 1000;

/// A fuzz target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The name of its executable.
    pub(crate) name: String,
}

/// How the targets are built.
pub(crate) struct Build {
    /// Where cargo builds, under the target directory.
    pub(crate) directory: &'static str,
    /// With every optimisation, which costs minutes of building: for millions of runs.
    pub(crate) release: bool,
    /// Flags for the compiler, and for what is built for this host alone: not for build scripts.
    pub(crate) flags: &'static [&'static str],
}

/// For replaying inputs: where the workspace builds, so that what both depend on is built once.
const PLAIN: Build = Build { directory: "", release: false, flags: &[] };

/// Replays what is there.
pub(crate) fn replay() -> Result<Outcome, Error> {
    let targets = targets()?;
    if targets.is_empty() {
        return Ok(Outcome::Empty("nothing to replay".to_owned()));
    }
    let executables = PLAIN.executables(&targets)?;
    for (target, executable) in targets.iter().zip(executables) {
        let inputs = target.inputs()?;
        println!("{}: {} inputs", target.name, inputs.len());
        run_inputs(&executable, &inputs, |_| {})?;
    }
    Ok(Outcome::Passed(String::new()))
}

/// Runs a target once with each input; `prepare` may change the command.
pub(crate) fn run_inputs(
    executable: &Path,
    inputs: &[PathBuf],
    prepare: impl Fn(&mut Command),
) -> Result<(), Error> {
    inputs.chunks(PATHS).try_for_each(|chunk| {
        let mut command = Command::new(executable);
        prepare(command.args(chunk));
        process::capture(&mut command).map(drop)
    })
}

impl Build {
    /// Builds the targets, and returns where they lie.
    pub(crate) fn executables(&self, targets: &[Target]) -> Result<Vec<PathBuf>, Error> {
        require_cxx()?;
        let directory = tree::target().join(self.directory);
        let mut command = process::cargo();
        command.args(["build", "--manifest-path"]).arg(manifest());
        command.arg("--target-dir").arg(&directory);
        if self.release {
            command.arg("--release");
        }
        for target in targets {
            command.args(["--bin", &target.name]);
        }
        let mut profile = directory;
        if !self.flags.is_empty() {
            let host = host()?;
            command.args(["--target", &host]);
            command.env("CARGO_ENCODED_RUSTFLAGS", self.flags.join("\x1f"));
            profile.push(host);
        }
        process::run(&mut command)?;
        let profile = profile.join(if self.release { "release" } else { "debug" });
        Ok(targets.iter().map(|target| profile.join(&target.name)).collect())
    }
}

/// libFuzzer is C++.
fn require_cxx() -> Result<(), Error> {
    let known = ["c++", "g++", "clang++"].into_iter().any(|name| process::find(name).is_some());
    match known || std::env::var_os("CXX").is_some() {
        true => Ok(()),
        false => Err(Error::MissingProgram { program: "c++", hint: " --install" }),
    }
}

/// The triple of this machine.
fn host() -> Result<String, Error> {
    rustc_says("host:")
}

/// A field of `rustc -vV`.
pub(crate) fn rustc_says(field: &str) -> Result<String, Error> {
    let text = process::capture(Command::new("rustc").arg("-vV"))?;
    let found = text.lines().find_map(|line| line.strip_prefix(field));
    Ok(found.unwrap_or_default().trim().to_owned())
}

/// The directory of the fuzz targets.
pub(crate) fn directory() -> PathBuf {
    tree::root().join("fuzz")
}

fn manifest() -> PathBuf {
    directory().join("Cargo.toml")
}

/// All targets, in the order of the manifest.
pub(crate) fn targets() -> Result<Vec<Target>, Error> {
    let manifest = manifest();
    if !manifest.is_file() {
        return Ok(Vec::new());
    }
    let parsed: toml::Table =
        tree::read_text(&manifest)?.parse().map_err(|e: toml::de::Error| Error::Toml {
            what: manifest.display().to_string(),
            why: e.to_string(),
        })?;
    let bins = parsed.get("bin").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let names = bins.iter().filter_map(|bin| bin.get("name")?.as_str());
    Ok(names.map(|name| Target { name: name.to_owned() }).collect())
}

impl Target {
    /// The directory of its corpus.
    pub(crate) fn corpus(&self) -> PathBuf {
        directory().join(INPUTS[0]).join(&self.name)
    }

    /// Its corpus and its kept crashers.
    pub(crate) fn inputs(&self) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        for kind in INPUTS {
            found.extend(inputs_in(&directory().join(kind).join(&self.name))?);
        }
        Ok(found)
    }
}

/// The files in a directory, if it is there.
pub(crate) fn inputs_in(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    Ok(tree::files(directory)?.into_iter().map(|file| directory.join(file)).collect())
}

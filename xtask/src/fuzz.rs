//! The fuzz targets: which there are, their inputs, and how they are built with libFuzzer.
//!
//! The lane `fuzz` needs none of this: the test `corpora` replays every input without an engine. Finding new
//! inputs is [`crate::fuzz_run`].

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::process;
use crate::tree;

/// Directories under fuzz/ that hold a directory of inputs for each target.
const INPUTS: [&str; 2] = ["corpus", "crashers"];
/// The package of the targets, and the profile that they are built with.
const PACKAGE: &str = "flowgate-fuzz";
const PROFILE: &str = "fuzz";
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
    /// Flags for the compiler, and for what is built for this host alone: not for build scripts.
    pub(crate) flags: &'static [&'static str],
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
    /// Builds the targets with every optimisation, for millions of runs, and returns where they lie.
    pub(crate) fn executables(&self, targets: &[Target]) -> Result<Vec<PathBuf>, Error> {
        require_cxx()?;
        let directory = tree::target().join(self.directory);
        let host = host()?;
        let mut command = process::cargo();
        command.args(["build", "--locked", "--profile", PROFILE, "--target", &host]);
        command.args(["--package", PACKAGE, "--features", "libfuzzer"]);
        command.arg("--target-dir").arg(&directory);
        for target in targets {
            command.args(["--bin", &target.name]);
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", self.flags.join("\x1f"));
        process::run(&mut command)?;
        let profile = directory.join(host).join(PROFILE);
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

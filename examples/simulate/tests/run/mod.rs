//! Running the binary on texts.
#![allow(dead_code, reason = "each test target uses a part of it")]

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use tempfile::TempDir;

/// Two namespaces on two nodes, dual stack, with a pod on its node's network; `shop` lets in what is
/// labelled `app: front`, on the port called http, and one policy that looks at addresses.
pub(crate) const SHOP: &str = include_str!("shop.yaml");

/// The binary.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_flowgate-simulate");

/// What the binary did.
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// The answers, after a run that went well.
    pub(crate) fn answers(&self) -> Vec<Value> {
        assert_eq!(self.status, 0, "{}", self.stderr);
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Bad input: nothing on stdout, and `message` on stderr.
    pub(crate) fn is_refused(&self, message: &str) {
        assert_eq!(self.status, 2, "{}", self.stderr);
        assert_eq!(self.stdout, "");
        assert!(self.stderr.contains(message), "{message:?} isn't in {}", self.stderr);
    }
}

/// Runs the binary in `directory`.
pub(crate) fn run_in(directory: &Path, arguments: &[&str]) -> Run {
    let mut command = Command::new(BINARY);
    let output = command.current_dir(directory).args(arguments).output().unwrap();
    Run {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A directory with `manifests.yaml` and `probes.jsonl`.
pub(crate) fn directory(manifests: &str, probes: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("manifests.yaml"), manifests).unwrap();
    fs::write(directory.path().join("probes.jsonl"), probes).unwrap();
    directory
}

/// Answers `probes` by `manifests`, as JSON.
pub(crate) fn ask(manifests: &str, probes: &str) -> Run {
    let directory = directory(manifests, probes);
    let arguments = ["--manifests", "manifests.yaml", "--probes", "probes.jsonl", "-o", "json"];
    run_in(directory.path(), &arguments)
}

/// The answer to one probe about [`SHOP`].
pub(crate) fn answer(probe: &str) -> Value {
    let mut answers = ask(SHOP, probe).answers();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

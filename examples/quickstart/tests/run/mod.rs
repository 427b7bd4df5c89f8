//! Running the binary.

use std::{ffi::OsStr, process::Command};

use serde_json::Value;

/// What the binary did.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// The lines of JSON, of which the last is the summary.
    pub(crate) fn json(&self) -> (Vec<Value>, Value) {
        let lines = self.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
        let mut lines: Vec<Value> = lines.collect();
        let summary = lines.pop().unwrap();
        (lines, summary)
    }
}

/// The binary.
pub(crate) fn quickstart() -> Command {
    Command::new(env!("CARGO_BIN_EXE_quickstart"))
}

/// Runs it.
pub(crate) fn run<A: AsRef<OsStr>>(arguments: &[A]) -> Run {
    finish(quickstart().args(arguments))
}

/// Runs what was prepared.
pub(crate) fn finish(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

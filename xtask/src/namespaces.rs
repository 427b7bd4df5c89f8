//! Test executables run in network and mount namespaces of their own, so that nothing they do reaches
//! the machine's interfaces, and nothing they pin outlives them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::error::Error;
use crate::privileges;
use crate::process;
use crate::test_binary::TestBinary;

/// sysfs is mounted again because it shows the network namespace in which it was mounted.
const INIT: &str = "mount -t sysfs sysfs /sys && mount -t bpf bpf /sys/fs/bpf && \
                    { mount -t cgroup2 cgroup /sys/fs/cgroup || true; } && \
                    ip link set lo up && exec \"$@\"";
/// What a test prints that can't run.
const SKIPPED: &str = "SKIPPED";

/// Runs the tests, on another object than the shipped one if given, and returns how many of them said that
/// they can't run here.
pub(crate) fn run(test: &TestBinary, object: Option<&Path>) -> Result<usize, Error> {
    privileges::require()?;
    let mut command = isolated(test);
    if let Some(object) = object {
        command.env("FLOWGATE_OBJECT", object);
    }
    let (status, skipped) = stream(&mut command)?;
    if status.success() {
        return Ok(skipped);
    }
    Err(Error::Failed { command: test.executable.display().to_string(), status })
}

/// Whether a test's line says that it can't run.
pub(crate) fn says_skipped(line: &str) -> bool {
    line.contains(SKIPPED)
}

fn isolated(test: &TestBinary) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--", "sh", "-c", INIT, "sh"])
        .arg(&test.executable)
        .arg("--nocapture")
        .current_dir(&test.directory)
        .env("CARGO_MANIFEST_DIR", &test.directory)
        .stdout(Stdio::piped());
    command
}

/// Passes the output on and counts the tests that skipped themselves.
fn stream(command: &mut Command) -> Result<(ExitStatus, usize), Error> {
    let mut child = command.spawn().map_err(|source| process::start_error(command, source))?;
    let mut skipped = 0;
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).split(b'\n')) {
        let line = line.map_err(|source| process::start_error(command, source))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        skipped += usize::from(says_skipped(&line));
    }
    let status = child.wait().map_err(|source| process::start_error(command, source))?;
    Ok((status, skipped))
}

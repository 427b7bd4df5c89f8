//! Test executables run in network and mount namespaces of their own, so that nothing they do reaches
//! the machine's interfaces, and nothing they pin outlives them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::error::Error;
use crate::machine::Finished;
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
    command.arg("--nocapture");
    if let Some(object) = object {
        command.env("FLOWGATE_OBJECT", object);
    }
    let (status, lines) = stream(&mut command, "")?;
    if status.success() {
        return Ok(lines.iter().filter(|line| says_skipped(line)).count());
    }
    Err(Error::Failed { command: test.executable.display().to_string(), status })
}

/// Runs the tests with these arguments and so many cases; whatever they say is no error.
pub(crate) fn hear(test: &TestBinary, arguments: &[&str], corpus: u32) -> Result<Finished, Error> {
    privileges::require()?;
    let mut command = isolated(test);
    command.args(arguments).env("FLOWGATE_CORPUS", corpus.to_string());
    let (status, lines) = stream(&mut command, "    running  | ")?;
    Ok(Finished { code: status.code().unwrap_or(-1), lines })
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
        .current_dir(&test.directory)
        .env("CARGO_MANIFEST_DIR", &test.directory)
        .stdout(Stdio::piped());
    command
}

/// Passes the output on, each line behind a prefix, and keeps it.
fn stream(command: &mut Command, prefix: &str) -> Result<(ExitStatus, Vec<String>), Error> {
    let mut child = command.spawn().map_err(|source| process::start_error(command, source))?;
    let mut lines = Vec::new();
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).split(b'\n')) {
        let line = line.map_err(|source| process::start_error(command, source))?;
        let line = String::from_utf8_lossy(&line).into_owned();
        println!("{prefix}{line}");
        lines.push(line);
    }
    let status = child.wait().map_err(|source| process::start_error(command, source))?;
    Ok((status, lines))
}

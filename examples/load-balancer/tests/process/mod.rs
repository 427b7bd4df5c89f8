//! `flowgate-lb run`, in a namespace of a test's own.
#![allow(dead_code, reason = "each test needs a part of it")]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use flowgate_lab::Pod;
use flowgate_lb::api::{Request, client::Client};

/// Far longer than anything takes here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A process of this program. When this is dropped it is killed, and has no chance to clean up; none outlives its
/// test.
pub(crate) struct Process(Child);

impl Process {
    /// Starts it in a pod.
    pub(crate) fn start(pod: &Pod, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowgate-lb"));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let child = pod.run(|| command.spawn()).expect("a thread there");
        Self(child.expect("it starts"))
    }

    /// It has ended; whether well.
    pub(crate) fn ended(&mut self) -> Option<bool> {
        self.0.try_wait().expect("it is ours").map(|status| status.success())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A balancer that runs.
pub(crate) struct Running {
    process: Process,
    directory: PathBuf,
}

impl Running {
    /// Starts it by a file; `directory` is what the file says.
    pub(crate) fn start(pod: &Pod, file: &Path, directory: PathBuf) -> Self {
        let file = file.display().to_string();
        Self { process: Process::start(pod, &["run", "--config", &file]), directory }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// Waits until something has happened, as long as it runs.
    #[track_caller]
    pub(crate) fn wait(&mut self, what: &str, happened: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !happened(self) {
            assert_eq!(self.process.ended(), None, "it has ended");
            assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn try_ask<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Option<T> {
        Client::connect(&self.directory).ok()?.ask(request).ok()
    }
}

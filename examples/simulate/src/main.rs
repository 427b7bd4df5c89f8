//! `flowgate-simulate`: what do these manifests allow?
//!
//! Reads Kubernetes manifests and probes, asks flowgate what becomes of each, and prints one line per
//! probe. Nothing of the machine's is touched, and no cluster is asked.
//!
//! ```text
//! flowgate-simulate --manifests shop/ --probes probes.jsonl -o json
//! flowgate-simulate explain shop/front shop/db 5432/TCP --manifests shop/
//! flowgate-simulate diff --manifests pods.yaml --before old/ --after new/
//! flowgate-simulate replay --manifests shop/ --flows log.jsonl
//! ```
//!
//! Beside probes, `explain` tells which rules match a flow and where they are, `diff` what two sets of
//! manifests decide differently, and `replay` which flows of a flow log would be judged differently.
//!
//! What isn't obvious:
//!
//! - An end has one address of each family, the first that its pod or node lists; `ip:ADDRESS` has that
//!   one alone, and is whoever owns it. A host-network pod is its node: no pod selector matches it, and
//!   no policy isolates it (verdict `n/a`).
//! - Without `family`, every family that both ends have is asked, and all must allow. Where they differ,
//!   be it only in the policies that decide, `families` has the answer of each, and the ends' verdicts are
//!   those of the first family that is denied.
//! - A port's name is looked up at the destination pod, also for pods on their node's network.
//! - What a pod sends to itself doesn't leave it, so it is allowed; pods are not paired with themselves
//!   where there are no probes.
//! - The kernel backend answers as the host does, and compares: each flow's first packet goes through
//!   the loaded programs (`BPF_PROG_TEST_RUN`), in network namespaces made for it. ICMP types that open
//!   no flow aren't compared.
//! - A node may reach the pods on it: verdict `allow`, by no policy.
//! - With `--node` the answer is what the agent of that node decides: pods and nodes elsewhere are no
//!   endpoints (`n/a`), and the entities `host` and `remote-node` have their meaning. Without it every pod is
//!   an endpoint, none of them beside a `host`.
//!
//! Invariant: answers alone go to stdout, and after bad input nothing does.
//! Exit status: 0 done, 1 the backends disagree or something differs, 2 bad input, 3 the kernel backend can't be used here.
//! Tested by running the binary (`tests/`).
#![forbid(unsafe_code)]

mod answer;
mod ask;
mod cli;
mod diff;
mod end;
mod evaluate;
mod explain;
mod flow_log;
mod frame;
mod kernel;
mod print;
mod probe;
mod question;
mod read;
mod replay;
mod table;
mod unseen;

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use flowgate_kubernetes::{AssignError, ManifestError};
use flowgate_policy::compile::CompileError;
use thiserror::Error;

use crate::{
    cli::{Arguments, Command},
    evaluate::{Disagreement, EvaluateError},
};

const DIFFERENCE: u8 = 1;
const BAD_INPUT: u8 = 2;
const NO_BACKEND: u8 = 3;

/// Why there is no answer.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Assign(#[from] AssignError),
    #[error(transparent)]
    Node(#[from] read::UnknownNode),
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Probe(#[from] question::ProbeError),
    #[error(transparent)]
    Explain(#[from] explain::ExplainError),
    #[error(transparent)]
    FlowLog(#[from] flow_log::FlowLogError),
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
}

impl Failure {
    const fn status(&self) -> u8 {
        match self {
            Self::Evaluate(EvaluateError::Kernel(_)) => NO_BACKEND,
            _ => BAD_INPUT,
        }
    }
}

/// What goes to stdout, and whether something differs.
struct Report {
    text: String,
    differs: bool,
    /// What the backends didn't agree on.
    disagreements: Vec<Disagreement>,
}

fn main() -> ExitCode {
    let report = match run(&Arguments::parse()) {
        Ok(report) => report,
        Err(failure) => {
            eprintln!("error: {}", chain(&failure));
            return ExitCode::from(failure.status());
        }
    };
    for disagreement in &report.disagreements {
        eprintln!("error: {disagreement}");
    }
    let differs = report.differs || !report.disagreements.is_empty();
    let status = u8::from(differs) * DIFFERENCE;
    match write(&report.text) {
        Ok(()) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: can't write the answers: {error}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// An error with its causes, those left out that it names itself.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// A reader that has read enough, such as `head`, is no failure.
fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Answers everything before anything is printed.
fn run(arguments: &Arguments) -> Result<Report, Failure> {
    match &arguments.command {
        None => ask::run(arguments),
        Some(Command::Explain(arguments)) => explain::run(arguments),
        Some(Command::Diff(arguments)) => diff::run(arguments),
        Some(Command::Replay(arguments)) => replay::run(arguments),
    }
}

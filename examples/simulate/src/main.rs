//! `flowgate-simulate`: what do these manifests allow?
//!
//! Reads Kubernetes manifests and probes, asks flowgate what becomes of each, and prints one line per
//! probe. Nothing of the machine's is touched, and no cluster is asked.
//!
//! ```text
//! flowgate-simulate --manifests shop/ --probes probes.jsonl -o json
//! ```
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
//!
//! Invariant: answers alone go to stdout, and after bad input nothing does.
//! Exit status: 0 done, 1 the backends disagree, 2 bad input, 3 the kernel backend can't be used here.
//! Tested by running the binary (`tests/`).
#![forbid(unsafe_code)]

mod answer;
mod cli;
mod end;
mod evaluate;
mod frame;
mod kernel;
mod print;
mod probe;
mod question;

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use flowgate_identity::LocalAllocator;
use flowgate_kubernetes::{AddressRanges, AssignError, ManifestError, Manifests};
use flowgate_policy::{
    compile::{CompileError, Compiler},
    options::Options,
    plan::Plan,
};
use thiserror::Error;

use crate::{
    answer::Answer,
    cli::Arguments,
    end::Ends,
    evaluate::{Disagreement, EvaluateError, Evaluator},
    question::Question,
};

const DISAGREEMENT: u8 = 1;
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
    Compile(#[from] CompileError),
    #[error(transparent)]
    Probe(#[from] question::ProbeError),
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

/// What goes to stdout, and what the backends didn't agree on.
struct Report {
    text: String,
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
    let status = u8::from(!report.disagreements.is_empty()) * DISAGREEMENT;
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
    let mut manifests = Manifests::from_paths(&arguments.manifests)?;
    manifests.assign_addresses(&AddressRanges::default())?;
    for warning in &manifests.warnings {
        eprintln!("warning: {warning}");
    }
    let ends = Ends::new(&manifests.inventory);
    let questions = match &arguments.probes {
        Some(path) => question::read(path, &ends)?,
        None => every_pair(&manifests, &ends),
    };
    let plan = compile(&manifests)?;
    let mut evaluator = evaluate::evaluator(arguments.backend, &plan)?;
    let answers = answer(&questions, evaluator.as_mut())?;
    let text = print::print(arguments.output, &answers);
    Ok(Report { text, disagreements: evaluator.disagreements().to_vec() })
}

fn every_pair(manifests: &Manifests, ends: &Ends<'_>) -> Vec<Question> {
    let (questions, apart) = question::every_pair(&manifests.inventory, ends);
    for (from, to) in apart {
        eprintln!("warning: {from} to {to} is left out: they have no address family in common");
    }
    if questions.is_empty() {
        eprintln!("warning: there is nothing to ask: no two pods, or no container declares a port");
    }
    questions
}

fn compile(manifests: &Manifests) -> Result<Plan, CompileError> {
    let mut compiler = Compiler::new(LocalAllocator::new());
    compiler.compile(&manifests.inventory, &manifests.policies, &Options::default())
}

fn answer<'q>(
    questions: &'q [Question],
    evaluator: &mut dyn Evaluator,
) -> Result<Vec<Answer<'q>>, Failure> {
    let answers = questions.iter().map(|question| Answer::new(question, evaluator));
    Ok(answers.collect::<Result<_, _>>()?)
}

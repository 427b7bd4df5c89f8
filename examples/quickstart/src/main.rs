//! `quickstart`: NetworkPolicies on real traffic, predicted and observed.
//!
//! ```text
//! quickstart                              a built-in example, as root
//! quickstart --manifests shop/ -o json    your own pods and policies
//! quickstart --backend host               without any privileges: the prediction alone
//! ```
//!
//! The steps are the modules: [`scenario`] reads manifests, [`question`] lists who may be asked to
//! reach whom, [`stage`] builds a node with pods of network namespaces, [`enforce`] puts
//! flowgate's datapath between them, [`observe`] connects everything with everything, [`change`]
//! changes a policy while connections are open.
//!
//! Invariant: whatever touches an interface happens in namespaces that the process made itself.
//! Tested by running the binary (`tests/`).
#![forbid(unsafe_code)]

mod answer;
mod change;
mod cli;
mod enforce;
mod failure;
mod flow_log;
mod judgement;
mod matrix;
mod observe;
mod predict;
mod question;
mod report;
mod scenario;
mod stage;
mod traffic;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use flowgate_identity::LocalAllocator;
use flowgate_policy::{compile::Compiler, options::Options};

use crate::{
    cli::{Arguments, Backend},
    failure::Failure,
    report::Report,
    traffic::Setting,
};

const MISMATCH: u8 = 1;
const NOT_WRITTEN: u8 = 3;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            eprintln!("{}", failure.text());
            ExitCode::from(failure.status())
        }
    }
}

fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let manifests = scenario::read(&arguments.manifests)?;
    let pods = scenario::pods(&manifests);
    let questions = question::questions(&pods);
    let mut compiler = Compiler::new(LocalAllocator::new());
    let plan = compiler.compile(&manifests.inventory, &manifests.policies, &Options::default())?;
    let plan = Arc::new(plan);
    let mut answers = predict::predict(&plan, &questions)?;
    let traffic = match arguments.backend {
        Backend::Host => None,
        Backend::Kernel => {
            let (manifests, pods, compiler) = (&manifests, &pods, &mut compiler);
            Some(Setting { manifests, pods, compiler, plan: &plan }.run(&mut answers)?)
        }
    };
    let policies = manifests.policies.len();
    let report = Report { backend: arguments.backend, pods, policies, answers, traffic };
    let status = if report.mismatches() == 0 { 0 } else { MISMATCH };
    Ok(write(&report.print(arguments.output)).map_or(NOT_WRITTEN, |()| status))
}

/// A reader that has read enough, such as `head`, is no failure.
fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

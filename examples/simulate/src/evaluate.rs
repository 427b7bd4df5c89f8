//! Who answers: the host's tables, or the kernel's programs compared with them.
//!
//! Invariant: the answer is always the host's; where the kernel's differs, that is remembered.

use std::convert::Infallible;

use flowgate_policy::{
    install::InstallError,
    outcome::{Flow, Outcome},
    plan::Plan,
    simulate::{SimulateError, Simulator},
};
use thiserror::Error;

use crate::cli::Backend;

/// Why a backend gives no answer.
#[derive(Debug, Error)]
pub(crate) enum EvaluateError {
    #[error("the plan can't be installed into host tables: {0}")]
    Install(#[from] InstallError<Infallible>),
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    #[error("the backend {backend:?} is not part of this build")]
    Absent { backend: Backend },
}

/// One flow of which the backends say different things.
#[derive(Clone, Debug, Error)]
#[error("the backends disagree about {flow}: host {host:?}, kernel {kernel:?}")]
pub(crate) struct Disagreement {
    flow: Flow,
    host: Outcome,
    kernel: Outcome,
}

/// Answers what becomes of new flows.
pub(crate) trait Evaluator {
    /// What becomes of a new flow.
    fn simulate(&mut self, flow: &Flow) -> Result<Outcome, EvaluateError>;

    /// Of what the backends said different things so far.
    fn disagreements(&self) -> Vec<Disagreement> {
        Vec::new()
    }
}

/// The evaluator that the user asked for.
pub(crate) fn evaluator(
    backend: Backend,
    plan: &Plan,
) -> Result<Box<dyn Evaluator>, EvaluateError> {
    match backend {
        Backend::Host => Ok(Box::new(Simulator::new(plan)?)),
        Backend::Kernel => Err(EvaluateError::Absent { backend }),
    }
}

impl Evaluator for Simulator {
    fn simulate(&mut self, flow: &Flow) -> Result<Outcome, EvaluateError> {
        Ok(Self::simulate(self, flow)?)
    }
}

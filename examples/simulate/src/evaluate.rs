//! Who answers: the pipeline over host tables, or that and the kernel's programs.
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

use crate::{
    cli::Backend,
    kernel::{Kernel, KernelError, Testimony},
};

/// Why a backend gives no answer.
#[derive(Debug, Error)]
pub(crate) enum EvaluateError {
    #[error("the plan can't be installed into host tables: {0}")]
    Install(#[from] InstallError<Infallible>),
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// One flow of which the backends say different things.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the backends disagree about {flow}: host {host:?}, kernel {kernel:?}")]
pub(crate) struct Disagreement {
    flow: Flow,
    host: Outcome,
    kernel: Testimony,
}

/// Answers what becomes of new flows.
pub(crate) trait Evaluator {
    /// What becomes of a new flow.
    fn simulate(&mut self, flow: &Flow) -> Result<Outcome, EvaluateError>;

    /// Of what the backends said different things so far.
    fn disagreements(&self) -> &[Disagreement] {
        &[]
    }
}

/// The evaluator that the user asked for.
pub(crate) fn evaluator(
    backend: Backend,
    plan: &Plan,
) -> Result<Box<dyn Evaluator>, EvaluateError> {
    let host = Simulator::new(plan)?;
    match backend {
        Backend::Host => Ok(Box::new(host)),
        Backend::Kernel => Ok(Box::new(Compared::new(host, Kernel::load(plan)?))),
    }
}

impl Evaluator for Simulator {
    fn simulate(&mut self, flow: &Flow) -> Result<Outcome, EvaluateError> {
        Ok(Self::simulate(self, flow)?)
    }
}

/// Says what it did with a flow, when somebody else has answered.
trait Witness {
    fn ask(&mut self, flow: &Flow) -> Result<Testimony, KernelError>;
}

impl Witness for Kernel {
    fn ask(&mut self, flow: &Flow) -> Result<Testimony, KernelError> {
        Self::ask(self, flow)
    }
}

/// The host's answers, compared with the kernel's.
struct Compared<H, K> {
    host: H,
    kernel: K,
    disagreements: Vec<Disagreement>,
}

impl<H: Evaluator, K: Witness> Compared<H, K> {
    const fn new(host: H, kernel: K) -> Self {
        Self { host, kernel, disagreements: Vec::new() }
    }
}

impl<H: Evaluator, K: Witness> Evaluator for Compared<H, K> {
    fn simulate(&mut self, flow: &Flow) -> Result<Outcome, EvaluateError> {
        let host = self.host.simulate(flow)?;
        let kernel = self.kernel.ask(flow)?;
        if !kernel.agrees_with(&host) {
            self.disagreements.push(Disagreement { flow: *flow, host: host.clone(), kernel });
        }
        Ok(host)
    }

    fn disagreements(&self) -> &[Disagreement] {
        &self.disagreements
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use flowgate_policy::{
        model::Response,
        outcome::{FlowProtocol, Side, SideVerdict},
    };

    use super::*;

    struct Host;

    impl Evaluator for Host {
        fn simulate(&mut self, _: &Flow) -> Result<Outcome, EvaluateError> {
            Ok(outcome(SideVerdict::DefaultAllow))
        }
    }

    impl Witness for Testimony {
        fn ask(&mut self, _: &Flow) -> Result<Testimony, KernelError> {
            Ok(self.clone())
        }
    }

    fn outcome(verdict: SideVerdict) -> Outcome {
        let ingress = Side::Verdict {
            verdict,
            policies: BTreeSet::new(),
            staged: None,
            response: Response::Silence,
            log: BTreeSet::new(),
        };
        Outcome { egress: Side::NotAnEndpoint, ingress }
    }

    fn judged(passed: bool, verdict: Option<SideVerdict>) -> Testimony {
        Testimony::Judged { passed, outcome: verdict.map(outcome) }
    }

    fn compare(kernel: Testimony) -> Vec<Disagreement> {
        let flow = Flow {
            source: "198.18.0.1".parse().unwrap(),
            destination: "198.18.0.2".parse().unwrap(),
            protocol: FlowProtocol::Tcp(80),
        };
        let mut compared = Compared::new(Host, kernel);
        assert_eq!(compared.simulate(&flow).unwrap(), outcome(SideVerdict::DefaultAllow));
        compared.disagreements
    }

    #[test]
    fn agreement_is_silent() {
        assert_eq!(compare(judged(true, Some(SideVerdict::DefaultAllow))), []);
        assert_eq!(compare(Testimony::NotAsked), []);
    }

    #[test]
    fn what_differs_is_named_and_the_hosts_answer_counts() {
        for kernel in [
            judged(false, Some(SideVerdict::DefaultDeny)),
            judged(true, Some(SideVerdict::Allow)),
            judged(false, Some(SideVerdict::DefaultAllow)),
            judged(true, None),
        ] {
            let disagreements = compare(kernel);
            assert_eq!(disagreements.len(), 1);
            let text = disagreements[0].to_string();
            assert!(text.contains("about 198.18.0.1 -> 198.18.0.2 TCP/80"), "{text}");
        }
    }
}

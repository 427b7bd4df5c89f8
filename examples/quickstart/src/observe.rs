//! Observing: every flow of every question by a real socket, many at a time.
//!
//! A denied packet is dropped without a word, so a denied flow is one that stays silent. What is
//! predicted to be denied gets little time, and what is predicted to be allowed gets enough to lose a
//! packet and send it again.

use std::{net::SocketAddr, sync::Mutex, thread, time::Duration, vec::IntoIter};

use flowgate_lab::{LabError, Namespace, probe};
use flowgate_policy::outcome::{Flow, FlowProtocol};

use crate::{
    answer::{Answer, Answered},
    stage::Stage,
};

/// Enough to find out that nobody answers; in the same machine an answer takes microseconds.
const WHERE_DENIED: Duration = Duration::from_millis(500);
/// TCP repeats a lost SYN after one second.
const WHERE_ALLOWED: Duration = Duration::from_secs(3);
/// A waiting probe costs a thread and no processor.
const AT_ONCE: usize = 400;

/// One flow to try.
struct Trial<'a> {
    from: &'a Namespace,
    flow: Flow,
    timeout: Duration,
    answered: &'a mut Answered,
}

impl<'a> Trial<'a> {
    fn new(from: &'a Namespace, flow: Flow, answered: &'a mut Answered) -> Self {
        let timeout = if answered.predicted.allowed { WHERE_ALLOWED } else { WHERE_DENIED };
        Self { from, flow, timeout, answered }
    }

    /// Moves the calling thread into the source's namespace.
    fn run(&mut self) -> Result<(), LabError> {
        self.from.join()?;
        let destination = |port| SocketAddr::new(self.flow.destination, port);
        let seen = match self.flow.protocol {
            FlowProtocol::Tcp(port) => probe::tcp(destination(port), self.timeout)?,
            FlowProtocol::Udp(port) => probe::udp(destination(port), self.timeout)?,
            FlowProtocol::Icmp { .. } | FlowProtocol::Icmp6 { .. } => {
                probe::ping(self.flow.destination, self.timeout)?
            }
            // Few kernels speak SCTP, so no server here does.
            FlowProtocol::Sctp(_) | FlowProtocol::Other(_) => return Ok(()),
        };
        self.answered.observed = Some(seen.reached());
        Ok(())
    }
}

/// Tries every flow, and notes in the answers what the sockets saw.
pub(crate) fn observe(stage: &Stage, answers: &mut [Answer<'_>]) -> Result<(), LabError> {
    let trials: Vec<Trial<'_>> = answers.iter_mut().flat_map(|a| trials(stage, a)).collect();
    let workers = trials.len().min(AT_ONCE);
    let queue = Mutex::new(trials.into_iter());
    let work = || {
        while let Some(mut trial) = next(&queue) {
            trial.run()?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no probe panics"))
    })
}

/// A statement of its own, so that the queue isn't locked while the trial runs.
fn next<'a>(queue: &Mutex<IntoIter<Trial<'a>>>) -> Option<Trial<'a>> {
    queue.lock().expect("taking a trial doesn't panic").next()
}

fn trials<'a>(stage: &'a Stage, answer: &'a mut Answer<'_>) -> Vec<Trial<'a>> {
    let from = stage.pod(&answer.question.from.id).namespace();
    let flows = answer.question.flows.iter();
    let families = answer.families.values_mut();
    flows.zip(families).map(|(&(_, flow), answered)| Trial::new(from, flow, answered)).collect()
}

//! Predicting without a kernel: the code of the eBPF programs, over tables in this process.

use flowgate_policy::{plan::Plan, simulate::Simulator};

use crate::{answer::Answer, failure::Failure, question::Question};

/// What would become of every flow.
pub(crate) fn predict<'q>(
    plan: &Plan,
    questions: &'q [Question<'q>],
) -> Result<Vec<Answer<'q>>, Failure> {
    let simulator = Simulator::new(plan)?;
    let answers = questions.iter().map(|q| Answer::predict(q, |flow| simulator.simulate(flow)));
    Ok(answers.collect::<Result<_, _>>()?)
}

//! Predicting without a kernel: the code of the eBPF programs, over tables in this process.

use std::sync::Arc;

use flowgate_datapath::{Backend, Datapath};
use flowgate_policy::plan::Plan;

use crate::{answer::Answer, enforce, failure::Failure, question::Question};

/// What would become of every flow.
pub(crate) fn predict<'q>(
    plan: &Arc<Plan>,
    questions: &'q [Question<'q>],
) -> Result<Vec<Answer<'q>>, Failure> {
    let room = enforce::room_for(plan);
    let mut datapath = Datapath::builder().backend(Backend::Host).options(room).open()?;
    let _ = datapath.apply(plan)?;
    let answers = questions.iter().map(|q| Answer::predict(q, |flow| datapath.simulate(flow)));
    Ok(answers.collect::<Result<_, _>>()?)
}

//! Probes, or every pair of pods, asked one by one.

use std::path::Path;

use flowgate_kubernetes::Manifests;

use crate::{
    Failure, Report,
    answer::Answer,
    cli::Arguments,
    end::Ends,
    evaluate::{self, Evaluator},
    print,
    question::{self, Question},
    read,
};

/// Answers.
pub(crate) fn run(arguments: &Arguments) -> Result<Report, Failure> {
    let manifests = read::manifests(&arguments.manifests, &arguments.place)?;
    let ends = Ends::new(&manifests.inventory);
    let questions = match &arguments.probes {
        Some(path) => probes(path, &ends)?,
        None => every_pair(&manifests, &ends),
    };
    let plan = read::compile(&manifests, &arguments.place.options())?;
    let mut evaluator = evaluate::evaluator(arguments.backend, &plan)?;
    let answers = answer(&questions, evaluator.as_mut())?;
    let text = print::print(arguments.output, &answers);
    Ok(Report { text, differs: false, disagreements: evaluator.disagreements().to_vec() })
}

fn probes(path: &Path, ends: &Ends<'_>) -> Result<Vec<Question>, Failure> {
    let questions = question::read(path, ends)?;
    if questions.is_empty() {
        eprintln!("warning: there is nothing to ask: no probe is in {}", path.display());
    }
    Ok(questions)
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

fn answer<'q>(
    questions: &'q [Question],
    evaluator: &mut dyn Evaluator,
) -> Result<Vec<Answer<'q>>, Failure> {
    let answers = questions.iter().map(|question| Answer::new(question, evaluator));
    Ok(answers.collect::<Result<_, _>>()?)
}

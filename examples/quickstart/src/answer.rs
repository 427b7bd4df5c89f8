//! An answer: what was predicted for a question, and what the sockets saw.

use std::collections::BTreeMap;

use flowgate_policy::outcome::{Flow, Outcome};
use serde::Serialize;

use crate::{
    judgement::Judgement,
    question::{Family, Question, Service},
};

/// Prediction and observation of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Answered {
    #[serde(flatten)]
    pub(crate) predicted: Judgement,
    /// Whether the sockets got through; nothing if nobody tried.
    pub(crate) observed: Option<bool>,
}

/// What became of a question.
#[derive(Debug)]
pub(crate) struct Answer<'q> {
    pub(crate) question: &'q Question<'q>,
    pub(crate) families: BTreeMap<Family, Answered>,
}

impl<'q> Answer<'q> {
    /// Predicts.
    pub(crate) fn predict<E>(
        question: &'q Question<'q>,
        mut simulate: impl FnMut(&Flow) -> Result<Outcome, E>,
    ) -> Result<Self, E> {
        let mut families = BTreeMap::new();
        for (family, flow) in &question.flows {
            let predicted = simulate(flow)?.into();
            families.insert(*family, Answered { predicted, observed: None });
        }
        Ok(Self { question, families })
    }

    /// Whether every family is as predicted, as far as it was tried.
    pub(crate) fn is_as_predicted(&self) -> bool {
        self.families.values().all(Answered::is_as_predicted)
    }

    /// Predicted: allowed by every family.
    pub(crate) fn allowed(&self) -> bool {
        self.families.values().all(|answered| answered.predicted.allowed)
    }

    /// Observed: reached by every family; nothing if one wasn't tried.
    pub(crate) fn observed(&self) -> Option<bool> {
        self.families.values().try_fold(true, |all, answered| Some(all && answered.observed?))
    }

    /// The line of JSON, for a question about a port.
    pub(crate) fn line(&self) -> Option<Line<'_>> {
        let Service::Port(protocol, port) = self.question.service else { return None };
        let decisive = self.decisive();
        let differ = self.families.values().any(|answered| answered != decisive);
        Some(Line {
            from: self.question.from.id.to_string(),
            to: self.question.to.id.to_string(),
            port,
            proto: protocol.to_string(),
            judgement: &decisive.predicted,
            families: differ.then_some(&self.families),
            observed: self.observed(),
        })
    }

    /// That of the first family that is denied, or of the first.
    fn decisive(&self) -> &Answered {
        let denied = self.families.values().find(|answered| !answered.predicted.allowed);
        denied.or_else(|| self.families.values().next()).expect("a question has a flow")
    }
}

impl Answered {
    pub(crate) fn is_as_predicted(&self) -> bool {
        self.observed.is_none_or(|observed| observed == self.predicted.allowed)
    }
}

/// What `flowgate-simulate` prints about a probe, with `observed` added.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    from: String,
    to: String,
    port: u16,
    proto: String,
    #[serde(flatten)]
    judgement: &'a Judgement,
    /// Each family by itself, where they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    families: Option<&'a BTreeMap<Family, Answered>>,
    observed: Option<bool>,
}

//! An answer: what becomes of a probe, in the shape in which it is printed as JSON.
//!
//! The families are asked one by one. The probe is allowed if all of them are; what the two ends say is
//! that of the first family that is denied, or of the first. Where the families differ, be it in the
//! policies alone, the answer of each is there too.
//!
//! What a pod sends to itself never leaves it, so nothing can deny it: an end that would is said to
//! allow, by no policy.

use std::collections::BTreeMap;

use flowgate_policy::{
    model::{PolicyRef, Response},
    outcome::{Outcome, Side, SideVerdict},
};
use serde::Serialize;

use crate::{
    evaluate::{EvaluateError, Evaluator},
    probe::{Family, Port, Proto},
    question::Question,
};

/// What becomes of a probe. The order of the fields is that of the output.
#[derive(Debug, Serialize)]
pub(crate) struct Answer<'q> {
    pub(crate) from: &'q str,
    pub(crate) to: &'q str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<&'q Port>,
    pub(crate) proto: Proto,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<u8>,
    #[serde(flatten)]
    pub(crate) judgement: Judgement,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) families: Option<BTreeMap<Family, Judgement>>,
}

/// What both ends say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Judgement {
    pub(crate) allowed: bool,
    pub(crate) egress: Half,
    pub(crate) ingress: Half,
}

/// What one end says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Half {
    /// `allow`, `deny`, `default-allow`, `default-deny`, `audit`, or `n/a` where no endpoint is.
    pub(crate) verdict: String,
    /// `kind/namespace/name`, sorted.
    pub(crate) policies: Vec<String>,
    /// The verdict that staged policies would give instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) staged: Option<String>,
    /// What the sender is told, unless that is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response: Option<String>,
    /// What the policies name for the log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) log: Vec<String>,
}

impl<'q> Answer<'q> {
    /// Asks.
    pub(crate) fn new(
        question: &'q Question,
        evaluator: &mut dyn Evaluator,
    ) -> Result<Self, EvaluateError> {
        let mut judgements = BTreeMap::new();
        for (family, flow) in &question.flows {
            let judgement = Judgement::new(&evaluator.simulate(flow)?, question.stays_inside);
            judgements.insert(*family, judgement);
        }
        let probe = &question.probe;
        Ok(Self {
            from: &probe.from,
            to: &probe.to,
            port: probe.port.as_ref(),
            proto: probe.proto,
            icmp_type: probe.icmp_type,
            code: probe.code,
            judgement: decisive(&judgements).clone(),
            families: differ(&judgements).then_some(judgements),
        })
    }
}

/// That of the first family that is denied, or of the first.
fn decisive(judgements: &BTreeMap<Family, Judgement>) -> &Judgement {
    let denied = judgements.values().find(|judgement| !judgement.allowed);
    denied.or_else(|| judgements.values().next()).expect("a question has a flow")
}

fn differ(judgements: &BTreeMap<Family, Judgement>) -> bool {
    judgements.values().any(|judgement| judgement != decisive(judgements))
}

impl Judgement {
    fn new(outcome: &Outcome, stays_inside: bool) -> Self {
        Self {
            allowed: stays_inside || outcome.allowed(),
            egress: Half::new(&outcome.egress, stays_inside),
            ingress: Half::new(&outcome.ingress, stays_inside),
        }
    }
}

impl Half {
    pub(crate) fn new(side: &Side, stays_inside: bool) -> Self {
        match side {
            Side::NotAnEndpoint => Self::of_nobody("n/a".to_owned()),
            Side::Verdict { verdict, .. } if stays_inside && !verdict.allowed() => {
                Self::of_nobody(SideVerdict::Allow.to_string())
            }
            Side::Verdict { verdict, policies, staged, response, log } => Self {
                verdict: verdict.to_string(),
                staged: staged.as_ref().map(SideVerdict::to_string),
                policies: policies.iter().map(PolicyRef::to_string).collect(),
                response: told(*response),
                log: log.iter().map(ToString::to_string).collect(),
            },
        }
    }

    fn of_nobody(verdict: String) -> Self {
        Self { verdict, policies: Vec::new(), staged: None, response: None, log: Vec::new() }
    }
}

/// What the sender is told, unless that is nothing.
pub(crate) fn told(response: Response) -> Option<String> {
    (response != Response::Silence).then(|| response.to_string())
}

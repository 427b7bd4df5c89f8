//! What both ends of a flow say, in the shape in which it is printed as JSON.

use flowgate_policy::{
    model::{PolicyRef, Response},
    outcome::{Outcome, Side, SideVerdict},
};
use serde::Serialize;

/// What becomes of a flow, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Judgement {
    pub(crate) allowed: bool,
    pub(crate) egress: Half,
    pub(crate) ingress: Half,
}

/// What one end says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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

impl From<Outcome> for Judgement {
    fn from(outcome: Outcome) -> Self {
        let (egress, ingress) = (Half::from(&outcome.egress), Half::from(&outcome.ingress));
        Self { allowed: outcome.allowed(), egress, ingress }
    }
}

impl From<&Side> for Half {
    fn from(side: &Side) -> Self {
        match side {
            Side::NotAnEndpoint => Self {
                verdict: "n/a".to_owned(),
                policies: Vec::new(),
                staged: None,
                response: None,
                log: Vec::new(),
            },
            Side::Verdict { verdict, policies, staged, response, log } => Self {
                verdict: verdict.to_string(),
                staged: staged.as_ref().map(SideVerdict::to_string),
                policies: policies.iter().map(PolicyRef::to_string).collect(),
                response: (*response != Response::Silence).then(|| response.to_string()),
                log: log.iter().map(ToString::to_string).collect(),
            },
        }
    }
}

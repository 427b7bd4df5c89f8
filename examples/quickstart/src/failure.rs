//! Why there is no report.

use std::{convert::Infallible, error::Error as _};

use flowgate_lab::{LabError, Unavailable};
use flowgate_policy::{compile::CompileError, install::InstallError, simulate::SimulateError};
use thiserror::Error;

use crate::scenario::ScenarioError;

const BAD_INPUT: u8 = 2;
const UNUSABLE: u8 = 3;

/// Why there is no report.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Install(#[from] InstallError<Infallible>),
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error(transparent)]
    Lab(#[from] LabError),
}

impl Failure {
    /// The exit status: the input is at fault, or what it runs on.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Scenario(_) | Self::Compile(_) | Self::Install(_) => BAD_INPUT,
            Self::Lab(LabError::Address { .. }) => BAD_INPUT,
            Self::Simulate(_) | Self::Unavailable(_) | Self::Lab(_) => UNUSABLE,
        }
    }

    /// The failure with its causes, and what still works.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {self}");
        let mut cause = self.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        if self.status() == UNUSABLE {
            text += "\nThe kernel backend can't be used here. What still works: \
                     `quickstart --backend host`, which predicts without any traffic, and \
                     flowgate-simulate.";
        }
        text
    }
}

//! Why there is no report.

use std::{error::Error as _, io};

use flowgate_datapath::{ApplyError, AskError, AttachError, OpenError, TableError};
use flowgate_lab::{LabError, Unavailable};
use flowgate_policy::{compile::CompileError, install::InstallError, outcome::Flow};
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
    Unavailable(#[from] Unavailable),
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("{flow}: the connection was opened, and then stayed silent")]
    Mute { flow: Flow },
    #[error("the events can't be read")]
    Events(#[from] io::Error),
}

impl Failure {
    /// The exit status: the input is at fault, or what it runs on.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Scenario(_)
            | Self::Compile(_)
            | Self::Lab(LabError::Address { .. })
            | Self::Apply(InstallError::Overflow(_)) => BAD_INPUT,
            _ => UNUSABLE,
        }
    }

    /// The failure with its causes, and what still works.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {self}");
        let mut cause = self.source();
        while let Some(error) = cause {
            let error_text = error.to_string();
            // Some say what their cause says.
            if !text.contains(&error_text) {
                text += &format!(": {error_text}");
            }
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

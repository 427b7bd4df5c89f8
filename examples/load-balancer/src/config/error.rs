//! What is wrong with a configuration, and where.

use std::{fmt, io};

use flowgate_services::ServiceError;
use thiserror::Error;

/// A configuration was refused: where, and why.
///
/// Displays as `lb.yaml:17: services[0].backends[1].weight: why`, as far as the place is known.
#[derive(Debug)]
pub struct ConfigError {
    source: String,
    line: Option<usize>,
    field: String,
    reason: Box<Reason>,
}

/// Why a configuration was refused.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum Reason {
    /// The file can't be read.
    #[error("can't be read: {0}")]
    Unreadable(#[source] io::Error),
    /// It is no YAML, or not of the right shape.
    #[error("{0}")]
    Yaml(String),
    /// A field that has to be there isn't.
    #[error("is missing")]
    Missing,
    /// The services contradict themselves.
    #[error(transparent)]
    Services(#[from] ServiceError),
    /// There is nowhere to balance.
    #[error("name at least one interface")]
    NoInterface,
    /// A list or a mapping names something twice.
    #[error("{0} is named twice")]
    Twice(String),
    /// A table size that there isn't.
    #[error(
        "{0} isn't a table size: use 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 65537 or 131071"
    )]
    TableSize(u32),
    /// A name that can't be one.
    #[error("{0:?} can't be a name: use letters, digits, - _ and ., 63 at most")]
    Name(String),
    /// A check would never be over.
    #[error("the time-out is longer than the interval, so checks of one backend would overlap")]
    Overlap,
    /// Tables are made for shorter silence.
    #[error("{idle} is longer than `limits.idle`, which is {longest}: write a longer one there")]
    Idle {
        /// What was written.
        idle: String,
        /// The longest.
        longest: String,
    },
    /// A number has to lie between others.
    #[error("{found} is not between {least} and {most}")]
    Range {
        /// What was written.
        found: String,
        /// The least.
        least: String,
        /// The most.
        most: String,
    },
    /// A backend that would get no flow at all.
    #[error("a weight is at least 1; `state: drain` keeps new flows away")]
    NoWeight,
    /// Layer-2 forwarding doesn't know whom to write into the frame.
    #[error("`layer2` forwarding needs the backend's Ethernet address here")]
    NoMac,
    /// All flows would have one backend.
    #[error("only a service of all ports (`port: 0`) can be spread by port")]
    OnePort,
    /// Nothing would be checked.
    #[error("a service of all ports needs `port` in its check")]
    NoCheckPort,
    /// No whole number, or none that the field can have.
    #[error("write a whole number from 0 to {most}")]
    Number {
        /// The most that any such field can have.
        most: u64,
    },
    /// Sources of both families have more places than there can be.
    #[error(
        "{all} places for sources of both families are more than {most}, the most that there can be of {ports} ports each"
    )]
    Places {
        /// How many they have.
        all: usize,
        /// How many they can have.
        most: usize,
        /// Ports of each.
        ports: usize,
    },
    /// There can't be room for so many.
    #[error("{0}")]
    Limit(&'static str),
    /// What may not be written together.
    #[error("{0}")]
    Contradiction(&'static str),
}

impl ConfigError {
    pub(crate) fn new(source: &str, line: Option<usize>, field: &str, reason: Reason) -> Self {
        let (source, field) = (source.to_owned(), field.to_owned());
        Self { source, line, field, reason: Box::new(reason) }
    }

    /// The line, counted from 1, if it is known.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// The field, such as `services[0].backends[1].weight`; empty for the whole file.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Why it was refused.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.reason
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.reason {
            Reason::Unreadable(error) => Some(error),
            Reason::Services(error) => Some(error),
            _ => None,
        }
    }
}

//! The configuration: one YAML file that says everything.
//!
//! [`model`] is what may be written; [`read`] and [`parse`] turn text into a [`Config`] that contradicts
//! itself nowhere; [`reference()`] is the operators' page about it, made from the types.
//!
//! Not here: whether interfaces, files and addresses exist on this machine, and what operators change
//! while it runs ([`crate::desired`]).
//!
//! Invariant: whatever isn't understood in full is an error that names file, line and field. Tested in
//! `tests/config.rs`, an error of each kind with its line; fuzzed as `lb_config`.

mod bytes;
mod check;
mod duration;
mod error;
mod lines;
mod mac;
pub mod model;
mod reference;
mod typed;

use std::{fs, path::Path};

pub use bytes::Bytes;
pub use error::{ConfigError, Reason};
use flowgate_services::Services;
pub use mac::Mac;
pub use reference::reference;

use lines::Lines;
use model::Config;

/// A configuration that was checked: what was written, and the services that it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// As it was written, defaults filled in.
    pub config: Config,
    /// Its services, without what health checks and operators have to say.
    pub services: Services,
}

/// Reads a file.
///
/// # Errors
///
/// [`ConfigError`] with the place of the first mistake.
pub fn read(path: &Path) -> Result<Checked, ConfigError> {
    let source = path.display().to_string();
    let text = fs::read_to_string(path)
        .map_err(|error| ConfigError::new(&source, None, "", Reason::Unreadable(error)))?;
    parse(&source, &text)
}

/// Reads a text; `source` is what errors call it.
///
/// # Errors
///
/// [`ConfigError`] with the place of the first mistake.
pub fn parse(source: &str, text: &str) -> Result<Checked, ConfigError> {
    let config = deserialize(source, text)?;
    let services = check::check(&config).map_err(|mistake| {
        let line = Lines::of(text).find(&mistake.field);
        ConfigError::new(source, line, &mistake.field, mistake.reason)
    })?;
    Ok(Checked { config, services })
}

fn deserialize(source: &str, text: &str) -> Result<Config, ConfigError> {
    let mut field = String::new();
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |yaml| {
        serde_path_to_error::deserialize(yaml).map_err(|error| {
            field = error.path().to_string();
            error.into_inner()
        })
    });
    read.map_err(|error| located(source, text, (&field, &error)))
}

/// Where serde's error is, and what it says in the file's own words.
fn located(source: &str, text: &str, (field, error): (&str, &serde_saphyr::Error)) -> ConfigError {
    // The root, and what is inside of a key, have no path.
    let field = if [".", "?"].contains(&field) { "" } else { field };
    let line = error.location().map(|location| location.line() as usize);
    match error {
        serde_saphyr::Error::SerdeMissingField { field: missing, .. } => {
            let line = Lines::of(text).find(field);
            let dot = if field.is_empty() { "" } else { "." };
            ConfigError::new(source, line, &format!("{field}{dot}{missing}"), Reason::Missing)
        }
        serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
            let key = key.clone().unwrap_or_default();
            ConfigError::new(source, line, field, Reason::Twice(key))
        }
        serde_saphyr::Error::InvalidScalar { ty, .. } if most(ty).is_some() => {
            let most = most(ty).unwrap_or_default();
            ConfigError::new(source, line, field, Reason::Number { most })
        }
        _ => {
            let said = error.to_string();
            let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
            let said = in_words(field, said).unwrap_or(said);
            ConfigError::new(source, line, field, Reason::Yaml(said.to_owned()))
        }
    }
}

/// The largest number of a type.
fn most(of: &str) -> Option<u64> {
    Some(match of {
        "u8" => u8::MAX.into(),
        "u16" => u16::MAX.into(),
        "u32" => u32::MAX.into(),
        "u64" => u64::MAX,
        _ => return None,
    })
}

/// What a parser says of itself, as what has to be written.
fn in_words(field: &str, said: &str) -> Option<&'static str> {
    let networks = ["source4", "source6", ".allow[", ".deny["];
    Some(match said {
        "expected mapping start" => "write fields here, each with its name",
        "expected sequence start" => "write a list here",
        "expected string scalar" => "write one value here",
        "expected end of mapping after enum variant value" => "write only one of the choices here",
        "expected string key for externally tagged enum" => "write one of the choices here",
        "unexpected value for unit enum variant" => {
            "this choice has no fields: write its name alone"
        }
        "invalid boolean (strict mode expects true/false)" => "write true or false",
        "invalid socket address syntax" => {
            "write an address and a port, as 198.18.255.1:9090 or '[2001:db8::1]:9090'"
        }
        "invalid IP address syntax" if networks.iter().any(|one| field.contains(one)) => {
            "write a network, as 203.0.113.0/24 or 2001:db8::/32"
        }
        _ => return None,
    })
}

/// One way to write everything: no merge keys, no second spelling of booleans, no tags.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        merge_keys: serde_saphyr::MergeKeyPolicy::Error,
        reject_unsupported_tags: true,
        strict_booleans: true,
        with_snippet: false,
    }
}

//! What survives a restart beside the pinned state: what operators changed, and who had failed.
//!
//! It belongs to one configuration: with another one it is dropped, as when the file is read anew. The
//! file is replaced in one step, so a process that dies leaves the old or the new one.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{config::model::Config, desired::Changes};

/// The file's name in the configured directory.
const NAME: &str = "state.json";

/// What is saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The configuration to which it belongs.
    pub config: Config,
    /// What operators changed.
    pub changes: Changes,
    /// Who had failed its checks: service and backend.
    pub down: Vec<(String, IpAddr)>,
}

/// Why it can't be saved or read.
#[derive(Debug, Error)]
#[error("{}: {source}", .path.display())]
pub struct SaveError {
    path: PathBuf,
    source: io::Error,
}

impl Saved {
    /// Reads it; `None` if there is none.
    ///
    /// # Errors
    ///
    /// It can't be read or understood.
    pub fn read(directory: &Path) -> Result<Option<Self>, SaveError> {
        let path = directory.join(NAME);
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        };
        read.map(Some).map_err(|source| SaveError { path, source })
    }

    /// Replaces what was saved before.
    ///
    /// # Errors
    ///
    /// It can't be written; the old one is still there then.
    pub fn write(&self, directory: &Path) -> Result<(), SaveError> {
        let (path, new) = (directory.join(NAME), directory.join("state.json.new"));
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(|source| SaveError { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, desired::Desired};

    #[test]
    fn what_is_saved_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Saved::read(directory.path()).unwrap(), None);
        let checked = config::parse("lb.yaml", include_str!("../lb.yaml")).unwrap();
        let desired = Desired::new(checked);
        let backend = "198.18.0.11".parse().unwrap();
        let changed = desired.without_backend("web", backend).unwrap();
        let (config, changes) = (changed.file().clone(), changed.changes().clone());
        let saved = Saved { config, changes, down: vec![("web".into(), backend)] };
        saved.write(directory.path()).unwrap();
        assert_eq!(Saved::read(directory.path()).unwrap(), Some(saved));
    }

    #[test]
    fn what_isnt_understood_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(NAME), "{").unwrap();
        let error = Saved::read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("state.json"), "{error}");
    }
}

//! A setting of the running kernel that is changed for a while, and put back.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::tree;

/// Whether the JIT compiler blinds constants: 0, 1 (for the unprivileged) or 2 (for all).
pub(crate) const HARDENING: &str = "/proc/sys/net/core/bpf_jit_harden";

/// Puts the setting back when it is dropped.
#[must_use]
pub(crate) struct Changed {
    path: PathBuf,
    before: Vec<u8>,
}

impl Changed {
    /// Changes the setting in a file.
    pub(crate) fn to(path: &Path, value: &str) -> Result<Self, Error> {
        let before = tree::read(path)?;
        tree::write(path, value.as_bytes())?;
        Ok(Self { path: path.to_owned(), before })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Err(error) = tree::write(&self.path, &self.before) {
            eprintln!("{}", crate::error::chain(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_put_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("setting");
        tree::write(&path, b"0\n").unwrap();
        let changed = Changed::to(&path, "2").unwrap();
        assert_eq!(tree::read(&path).unwrap(), b"2");
        drop(changed);
        assert_eq!(tree::read(&path).unwrap(), b"0\n");
    }
}

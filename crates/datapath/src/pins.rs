//! The directory of pinned state: whose it is, and of which layout.
//!
//! Below the directory that the embedder names lies one that the layout's hash names, with the maps
//! and the links. The embedder's directory is locked (`flock(2)`) as long as a datapath is open on it;
//! a killed process loses the lock with its descriptors.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::{error::OpenError, sys::probe};

/// The directories of pinned state.
#[derive(Debug)]
pub(crate) struct Pins {
    _lock: File,
    root: PathBuf,
    pub(crate) maps: PathBuf,
    pub(crate) links: PathBuf,
    fresh: bool,
}

impl Pins {
    /// Locks a directory and makes those below it.
    pub(crate) fn prepare(directory: &Path) -> Result<Self, OpenError> {
        let lock = lock(directory)?;
        let layout = format!("v{:016x}", flowgate_abi::LAYOUT);
        refuse_foreign(directory, &layout)?;
        let root = directory.join(&layout);
        let fresh = !root.exists();
        let pins =
            Self { _lock: lock, maps: root.join("maps"), links: root.join("links"), root, fresh };
        for path in [&pins.maps, &pins.links] {
            fs::create_dir_all(path)
                .map_err(|source| OpenError::Pin { path: path.clone(), source })?;
        }
        if let Err(source) = probe::is_bpf_file_system(&pins.root) {
            pins.remove_if_fresh();
            return Err(OpenError::Pin { path: directory.to_owned(), source });
        }
        Ok(pins)
    }

    /// Removes what was made by an attempt that failed.
    pub(crate) fn remove_if_fresh(&self) {
        if self.fresh {
            self.remove();
        }
    }

    /// Removes everything that is pinned.
    pub(crate) fn remove(&self) {
        // What can't be removed is found by the next one who opens.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// The lock of a directory, which is made if it isn't there.
fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = || directory.to_owned();
    let failed = |source| OpenError::Pin { path: path(), source };
    fs::create_dir_all(directory).map_err(failed)?;
    let lock = File::open(directory).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// State of another layout isn't touched: it may belong to another build that still runs.
fn refuse_foreign(directory: &Path, layout: &str) -> Result<(), OpenError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(OpenError::Pin { path: directory.to_owned(), source }),
    };
    for entry in entries.flatten() {
        let found = entry.file_name().to_string_lossy().into_owned();
        if found != layout {
            return Err(OpenError::ForeignLayout {
                path: directory.to_owned(),
                found,
                expected: layout.to_owned(),
            });
        }
    }
    Ok(())
}

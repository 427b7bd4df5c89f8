//! The directory of pinned state: whose it is, and of which layout.
//!
//! Below the directory that the embedder names lies one that the layout's hash names, with the maps
//! and the links. The embedder's directory is locked (`flock(2)`) as long as a datapath is open on it;
//! a killed process loses the lock with its descriptors.
//!
//! Invariant: a directory that is named by a layout is complete. What is being made, or being removed,
//! has another name, and is removed by the next one who opens; one rename tells them apart. So a process
//! may be killed at any moment.

mod layout;

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use flowgate_abi::Settings;

use crate::{
    error::OpenError,
    migration::{MIGRATIONS, Migration, Networks},
    sys::{carry, probe},
};
use layout::{Contents, name};

/// Whose state is pinned, and how it is laid out.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The hash of its layout.
    pub(crate) layout: u64,
    /// Bytes of its settings.
    pub(crate) settings: usize,
    /// Its older layouts.
    pub(crate) migrations: &'static [Migration],
}

/// The policy datapath's.
pub(crate) static POLICY: Kind =
    Kind { layout: flowgate_abi::LAYOUT, settings: size_of::<Settings>(), migrations: MIGRATIONS };

/// The load balancer's.
pub(crate) static BALANCER: Kind = Kind {
    layout: flowgate_abi::lb::LAYOUT,
    settings: size_of::<flowgate_abi::lb::Settings>(),
    migrations: &[],
};

/// The directories of pinned state.
#[derive(Debug)]
pub(crate) struct Pins {
    _lock: File,
    kind: &'static Kind,
    directory: PathBuf,
    root: PathBuf,
    /// State of older layouts, of which everything is carried over already, or is about to be.
    older: Vec<&'static Migration>,
    complete: bool,
}

impl Pins {
    /// Locks a directory and finds the state in it: that of this layout, or of an older one, which
    /// is made ready by `carry`, from the older maps' directory to the new one's, or none.
    pub(crate) fn prepare(
        directory: &Path,
        kind: &'static Kind,
        carry: impl FnOnce(&Migration, &Path, &Path) -> io::Result<()>,
    ) -> Result<Self, OpenError> {
        let lock = lock(directory)?;
        let Contents { partial, older } = layout::contents(directory, kind)?;
        for leftover in partial {
            fs::remove_dir_all(&leftover).map_err(failed(&leftover))?;
        }
        let root = directory.join(name(kind.layout));
        let directory = directory.to_owned();
        let mut pins = Self { _lock: lock, kind, directory, root, older, complete: true };
        pins.forget_beginnings()?;
        if pins.root.exists() {
            return Ok(pins);
        }
        pins.begin()?;
        if let Err(error) = pins.carry_over(carry) {
            pins.give_up();
            return Err(error);
        }
        Ok(pins)
    }

    /// Builds that used a layout's name from the beginning may have been killed before there was any
    /// state.
    fn forget_beginnings(&mut self) -> Result<(), OpenError> {
        let older = std::mem::take(&mut self.older);
        for migration in older {
            let old = self.directory.join(name(migration.from));
            if has_state(&old, migration.settings_size)? {
                self.older.push(migration);
            } else {
                remove(&old).map_err(failed(&old))?;
            }
        }
        if self.root.exists() && !has_state(&self.root, self.kind.settings)? {
            remove(&self.root).map_err(failed(&self.root))?;
        }
        Ok(())
    }

    /// Makes directories under a name that says that they aren't complete.
    fn begin(&mut self) -> Result<(), OpenError> {
        self.root = layout::partial(&self.root);
        self.complete = false;
        for path in [self.maps(), self.links()] {
            fs::create_dir_all(&path).map_err(failed(&path))?;
        }
        probe::is_bpf_file_system(&self.root).map_err(|source| {
            self.give_up();
            failed(&self.directory)(source)
        })
    }

    /// Fills them with the state of the newest older layout, if there is any.
    fn carry_over(
        &mut self,
        carry: impl FnOnce(&Migration, &Path, &Path) -> io::Result<()>,
    ) -> Result<(), OpenError> {
        let Some(newest) = self.older.last() else { return Ok(()) };
        let from = self.directory.join(name(newest.from)).join("maps");
        let failed = |source| OpenError::Unreadable { path: from.clone(), source };
        carry(newest, &from, &self.maps()).map_err(failed)
    }

    /// The maps' directory.
    pub(crate) fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    /// The links' directory.
    pub(crate) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The layout that state is carried over from, if it is.
    pub(crate) fn migrates_from(&self) -> Option<u64> {
        self.older.last().map(|migration| migration.from)
    }

    /// The networks of an older layout's ipcache, if state is being carried over.
    pub(crate) fn networks(&self) -> Result<Option<Networks>, OpenError> {
        let Some(newest) = self.older.last().filter(|_| !self.complete) else { return Ok(None) };
        let path = self.directory.join(name(newest.from)).join("maps");
        let networks = (newest.networks)(&path);
        networks.map(Some).map_err(|source| OpenError::Unreadable { path, source })
    }

    /// Everything is loaded: from now on this is the state. Links of an older layout get the new
    /// programs by `renew`, each atomically, and what is left of it goes.
    pub(crate) fn commit(
        &mut self,
        mut renew: impl FnMut(&Path) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        if !self.complete {
            let root = self.directory.join(name(self.kind.layout));
            fs::rename(&self.root, &root).map_err(failed(&root))?;
            self.root = root;
            self.complete = true;
        }
        for migration in std::mem::take(&mut self.older) {
            let old = self.directory.join(name(migration.from));
            layout::move_links(&old.join("links"), &self.links())?;
            renew(&self.links())?;
            remove(&old).map_err(failed(&old))?;
        }
        Ok(())
    }

    /// Removes what was made by an attempt that failed.
    pub(crate) fn give_up(&self) {
        if !self.complete {
            // What can't be removed is found by the next one who opens.
            let _ = fs::remove_dir_all(&self.root);
        }
    }

    /// Removes everything that is pinned.
    pub(crate) fn remove(&self) {
        // As above.
        let _ = remove(&self.root);
    }
}

/// A directory of pinned links alone, locked as long as this lives.
#[derive(Debug)]
pub(crate) struct LinkPins {
    _lock: File,
    directory: PathBuf,
}

impl LinkPins {
    /// Locks a directory, which is made if it isn't there.
    pub(crate) fn open(directory: &Path) -> Result<Self, OpenError> {
        let pins = Self { _lock: lock(directory)?, directory: directory.to_owned() };
        probe::is_bpf_file_system(directory).map_err(failed(directory))?;
        Ok(pins)
    }

    /// Where they are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Pin { path, source }
}

fn has_state(root: &Path, settings_size: usize) -> Result<bool, OpenError> {
    let maps = root.join("maps");
    let failed = |source| OpenError::Unreadable { path: root.to_owned(), source };
    carry::is_complete(&maps, settings_size).map_err(failed)
}

/// Removes a directory that is complete; half of it is never taken for the whole.
fn remove(path: &Path) -> io::Result<()> {
    let partial = layout::partial(path);
    fs::rename(path, &partial)?;
    fs::remove_dir_all(partial)
}

/// The lock of a directory, which is made if it isn't there.
fn lock(directory: &Path) -> Result<File, OpenError> {
    fs::create_dir_all(directory).map_err(failed(directory))?;
    let lock = File::open(directory).map_err(failed(directory))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(directory)(source)),
    }
}

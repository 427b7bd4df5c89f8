//! The names below the embedder's directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Kind, failed};
use crate::{error::OpenError, migration::Migration};

/// What isn't complete has this behind its layout's name.
const PARTIAL: &str = "-partial";

/// What lies in the embedder's directory.
pub(super) struct Contents {
    /// What isn't complete, of layouts that this build knows.
    pub(super) partial: Vec<PathBuf>,
    /// State of older layouts, the newest last. More than one: a migration was interrupted behind the
    /// point at which the newer one has everything.
    pub(super) older: Vec<&'static Migration>,
}

/// The directory of a layout.
pub(super) fn name(layout: u64) -> String {
    format!("v{layout:016x}")
}

/// The name of a directory as long as it isn't complete.
pub(super) fn partial(root: &Path) -> PathBuf {
    let mut name = root.as_os_str().to_owned();
    name.push(PARTIAL);
    name.into()
}

/// Looks through a directory. State of a layout that this build doesn't know isn't touched: it may
/// belong to a newer build, or to another one that still runs.
pub(super) fn contents(directory: &Path, kind: &'static Kind) -> Result<Contents, OpenError> {
    let mut contents = Contents { partial: vec![], older: vec![] };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let entry = entry.map_err(failed(directory))?;
        found.push(entry.file_name().to_string_lossy().into_owned());
    }
    for entry in &found {
        let layout = entry.strip_suffix(PARTIAL).unwrap_or(entry);
        if !known(kind).any(|known| known == layout) {
            return Err(OpenError::ForeignLayout {
                path: directory.to_owned(),
                found: entry.clone(),
                known: known(kind).collect(),
            });
        }
        if layout != entry {
            contents.partial.push(directory.join(entry));
        }
    }
    let older = kind.migrations.iter().filter(|migration| found.contains(&name(migration.from)));
    contents.older.extend(older);
    Ok(contents)
}

/// The layouts that this build knows: its own, then older ones.
fn known(kind: &Kind) -> impl Iterator<Item = String> {
    let older = kind.migrations.iter().map(|migration| name(migration.from));
    std::iter::once(name(kind.layout)).chain(older)
}

/// Moves pinned links, one by one.
pub(super) fn move_links(from: &Path, to: &Path) -> Result<(), OpenError> {
    if !from.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(from).map_err(failed(from))? {
        let entry = entry.map_err(failed(from))?;
        fs::rename(entry.path(), to.join(entry.file_name())).map_err(failed(&entry.path()))?;
    }
    Ok(())
}

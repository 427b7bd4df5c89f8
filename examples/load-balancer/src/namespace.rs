//! The network namespace in which everything happens.
//!
//! A namespace belongs to a thread, so it is entered before there is a second one: every thread that
//! comes later is there too.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns};
use thiserror::Error;

/// Where `ip netns` keeps the namespaces that have names.
const NAMED: &str = "/run/netns";

/// The namespace can't be entered.
#[derive(Debug, Error)]
#[error("network namespace {}: {source}", .path.display())]
pub struct NamespaceError {
    path: PathBuf,
    source: io::Error,
}

/// Moves the calling thread into a namespace, given by path or by name.
///
/// # Errors
///
/// There is none, or the process lacks `CAP_SYS_ADMIN`.
pub(crate) fn enter(namespace: &Path) -> Result<(), NamespaceError> {
    let path = path_of(namespace);
    let entered = File::open(&path).and_then(|file| Ok(setns(file, CloneFlags::CLONE_NEWNET)?));
    entered.map_err(|source| NamespaceError { path, source })
}

fn path_of(namespace: &Path) -> PathBuf {
    match namespace.components().count() {
        1 if !namespace.has_root() => Path::new(NAMED).join(namespace),
        _ => namespace.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_ip_netns() {
        assert_eq!(path_of(Path::new("edge")), Path::new("/run/netns/edge"));
        assert_eq!(path_of(Path::new("/proc/7/ns/net")), Path::new("/proc/7/ns/net"));
        assert_eq!(path_of(Path::new("./edge")), Path::new("./edge"));
    }
}

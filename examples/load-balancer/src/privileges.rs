//! What the process may still do once it runs.
//!
//! It stays root by name and keeps three capabilities; whatever it starts could have no more. It doesn't become
//! another user: pinned state, socket and saved state belong to root, so that nobody else can reach or replace
//! them, and a user who owned them would have to be protected as well as root.
//!
//! - `CAP_BPF`: reading and writing maps, loading a program again (Linux 5.8).
//! - `CAP_NET_ADMIN`: putting it on another interface when the file says so.
//! - `CAP_PERFMON`: the verifier accepts programs of those who have it as it does those of root.
//! - `CAP_SYS_ADMIN`, only with a place in libxdp's dispatcher: the kernel gives others' programs to nobody else.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::sys::prctl::set_no_new_privs;
use thiserror::Error;

const KEPT: [Capability; 3] =
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// Capabilities can't be dropped.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// The system refuses.
    #[error("capabilities can't be dropped: {0}")]
    Caps(#[from] CapsError),
    /// The system refuses.
    #[error("no_new_privs can't be set: {0}")]
    NoNewPrivileges(#[from] nix::Error),
}

/// Drops all but what is needed, with or without dispatchers, for the calling thread and those that it starts later.
///
/// # Errors
///
/// The system refuses.
pub(crate) fn drop_all_but_needed(dispatched: bool) -> Result<(), PrivilegeError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let more = dispatched.then_some(Capability::CAP_SYS_ADMIN);
    let kept = KEPT.into_iter().chain(more);
    let kept: CapsHashSet = kept.filter(|one| permitted.contains(one)).collect();
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for gone in caps::read(None, CapSet::Bounding)?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *gone)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    set_no_new_privs()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dispatchers_need_one_more() {
        let admin = Capability::CAP_SYS_ADMIN;
        let had = caps::has_cap(None, CapSet::Permitted, admin).unwrap();
        drop_all_but_needed(true).unwrap();
        assert_eq!(caps::has_cap(None, CapSet::Effective, admin).unwrap(), had);
    }

    /// Capabilities belong to a thread, and every test has its own.
    #[test]
    fn what_isnt_needed_is_gone() {
        drop_all_but_needed(false).unwrap();
        let needed: CapsHashSet = KEPT.into_iter().collect();
        for set in [CapSet::Permitted, CapSet::Effective, CapSet::Inheritable, CapSet::Ambient] {
            let left = caps::read(None, set).unwrap();
            assert!(left.is_subset(&needed), "{set:?}: {left:?}");
        }
        assert!(nix::sys::prctl::get_no_new_privs().unwrap());
    }
}

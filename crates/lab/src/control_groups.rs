//! Control groups of a test's own, whose sockets a program may be bound to.
//!
//! Invariant: once dropped, the process is back where it was, and neither groups nor mount are left; what couldn't be
//! cleaned up is a panic, unless there is one already.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount, umount};

use crate::LabError;

/// Control groups below one of this process's, in a file system of cgroup v2 that is mounted for them. A process is in
/// one control group at a time, so there is one of these at a time.
#[derive(Debug)]
pub struct ControlGroups {
    mounted: PathBuf,
    before: PathBuf,
    root: PathBuf,
    names: Vec<String>,
}

impl ControlGroups {
    /// Makes groups with these names.
    ///
    /// # Errors
    /// [`LabError::Mount`]: there is no cgroup v2, or no privilege for it. Others: a group couldn't be made.
    pub fn make(names: &[&str]) -> Result<Self, LabError> {
        let own = format!("flowgate-groups-{}", std::process::id());
        let mounted = std::env::temp_dir().join(&own);
        let before = mounted.join(current()?);
        let failed =
            |source| LabError::Mount { what: "cgroup v2", target: mounted.clone(), source };
        fs::create_dir_all(&mounted).map_err(failed)?;
        let none = None::<&str>;
        if let Err(error) = mount(none, &mounted, Some("cgroup2"), MsFlags::empty(), none) {
            let _ = fs::remove_dir(&mounted);
            return Err(failed(error.into()));
        }
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let groups = Self { root: mounted.join(own), mounted, before, names };
        let made = |path: PathBuf| {
            fs::create_dir_all(&path).map_err(|source| LabError::ControlGroup { path, source })
        };
        groups.names.iter().try_for_each(|name| made(groups.path(name)))?;
        Ok(groups)
    }

    /// The directory of a group.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Moves this process: sockets that it makes from now on are this group's.
    ///
    /// # Errors
    /// [`LabError::ControlGroup`]: the kernel refuses.
    pub fn enter(&self, name: &str) -> Result<(), LabError> {
        let path = self.path(name);
        join(&path).map_err(|source| LabError::ControlGroup { path, source })
    }
}

impl Drop for ControlGroups {
    fn drop(&mut self) {
        let left = join(&self.before);
        // Those below first; what still has sockets goes all the same.
        let paths = self.names.iter().map(|name| self.path(name)).chain([self.root.clone()]);
        let removed: Vec<_> = paths.map(fs::remove_dir).collect();
        let unmounted = umount(&self.mounted);
        let _ = fs::remove_dir(&self.mounted);
        if !std::thread::panicking() {
            assert!(left.is_ok() && removed.iter().all(Result::is_ok), "{left:?} {removed:?}");
            assert_eq!(unmounted, Ok(()));
        }
    }
}

/// The group in which this process is.
fn current() -> Result<String, LabError> {
    let path = PathBuf::from("/proc/self/cgroup");
    let read =
        fs::read_to_string(&path).map_err(|source| LabError::ControlGroup { path, source })?;
    let own = read.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(own.unwrap_or_default().to_owned())
}

fn join(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
}

//! The directory in which programs of dispatchers are pinned, its lock, and the interface's program exchanged.

use std::{
    env,
    fs::{self, File, TryLockError},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::config::MOST;
use crate::{
    lb::{DispatcherError, XdpMode},
    sys::{
        link::Link,
        syscall::{self, xdp},
    },
};

/// Where they are, unless the environment says where the BPF file system is.
const FILE_SYSTEM: &str = "/sys/fs/bpf";
const ENVIRONMENT: &str = "LIBXDP_BPFFS";
/// How long others may have the lock, who have it for some milliseconds.
const TRIES: u32 = 100;
const BETWEEN: Duration = Duration::from_millis(20);

fn root() -> PathBuf {
    let above = env::var_os(ENVIRONMENT).unwrap_or_else(|| FILE_SYSTEM.into());
    Path::new(&above).join("xdp")
}

fn directory(ifindex: u32, id: u32) -> PathBuf {
    root().join(format!("dispatch-{ifindex}-{id}"))
}

/// Nobody else changes a dispatcher as long as this lives.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take() -> Result<Self, DispatcherError> {
        let path = root();
        let failed = |source| DispatcherError::Pins { path: path.clone(), source };
        fs::create_dir_all(&path).map_err(failed)?;
        let file = File::open(&path).map_err(failed)?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) => thread::sleep(BETWEEN),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        Err(DispatcherError::Locked { path })
    }
}

/// The program in a dispatcher's place.
pub(super) fn pinned(ifindex: u32, id: u32, place: usize) -> Result<OwnedFd, DispatcherError> {
    let path = directory(ifindex, id).join(format!("prog{place}-prog"));
    xdp::pinned(&path).map_err(|source| DispatcherError::Pins { path, source })
}

/// Pins what a dispatcher runs: each program and what holds it in its place.
pub(super) fn pin(
    ifindex: u32,
    id: u32,
    all: &[(BorrowedFd<'_>, OwnedFd)],
) -> Result<(), DispatcherError> {
    let directory = directory(ifindex, id);
    let failed = |path: &Path, source| DispatcherError::Pins { path: path.to_owned(), source };
    fs::create_dir_all(&directory).map_err(|source| failed(&directory, source))?;
    for (place, (program, link)) in all.iter().enumerate() {
        for (fd, what) in [(link.as_fd(), "link"), (*program, "prog")] {
            let path = directory.join(format!("prog{place}-{what}"));
            syscall::pin(fd, &path).map_err(|source| failed(&path, source))?;
        }
    }
    Ok(())
}

/// Removes the pins of a dispatcher that no interface runs any more.
pub(super) fn unpin(ifindex: u32, id: u32) {
    let directory = directory(ifindex, id);
    for place in 0..MOST {
        for what in ["link", "prog"] {
            // There need not be one.
            let _ = fs::remove_file(directory.join(format!("prog{place}-{what}")));
        }
    }
    // What others have put there stays.
    let _ = fs::remove_dir(directory);
}

/// Puts a program in the place of another one, or of none; or none in its place. Somebody else was quicker:
/// [`super::super::is_taken`].
pub(super) fn exchange(
    ifindex: u32,
    old: Option<BorrowedFd<'_>>,
    new: Option<BorrowedFd<'_>>,
    mode: XdpMode,
) -> io::Result<()> {
    const ONLY_IF_NONE: u32 = 1;
    const REPLACE: u32 = 1 << 4;
    let mode = match mode {
        XdpMode::Generic => 1 << 1,
        XdpMode::Native => 1 << 2,
    };
    let number = |fd: Option<BorrowedFd<'_>>| fd.map_or(-1, |fd| fd.as_raw_fd());
    let flags = mode | if old.is_some() { REPLACE } else { ONLY_IF_NONE };
    Link::exchange_xdp(ifindex, number(new), (number(old), flags))
}

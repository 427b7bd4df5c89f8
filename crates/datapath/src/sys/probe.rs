//! What the kernel and the process may do, asked before anything is made.

use std::{io, path::Path};

use super::syscall;
use crate::error::OpenError;

/// The oldest kernel on which the objects are promised to load.
pub(crate) const MINIMUM: (u32, u32) = (6, 1);

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Jiffies per second.
    pub(crate) hertz: u32,
    /// `uname -r`.
    pub(crate) release: String,
}

/// Asks, and says what is missing.
pub(crate) fn probe(minimum: (u32, u32)) -> Result<Probe, OpenError> {
    let release = release().map_err(OpenError::Kernel)?;
    if let Some(version) = version(&release)
        && version < minimum
    {
        return Err(OpenError::KernelTooOld { release, minimum });
    }
    Ok(Probe { hertz: permitted()?, release })
}

/// Asks for capabilities alone, whatever the kernel's version, and returns jiffies per second.
pub(crate) fn permitted() -> Result<u32, OpenError> {
    capabilities()?;
    syscall::hertz().map_err(OpenError::Kernel)
}

/// The kernel has `bpf_ktime_get_coarse_ns` (Linux 5.11).
pub(crate) fn has_coarse_clock() -> bool {
    release().ok().and_then(|release| version(&release)).is_some_and(|version| version >= (5, 11))
}

fn release() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A directory lies in a BPF file system.
pub(crate) fn is_bpf_file_system(path: &Path) -> io::Result<()> {
    /// `BPF_FS_MAGIC` (`include/uapi/linux/magic.h`).
    const MAGIC: u64 = 0xcafe_4a11;
    if syscall::file_system(path)? == MAGIC {
        Ok(())
    } else {
        Err(io::Error::other("not in a BPF file system"))
    }
}

/// `CAP_BPF` (39) and `CAP_NET_ADMIN` (12), or `CAP_SYS_ADMIN` (21) for both; `CAP_PERFMON` (38) or
/// `CAP_SYS_ADMIN` for pointer arithmetic in programs (Linux 5.8).
fn capabilities() -> Result<(), OpenError> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(OpenError::Kernel)?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(if syscall::is_root() { u64::MAX } else { 0 });
    match missing(effective).next() {
        Some(capability) => Err(OpenError::MissingCapability { capability }),
        None => Ok(()),
    }
}

fn missing(effective: u64) -> impl Iterator<Item = &'static str> {
    let has = move |bit: u32| effective & (1 << bit) != 0;
    let needed = [(39, "CAP_BPF"), (38, "CAP_PERFMON"), (12, "CAP_NET_ADMIN")];
    needed
        .into_iter()
        .filter(move |(bit, _)| !has(*bit) && (*bit == 12 || !has(21)))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_versions() {
        assert_eq!(version("6.1.0-56-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("6.18.44"), Some((6, 18)));
        assert_eq!(version("rolling"), None);
    }

    #[test]
    fn the_missing_capability_is_named() {
        assert_eq!(missing(0).next(), Some("CAP_BPF"));
        assert_eq!(missing(1 << 21).next(), Some("CAP_NET_ADMIN"));
        assert_eq!(missing(1 << 21 | 1 << 12).next(), None);
        assert_eq!(missing(1 << 39 | 1 << 38 | 1 << 12).next(), None);
    }
}

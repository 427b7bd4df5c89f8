//! Whether the kernel lets us load programs here, asked without loading one.

use std::process::Command;

use crate::error::Error;
use crate::process;

/// Bits of the capability sets, from linux/capability.h.
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;

/// Fails with what is missing for the privileged tests, if anything.
pub(crate) fn require() -> Result<(), Error> {
    missing().map_or(Ok(()), |reason| Err(Error::Privileges { reason }))
}

fn missing() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = effective_capabilities(&status);
    // Namespaces and mounts need CAP_SYS_ADMIN in any case, and it includes CAP_BPF.
    for (bit, name) in [(SYS_ADMIN, "CAP_SYS_ADMIN"), (NET_ADMIN, "CAP_NET_ADMIN")] {
        if effective & (1 << bit) == 0 {
            return Some(format!("{name} is missing (run as root)"));
        }
    }
    let mut probe = Command::new("unshare");
    probe.args(["--net", "--mount", "--", "mount", "-t", "bpf", "bpf", "/sys/fs/bpf"]);
    match process::ask(&mut probe) {
        Some(_) => None,
        None => Some("namespaces with a bpffs of their own are refused here".to_owned()),
    }
}

fn effective_capabilities(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_status() {
        let status = "Name:\tx\nCapInh:\t0000000000000000\nCapEff:\t0000000000201000\n";
        assert_eq!(effective_capabilities(status), 1 << NET_ADMIN | 1 << SYS_ADMIN);
        assert_eq!(effective_capabilities("Name:\tx\n"), 0);
    }
}

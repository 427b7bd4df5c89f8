//! Whether a lab can be made here, and if not, what is missing.

use std::fs;

use thiserror::Error;

use crate::{
    LabError, Mac, Namespace,
    namespace::on_a_thread,
    netlink::{Netlink, VethEnd},
    sysctl,
};

/// Of the capabilities (`linux/capability.h`), those that a lab needs.
const NEEDED: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// What is missing for a lab.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum Unavailable {
    /// The process lacks capabilities.
    #[error("this process lacks {} (run it as root)", .names.join(" and "))]
    Capabilities {
        /// Which.
        names: Vec<&'static str>,
    },
    /// The kernel or a sandbox refuses what a lab is made of.
    #[error("no network namespace with a veth pair can be made here: {}", chain(.source))]
    Refused {
        /// What was refused.
        #[source]
        source: LabError,
    },
}

/// Whether a lab can be made here. It is tried out, in a namespace that is gone afterwards.
///
/// # Errors
///
/// [`Unavailable`] says what is missing.
pub fn available() -> Result<(), Unavailable> {
    let names = missing_capabilities();
    if !names.is_empty() {
        return Err(Unavailable::Capabilities { names });
    }
    on_a_thread(try_out).flatten().map_err(|source| Unavailable::Refused { source })
}

fn try_out() -> Result<(), LabError> {
    let namespace = Namespace::enter_new()?;
    sysctl::set_everywhere()?;
    let here = VethEnd { name: "fg-here", mac: Mac::of_host(1) };
    let there = VethEnd { name: "fg-there", mac: Mac::of_pod(1) };
    Netlink::open()?.add_veth(&here, &there, &namespace)
}

/// Without `/proc` none is known to be missing; trying out tells.
fn missing_capabilities() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    effective(&status).map_or_else(Vec::new, missing_of)
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing_of(effective: u64) -> Vec<&'static str> {
    let missing = NEEDED.iter().filter(|(bit, _)| effective & (1 << bit) == 0);
    missing.map(|&(_, name)| name).collect()
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let status = "Name:\ttest\nCapEff:\t0000000000001000\n";
        let names = missing_of(effective(status).unwrap());
        let text = Unavailable::Capabilities { names }.to_string();
        assert_eq!(text, "this process lacks CAP_SYS_ADMIN (run it as root)");
        assert!(missing_of(u64::MAX).is_empty());
    }
}

//! A filter in front of the balancer, as an embedder writes one: it blocks sources by prefix, and holds others to
//! a rate.
//!
//! The program is in `programs/`, and prebuilt in `objects/`; [`stage`] hands it to the balancer, and [`Limits`]
//! writes its maps. `cargo xtask build-ebpf --only stage` builds it.
//!
//! Not here: what the program decides with ([`Rule`] is one file for both). Tested by `rules` on the host, by
//! `kernel_limits` in the kernel, and by `netns_limits` on a wire.

use std::net::IpAddr;

use flowgate_datapath::{
    TableError,
    lb::{LoadBalancer, Stage, StageMap},
};

#[path = "../programs/src/rule.rs"]
mod rule;

pub use rule::Rule;

const OBJECT: &[u8] = include_bytes!("../objects/stage.o");
const PROGRAM: &str = "xdp_limit";

/// The filter, for [`flowgate_datapath::lb::Builder::before`].
pub fn stage() -> Stage {
    Stage::object(OBJECT, PROGRAM)
}

/// The rules of a filter that is loaded.
#[derive(Debug)]
pub struct Limits<'b> {
    rules: StageMap<'b>,
    dropped: StageMap<'b>,
}

impl<'b> Limits<'b> {
    /// Of a balancer; `None`: it was opened without the filter.
    ///
    /// # Errors
    /// The kernel doesn't tell of its maps.
    pub fn of(balancer: &'b LoadBalancer) -> Result<Option<Self>, TableError> {
        let map = |name| balancer.stage_map(PROGRAM, name);
        Ok(map("RULES")?.zip(map("DROPPED")?).map(|(rules, dropped)| Self { rules, dropped }))
    }

    /// What the sources of a prefix may send. Of several prefixes the longest counts.
    ///
    /// # Errors
    /// The kernel refused: there are 4096 already, or it isn't a prefix's length.
    pub fn set(&self, (address, length): (IpAddr, u8), rule: Rule) -> Result<(), TableError> {
        self.rules.set(&key(address, length), &rule.bytes())
    }

    /// Lets the sources of a prefix send again what they like, if there is no shorter one.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn remove(&self, (address, length): (IpAddr, u8)) -> Result<(), TableError> {
        self.rules.remove(&key(address, length))
    }

    /// Frames that were dropped.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn dropped(&self) -> Result<u64, TableError> {
        let each = self.dropped.get(&0u32.to_ne_bytes())?.unwrap_or_default();
        let each = each.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_ne_bytes));
        Ok(each.sum())
    }
}

/// The length of a prefix and its address, as the kernel's trie has them; IPv4 within `::ffff:0:0/96`.
fn key(address: IpAddr, length: u8) -> [u8; 20] {
    let (octets, length) = match address {
        IpAddr::V4(address) => (address.to_ipv6_mapped().octets(), u32::from(length) + 96),
        IpAddr::V6(address) => (address.octets(), u32::from(length)),
    };
    let mut key = [0; 20];
    key[..4].copy_from_slice(&length.to_ne_bytes());
    key[4..].copy_from_slice(&octets);
    key
}

//! Full NAT: the addresses and ports that packets to backends come from.

use std::{net::IpAddr, ops::RangeInclusive};

use flowgate_abi::lb::{
    CELLS, Settings, maps,
    nat::{GROUP, MAX_PORTS},
};
use flowgate_abi::maps::MapSpec;
use flowgate_services::NatTimeouts;

use crate::error::OpenError;

/// What services with [`Forwarding::Snat`](flowgate_services::model::Forwarding::Snat) share. The default
/// has no sources, and takes next to no memory.
///
/// A port is a flow's, of either protocol. Each takes 128 bytes, and 32 of the table by which flows find
/// their ports. Adopted state keeps ports and places; sources and time-outs are what is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatOptions {
    /// Addresses that packets to backends come from, of either family. What is sent to them must reach an
    /// interface that has the balancer, the one by which the flow's first packet came: by a route, or as
    /// an address of that interface. Nobody else may send from them. They may change while the balancer runs
    /// ([`Services::with_nat_sources`](flowgate_services::Services::with_nat_sources)).
    pub sources: Vec<IpAddr>,
    /// Places for sources of IPv4. A source has one until the last of its flows is over, also when it isn't wanted
    /// any more; their number is fixed. `None`: one more than `sources` has of that family, none if it has none.
    pub places4: Option<usize>,
    /// Places for sources of IPv6, likewise.
    pub places6: Option<usize>,
    /// Ports of each source, in whole groups of 64 from the first on. Packets to other ports are the host's.
    ///
    /// If a source is an address of the host's own, its own connections must come from other ports: the
    /// default lies below those that Linux chooses by itself (`net.ipv4.ip_local_port_range`, 32768 to
    /// 60999). Ports on which the host listens mustn't be among them either.
    pub ports: RangeInclusive<u16>,
    /// How long flows may be silent.
    pub timeouts: NatTimeouts,
}

impl Default for NatOptions {
    /// No sources; ports 1024 to 32767.
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            places4: None,
            places6: None,
            ports: 1024..=32767,
            timeouts: NatTimeouts::default(),
        }
    }
}

impl NatOptions {
    pub(super) fn check(&self) -> Result<(), OpenError> {
        let problem = |option, value, problem| Err(OpenError::Option { option, value, problem });
        let (first, ports) = (usize::from(*self.ports.start()), self.each() as usize);
        if first == 0 {
            return problem("nat.ports", first, "no flow has port 0");
        }
        if ports == 0 {
            return problem("nat.ports", self.ports.len(), "is less than a group of 64");
        }
        let [v4, v6] = self.places();
        for (option, places, is_v4) in [("nat.places4", v4, true), ("nat.places6", v6, false)] {
            if places < self.count(is_v4) {
                return problem(option, places, "is less than there are sources");
            }
            if v4.saturating_add(v6) > self.most_places() {
                return problem(option, places, "is too large");
            }
        }
        Ok(())
    }

    /// Sources of a family.
    fn count(&self, is_v4: bool) -> usize {
        self.sources.iter().filter(|source| source.is_ipv4() == is_v4).count()
    }

    /// Places for sources of IPv4, and of IPv6, also where the options leave them out.
    #[must_use]
    pub fn places(&self) -> [usize; 2] {
        [(self.places4, true), (self.places6, false)].map(|(places, is_v4)| {
            let sources = self.count(is_v4);
            places.unwrap_or(if sources == 0 { 0 } else { sources + 1 })
        })
    }

    /// The most places that there can be of both families together: flows name their ports among 2^26.
    #[must_use]
    pub fn most_places(&self) -> usize {
        MAX_PORTS as usize / self.ports_each().max(1)
    }

    /// Ports of each source that flows may have: those in whole groups.
    #[must_use]
    pub fn ports_each(&self) -> usize {
        (self.each() * GROUP) as usize
    }

    /// Groups of each source.
    fn each(&self) -> u32 {
        self.ports.len() as u32 / GROUP
    }

    /// Sizes, in settings that have none.
    pub(super) fn settings(&self, settings: Settings) -> Settings {
        let each = self.each();
        let [v4, v6] = self.places().map(|places| places as u32);
        let ports = (v4 + v6) * each * GROUP;
        // At most half full, so that a mapping finds room wherever a port is free.
        let buckets = (2 * ports).div_ceil(CELLS as u32).next_power_of_two().max(2);
        Settings {
            nat_mask: buckets - 1,
            nat_groups: [v4 * each, v6 * each],
            nat_groups_each: each,
            nat_first_port: u32::from(*self.ports.start()),
            ..settings
        }
    }

    /// Entries of its maps. A map has one at least.
    pub(super) fn sizes(settings: &Settings) -> [(&'static MapSpec, u32); 4] {
        let groups: u32 = settings.nat_groups.iter().sum();
        [
            (&maps::NAT_SOURCES, Self::room(settings).max(1)),
            (&maps::NAT_TAKEN, groups.max(1)),
            (&maps::NAT_PORTS, (groups * GROUP).max(1)),
            (&maps::NAT_FLOWS, settings.nat_mask + 1),
        ]
    }

    /// Places for sources.
    pub(super) fn room(settings: &Settings) -> u32 {
        settings.nat_groups.iter().sum::<u32>() / settings.nat_groups_each.max(1)
    }
}

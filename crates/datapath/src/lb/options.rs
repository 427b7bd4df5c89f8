//! How large the balancer's tables are, and the network that it is in.

use std::time::Duration;

use flowgate_abi::{
    fragment,
    lb::{
        AGES, CELLS, MAX_SLOTS, SLOTS, Settings,
        maps::{self, DISPLACEMENTS_EACH},
    },
    maps::{MapKind, MapSpec},
};
use flowgate_services::{Uplink, store::Room};

use super::NatOptions;
use crate::error::OpenError;

/// Sizes of the tables, and what all services have in common. The default needs less than 32 MiB beside
/// what is counted for each CPU, and serves 1,000 services of 10 backends; [`BalancerOptions::memory`] says
/// what other values need.
///
/// State that is adopted keeps the sizes that it was made with, `longest_idle`, `fragment` and
/// `errors_per_second`; `uplink` and `seed` are what is given; of `nat` see
/// [`NatOptions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancerOptions {
    /// Frontends (an address, a protocol and a port of a service), and one more for each address.
    pub frontends: usize,
    /// Slots of all services' tables, up to 2^26.
    pub slots: usize,
    /// Lines of all services' backends. A service takes a quarter more than it has backends, at least
    /// five more, rounded up to a multiple of 8, for each family of its addresses.
    pub lines: usize,
    /// Services.
    pub services: usize,
    /// Networks of all services' source ranges, for each family of a service's addresses those of that
    /// family. While a service's ranges change, its old ones take room as well.
    pub sources: usize,
    /// Flows that are tracked at one time while tables change; with so many, at most three quarters of
    /// their table are full. None is evicted: what doesn't fit waits.
    pub tracked: usize,
    /// Clients that services with affinity remember at one time. None is forgotten before its time: who finds no
    /// room is balanced by the table alone, and counted
    /// ([`Counter::PinsRefused`](flowgate_abi::lb::Counter::PinsRefused)).
    pub clients: usize,
    /// Datagrams whose fragments are under way at one time.
    pub fragments: usize,
    /// For how long the later fragments of a datagram find its ports.
    pub fragment: Duration,
    /// ICMP errors (packet too big) that each CPU may send per second; what is beyond is dropped.
    pub errors_per_second: u32,
    /// The longest idle time that a service can have ([`flowgate_services::model::ServiceOptions::idle`]).
    /// Ages of tracked flows are told to a 32nd of it.
    pub longest_idle: Duration,
    /// What decides, with the service's addresses, which of its slots a flow has. Balancers that share
    /// traffic have the same; who knows it can aim at a backend.
    pub seed: u64,
    /// The network between the balancer and its backends.
    pub uplink: Uplink,
    /// Full NAT.
    pub nat: NatOptions,
}

impl Default for BalancerOptions {
    fn default() -> Self {
        Self {
            frontends: 4096,
            slots: 1 << 21,
            lines: 1 << 15,
            services: 2048,
            sources: 4096,
            tracked: 1 << 18,
            clients: 1 << 16,
            fragments: 2048,
            fragment: Duration::from_secs(5),
            errors_per_second: 1000,
            longest_idle: Duration::from_secs(320),
            seed: 0,
            uplink: Uplink::default(),
            nat: NatOptions::default(),
        }
    }
}

impl BalancerOptions {
    /// Bytes that the maps take on a machine of so many CPUs; `usize::MAX` for sizes that opening
    /// refuses.
    #[must_use]
    pub fn memory(&self, cpus: usize) -> usize {
        if self.check().is_err() {
            return usize::MAX;
        }
        let sizes = self.sizes(&self.settings(1000));
        let bytes = sizes.iter().map(|(spec, entries)| {
            let times = if spec.kind == MapKind::PerCpuArray { cpus } else { 1 };
            *entries as usize * spec.value * times
        });
        bytes.sum()
    }

    /// Whether there can be such tables, as opening asks first.
    ///
    /// # Errors
    /// [`OpenError::Option`] names what is too small or too large.
    pub fn check(&self) -> Result<(), OpenError> {
        let limits = [
            ("frontends", self.frontends, 1, 1 << 24),
            ("slots", self.slots, SLOTS, MAX_SLOTS as usize),
            ("lines", self.lines, 8, 1 << 24),
            ("services", self.services, 1, 1 << 20),
            ("sources", self.sources, 1, 1 << 23),
            ("tracked", self.tracked, 1, 1 << 26),
            ("clients", self.clients, 1, 1 << 26),
            ("fragments", self.fragments, 1, 1 << 20),
        ];
        for (option, value, least, most) in limits {
            if value < least {
                return Err(OpenError::Option { option, value, problem: "is too small" });
            }
            if value > most {
                return Err(OpenError::Option { option, value, problem: "is too large" });
            }
        }
        self.nat.check()
    }

    pub(crate) fn settings(&self, hertz: u32) -> Settings {
        let cells = self.cells();
        self.nat.settings(Settings {
            fragment_seed: seed(),
            displacement_mask: cells.max(DISPLACEMENTS_EACH as u32) - 1,
            frontend_shift: 32 - cells.ilog2(),
            tracked_mask: buckets(self.tracked) - 1,
            fragment_mask: fragment_buckets(self.fragments) - 1,
            fragment_timeout: jiffies(self.fragment, hertz),
            hz: hertz,
            errors_per_second: self.errors_per_second,
            age_length: age_length(self.longest_idle),
            pin_mask: buckets(self.clients) - 1,
            ..Settings::default()
        })
    }

    /// Cells of the perfect hash: half of them can be used.
    fn cells(&self) -> u32 {
        (2 * self.frontends).next_power_of_two() as u32
    }

    /// Nodes in which so many networks fit, however services share them.
    fn source_nodes(&self) -> u32 {
        (self.sources + self.sources.div_ceil(4)) as u32
    }

    /// Entries of the maps whose size depends on the options.
    pub(crate) fn sizes(&self, settings: &Settings) -> Vec<(&'static MapSpec, u32)> {
        let (slots, lines) = (self.slots as u32, self.lines as u32);
        let mut sizes = vec![
            (&maps::DISPLACEMENTS, (settings.displacement_mask + 1) / DISPLACEMENTS_EACH as u32),
            (&maps::FRONTENDS, 1 << (32 - settings.frontend_shift)),
            (&maps::SLOTS, slots.div_ceil(SLOTS as u32)),
            (&maps::BACKENDS, lines),
            (&maps::SOURCES, self.source_nodes()),
            (&maps::TRACKED, settings.tracked_mask + 1),
            (&maps::PINS, settings.pin_mask + 1),
            (&maps::REFUSED, self.services as u32),
            (&maps::FRAGMENTS, settings.fragment_mask + 1),
            (&maps::LOADS, lines),
        ];
        sizes.extend(NatOptions::sizes(settings));
        sizes
    }

    pub(crate) fn room(&self, settings: &Settings) -> Room {
        Room {
            frontends: 1 << (32 - settings.frontend_shift),
            slots: (self.slots as u32).next_multiple_of(SLOTS as u32),
            lines: self.lines as u32,
            services: self.services as u32,
            sources: self.source_nodes(),
            tracked: (settings.tracked_mask + 1) * CELLS as u32,
            nat_sources: NatOptions::room(settings),
            pins: (settings.pin_mask + 1) * CELLS as u32,
        }
    }
}

/// Milliseconds of an age, of which half of the circle tell the longest idle time.
fn age_length(longest_idle: Duration) -> u32 {
    let each = longest_idle.as_millis().div_ceil(u128::from(AGES / 2));
    u32::try_from(each).unwrap_or(u32::MAX).max(1)
}

/// Buckets in which so many entries take three quarters of the cells.
fn buckets(entries: usize) -> u32 {
    let cells = entries.saturating_mul(4).div_ceil(3);
    cells.div_ceil(CELLS).next_power_of_two().max(2) as u32
}

/// Buckets of four ways that hold so many datagrams at half load.
fn fragment_buckets(datagrams: usize) -> u32 {
    (2 * datagrams).div_ceil(fragment::WAYS).next_power_of_two() as u32
}

/// In jiffies, at least one.
fn jiffies(timeout: Duration, hertz: u32) -> u32 {
    let jiffies = timeout.as_millis() * u128::from(hertz) / 1000;
    u32::try_from(jiffies).unwrap_or(u32::MAX).max(1)
}

/// A seed that nobody outside can guess.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_needs_less_than_32_mib() {
        let memory = BalancerOptions::default().memory(0);
        assert!(memory < 32 << 20, "{memory} bytes");
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        let refused =
            |options: BalancerOptions| options.check().is_err() && options.memory(1) == usize::MAX;
        for size in [0, usize::MAX] {
            let options = BalancerOptions::default;
            assert!(refused(BalancerOptions { frontends: size, ..options() }));
            assert!(refused(BalancerOptions { slots: size, ..options() }));
            assert!(refused(BalancerOptions { lines: size, ..options() }));
            assert!(refused(BalancerOptions { services: size, ..options() }));
            assert!(refused(BalancerOptions { sources: size, ..options() }));
            assert!(refused(BalancerOptions { tracked: size, ..options() }));
            assert!(refused(BalancerOptions { clients: size, ..options() }));
            assert!(refused(BalancerOptions { fragments: size, ..options() }));
        }
    }

    #[test]
    fn ages_reach_as_far_as_the_longest_idle_time() {
        assert_eq!(age_length(Duration::from_secs(320)), 10_000);
        assert_eq!(age_length(Duration::ZERO), 1);
    }
}

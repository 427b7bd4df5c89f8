//! How large the tables are, and how long flows live.

use std::time::Duration;

use flowgate_abi::{
    Settings, Timeouts,
    flow::WAYS,
    fragment,
    ipcache::{MAX_NODES, ROOTS, SPARE},
    maps::{self, CELLS, MapSpec},
};
use flowgate_policy::host::HostRoom;

use crate::error::OpenError;

/// Sizes of the tables, and time-outs. The default needs less than 16 MiB and serves a node with a
/// hundred pods; [`Options::memory`] says what other values need.
///
/// A size that is too small or too large is refused when a datapath is opened ([`OpenError::Option`]).
/// Time-outs of flows are rounded up to units of 256 jiffies (about a second where there are 250 a
/// second), at least one; that of fragments is at least one jiffy. One that is too long for the tables
/// becomes the longest that they can hold: 34 years for flows, 198 days for fragments, at 250 jiffies a
/// second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// IPv4 flows; with so many, at most two thirds of the table are full. Established flows are never
    /// evicted, so a new one is refused (`FlowTableFull`) once both of its buckets hold nothing else:
    /// none up to two thirds, 3 in 100,000 at 70 %, 1 in 1,000 at 80 %.
    pub flows4: usize,
    /// IPv6 flows, likewise.
    pub flows6: usize,
    /// Datagrams whose fragments are under way at one time, of both families.
    pub fragments: usize,
    /// Endpoints, up to 32,768; rounded up to a power of two.
    pub endpoints: usize,
    /// Peers: distinct combinations of labels, named ports and CIDR memberships.
    pub peers: usize,
    /// Cells of endpoint policies times peer classes, in each of two generations.
    pub row_cells: usize,
    /// Cells of rows times port classes, in each of two generations.
    pub decision_cells: usize,
    /// Distinct decisions, in each of two generations.
    pub decisions: usize,
    /// Nodes (64 bytes) of the ipcache, for networks and addresses of both families. Many random networks
    /// take a third to a half each, neighbouring addresses a tenth, a lone IPv6 address two;
    /// `Plan::cost` counts them; with an eighth more, dense networks lie side by side, and look-ups are
    /// shorter.
    pub ipcache_nodes: usize,
    /// Bytes of the event ring, a power of two and a multiple of the page size, up to 1 GiB.
    pub event_bytes: usize,
    /// Events that each CPU may emit per second; what is beyond is counted as suppressed. 0: none.
    pub events_per_second: u32,
    /// Denied packets whose sender each CPU may tell per second, where a policy says so; what is beyond is
    /// dropped in silence, and counted as suppressed. 0: none.
    pub answers_per_second: u32,
    /// How long a flow may be silent whose handshake isn't complete, or that wasn't answered.
    pub opening: Duration,
    /// How long an established TCP connection may be silent.
    pub established: Duration,
    /// How long stragglers of a closed TCP connection are let through.
    pub closing: Duration,
    /// How long an answered flow of another protocol may be silent.
    pub answered: Duration,
    /// For how long the later fragments of a datagram find its ports.
    pub fragment: Duration,
    /// Packets between local endpoints go through the host's stack, where netfilter and packet taps
    /// see them, instead of being redirected.
    pub through_stack: bool,
    /// The socket buffer mark by which one hook tells the other that a packet is judged. Nothing
    /// else on the host may set it.
    pub mark: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            flows4: 1 << 14,
            flows6: 1 << 13,
            fragments: 2048,
            endpoints: 512,
            peers: 4096,
            row_cells: 1 << 16,
            decision_cells: 1 << 18,
            decisions: 1 << 13,
            ipcache_nodes: 1 << 14,
            event_bytes: 1 << 18,
            events_per_second: 10_000,
            answers_per_second: 1000,
            opening: Duration::from_secs(60),
            established: Duration::from_secs(8000),
            closing: Duration::from_secs(10),
            answered: Duration::from_secs(60),
            fragment: Duration::from_secs(5),
            through_stack: false,
            mark: 0xf10a_7e00,
        }
    }
}

impl Options {
    /// Bytes that the maps take, without what the kernel adds for each; `usize::MAX` for sizes that
    /// opening refuses.
    #[must_use]
    pub fn memory(&self) -> usize {
        if self.check().is_err() {
            return usize::MAX;
        }
        let settings = self.settings(1000);
        let elements = |spec: &MapSpec, entries: u32| entries as usize * spec.value.max(spec.key);
        self.sizes(&settings)
            .iter()
            .map(|(spec, entries)| match spec.kind {
                maps::MapKind::RingBuf => *entries as usize,
                // As the kernel's: an element with its head, and a bucket for each.
                maps::MapKind::Hash => *entries as usize * (64 + whole_words(spec)),
                _ => elements(spec, *entries),
            })
            .sum::<usize>()
            + 8 * maps::PORT_CLASS.value
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let limits = [
            // As many slots as the next power of two, and none is `NO_SLOT`.
            ("endpoints", self.endpoints, 1, 1 << 15),
            ("peers", self.peers, 3, flowgate_abi::endpoint::MAX_PEERS as usize),
            ("flows4", self.flows4, 1, 1 << 26),
            ("flows6", self.flows6, 1, 1 << 26),
            ("fragments", self.fragments, 1, 1 << 20),
            ("row_cells", self.row_cells, 1, 1 << 27),
            ("decision_cells", self.decision_cells, 1, 1 << 27),
            ("decisions", self.decisions, 1, 0xffff),
            ("ipcache_nodes", self.ipcache_nodes, 1, (MAX_NODES - ROOTS - SPARE) as usize),
            ("event_bytes", self.event_bytes, 1, 1 << 30),
            ("mark", self.mark as usize, 1, u32::MAX as usize),
        ];
        for (option, value, least, most) in limits {
            if value < least {
                return Err(OpenError::Option { option, value, problem: "is too small" });
            }
            if value > most {
                return Err(OpenError::Option { option, value, problem: "is too large" });
            }
        }
        if !self.event_bytes.is_power_of_two() || self.event_bytes < 4096 {
            let problem = "isn't a power of two from the page size on";
            let value = self.event_bytes;
            return Err(OpenError::Option { option: "event_bytes", value, problem });
        }
        Ok(())
    }

    pub(crate) fn settings(&self, hertz: u32) -> Settings {
        Settings {
            hash_seed: random(),
            flow4_mask: buckets(self.flows4) - 1,
            flow6_mask: buckets(self.flows6) - 1,
            endpoint_mask: self.endpoints.next_power_of_two() as u32 - 1,
            peers: whole_elements(self.peers),
            row_cells: whole_elements(self.row_cells),
            decision_cells: whole_elements(self.decision_cells),
            decisions: self.decisions as u32,
            hz: hertz,
            timeouts: Timeouts(
                [self.opening, self.established, self.closing, self.answered]
                    .map(|timeout| units(timeout, hertz)),
            ),
            events_per_second: self.events_per_second,
            fragment_timeout: jiffies(self.fragment, hertz),
            mark: self.mark,
            flags: if self.through_stack { Settings::THROUGH_STACK } else { 0 },
            fragment_mask: fragment_buckets(self.fragments) - 1,
            answers_per_second: self.answers_per_second,
            answer_mark: answer_mark(random(), self.mark),
            reserved: 0,
        }
    }

    /// Entries of the maps whose size depends on the options.
    pub(crate) fn sizes(&self, settings: &Settings) -> Vec<(&'static MapSpec, u32)> {
        let endpoints = settings.endpoint_mask + 1;
        let cells = |cells: u32| 2 * cells / CELLS as u32;
        vec![
            (&maps::FLOWS4, settings.flow4_mask + 1),
            (&maps::FLOWS6, settings.flow6_mask + 1),
            (&maps::FRAGMENTS, settings.fragment_mask + 1),
            (&maps::ENDPOINTS, endpoints),
            (&maps::LINKS, endpoints),
            (&maps::IPCACHE, ROOTS + SPARE + self.ipcache_nodes as u32),
            (&maps::PEERS, settings.peers),
            (&maps::ENDPOINT_POLICY, 2 * endpoints),
            (&maps::PEER_CLASS, cells(settings.peers)),
            (&maps::ROW, cells(settings.row_cells)),
            (&maps::DECISION, cells(settings.decision_cells)),
            (&maps::DECISIONS, 2 * settings.decisions),
            (&maps::TRAFFIC, endpoints),
            (&maps::EVENTS, self.event_bytes as u32),
        ]
    }

    pub(crate) fn host_room(&self) -> HostRoom {
        HostRoom { ipcache_nodes: self.ipcache_nodes as u32, events: self.event_bytes / 128 }
    }
}

/// Buckets of seven ways that hold so many flows at two thirds load.
fn buckets(flows: usize) -> u32 {
    let ways = flows.max(2) * 3 / 2;
    ways.div_ceil(WAYS as usize).next_power_of_two().max(2) as u32
}

/// Buckets of four ways that hold so many datagrams at half load.
fn fragment_buckets(datagrams: usize) -> u32 {
    (2 * datagrams).div_ceil(fragment::WAYS).next_power_of_two() as u32
}

fn whole_words(spec: &MapSpec) -> usize {
    spec.key.next_multiple_of(8) + spec.value.next_multiple_of(8)
}

/// So that the two slots of a table share no element.
fn whole_elements(cells: usize) -> u32 {
    cells.next_multiple_of(CELLS) as u32
}

/// In units of 256 jiffies, at least one.
fn units(timeout: Duration, hertz: u32) -> u32 {
    let jiffies = timeout.as_millis() * u128::from(hertz) / 1000;
    u32::try_from(jiffies.div_ceil(256)).unwrap_or(u32::MAX >> 2).clamp(1, u32::MAX >> 2)
}

/// In jiffies, at least one.
fn jiffies(timeout: Duration, hertz: u32) -> u32 {
    let jiffies = timeout.as_millis() * u128::from(hertz) / 1000;
    u32::try_from(jiffies).unwrap_or(u32::MAX).max(1)
}

/// A number that nobody outside can guess.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// The mark of answers, drawn from a number: neither 0 nor the other mark.
const fn answer_mark(drawn: u64, mark: u32) -> u32 {
    let one = (drawn >> 32) as u32;
    if one == 0 || one == mark { mark ^ 1 << 16 | 1 } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_needs_less_than_16_mib() {
        let memory = Options::default().memory();
        assert!(memory < 16 << 20, "{memory} bytes");
    }

    #[test]
    fn contradictions_are_named() {
        let options = Options { event_bytes: 5000, ..Options::default() };
        assert!(options.check().unwrap_err().to_string().contains("event_bytes: 5000"));
        let options = Options { endpoints: 0, ..Options::default() };
        assert!(options.check().unwrap_err().to_string().contains("endpoints: 0 is too small"));
        assert!(Options::default().check().is_ok());
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        let refused = |options: Options| options.check().is_err() && options.memory() == usize::MAX;
        for size in [0, usize::MAX] {
            let options = Options::default;
            assert!(refused(Options { flows4: size, ..options() }));
            assert!(refused(Options { flows6: size, ..options() }));
            assert!(refused(Options { fragments: size, ..options() }));
            assert!(refused(Options { endpoints: size, ..options() }));
            assert!(refused(Options { peers: size, ..options() }));
            assert!(refused(Options { row_cells: size, ..options() }));
            assert!(refused(Options { decision_cells: size, ..options() }));
            assert!(refused(Options { decisions: size, ..options() }));
            assert!(refused(Options { ipcache_nodes: size, ..options() }));
            assert!(refused(Options { event_bytes: size, ..options() }));
        }
        assert!(refused(Options { flows4: u32::MAX as usize, ..Options::default() }));
        assert!(refused(Options { event_bytes: 1 << 32, ..Options::default() }));
        assert!(refused(Options { mark: 0, ..Options::default() }));
    }

    #[test]
    fn no_endpoint_gets_the_slot_that_is_none() {
        let most = Options { endpoints: 1 << 15, ..Options::default() };
        assert!(most.check().is_ok());
        assert!(most.settings(250).endpoint_mask < flowgate_abi::flow::NO_SLOT);
        assert!(Options { endpoints: (1 << 15) + 1, ..most }.check().is_err());
    }

    #[test]
    fn an_answer_is_never_taken_for_anything_else() {
        for mark in [1, 2, u32::MAX, 1 << 16 | 1, 0xf10a_7e00] {
            for drawn in [0, u64::from(mark) << 32, u64::MAX, 7 << 32] {
                let answer = answer_mark(drawn, mark);
                assert!(answer != 0 && answer != mark, "{drawn:#x} {mark:#x}");
            }
        }
        assert_eq!(answer_mark(7 << 32, 1), 7);
    }

    #[test]
    fn timeouts_are_never_zero() {
        assert_eq!(units(Duration::ZERO, 250), 1);
        assert_eq!(jiffies(Duration::ZERO, 250), 1);
        assert_eq!(units(Duration::from_secs(8000), 1000), 31_250);
    }

    #[test]
    fn long_timeouts_are_the_longest_that_there_are() {
        assert_eq!(units(Duration::MAX, 1000), (1 << 30) - 1);
        assert_eq!(jiffies(Duration::MAX, 1000), u32::MAX);
    }
}

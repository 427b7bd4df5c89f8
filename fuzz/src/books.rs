//! What is counted, and that a frame moves it exactly once.

use flowgate_abi::{
    event::{Counter, DROP_REASONS, Hook, Tally},
    policy::Direction,
};
use flowgate_pipeline::Verdict;
use flowgate_policy::host::HostTables;

/// All counters at one time.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Books {
    drops: Vec<Tally>,
    traffic: Vec<[Tally; 2]>,
    counters: Vec<u64>,
}

impl Books {
    pub(crate) fn of(tables: &HostTables) -> Self {
        Self { drops: tables.drops(), traffic: tables.traffic(), counters: tables.counters() }
    }

    /// How many senders were answered.
    pub(crate) fn answers(&self) -> u64 {
        [Counter::AnswersIcmp, Counter::AnswersReset]
            .map(|counter| self.counters[counter as usize])
            .iter()
            .sum()
    }

    /// These are the books after a frame of so many bytes at a hook and an interface.
    pub(crate) fn balance(
        &self,
        before: &Self,
        length: usize,
        (hook, ifindex): (Hook, u32),
        verdict: Verdict,
    ) {
        let mut expected = before.clone();
        let neighbour = Counter::NeighbourPassed as usize;
        let discovered = self.counters[neighbour] - before.counters[neighbour];
        match verdict {
            Verdict::Drop(reason) => {
                let cell = (hook as u32 * DROP_REASONS + reason as u32) as usize;
                add(&mut expected.drops[cell], length);
                assert_eq!(discovered, 0, "a dropped packet counts as neighbour discovery");
            }
            // ARP is nobody's traffic.
            Verdict::Pass if discovered == 1 && self.traffic == before.traffic => {}
            Verdict::Pass | Verdict::HostAlone => pass(&mut expected, hook, ifindex, length),
            Verdict::Stack(slot) | Verdict::Redirect(slot) | Verdict::RedirectPeer(slot) => {
                assert_eq!(hook, Hook::FromEndpoint, "{verdict:?}");
                pass(&mut expected, hook, ifindex, length);
                add(&mut expected.traffic[slot as usize][Direction::Ingress as usize], length);
            }
        }
        assert!(self.drops == expected.drops, "drops: {verdict:?} at {hook:?}");
        assert!(self.traffic == expected.traffic, "traffic: {verdict:?} at {hook:?}");
        let moved =
            |counter: Counter| self.counters[counter as usize] - before.counters[counter as usize];
        assert!(Counter::ALL.iter().all(|&counter| moved(counter) <= 1), "counted twice");
        assert_eq!(moved(Counter::EventsLost), 0, "nobody waits for events so long");
    }
}

fn pass(books: &mut Books, hook: Hook, slot: u32, length: usize) {
    let direction = match hook {
        Hook::ToEndpoint => Direction::Ingress,
        _ => Direction::Egress,
    };
    add(&mut books.traffic[slot as usize][direction as usize], length);
}

fn add(tally: &mut Tally, length: usize) {
    tally.packets += 1;
    tally.bytes += length as u64;
}

//! Marks under every interleaving of few steps: two packets' look-ups and insertions, and sweeps, each of which is held up
//! before any of its accesses while the others go on.
//!
//! Three threads hand a baton on; who has it runs alone. A schedule says who runs for how many steps, twice, and who runs
//! then to its end: all of them are tried, so every order is that takes two interruptions. A sweep waits for packets
//! under way where the balancer does ([`Store::wait`](crate::store::Store::wait)).
//!
//! Not here: processors that reorder (`benches/tests/kernel_marks.rs` runs the loaded program on two CPUs).

use std::{
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};

use flowgate_abi::{
    DropReason, Shared64,
    event::EventBudget,
    fragment::FragmentBucket,
    lb::{
        Backend, Bucket, CELLS, COMMON, Counter, Frontend, Head, MARK, Settings, SourceNode,
        Tracked,
        nat::{Source, Translation},
    },
};
use flowgate_pipeline::{
    fragment::FragmentTable,
    lb::{
        Balance, Translations,
        tracking::{Entries, Flows, Place, find, insert, passed},
    },
};

use crate::marks::Marks;

const BUCKETS: u32 = 4;
const SWEEPER: usize = 2;
const ACTORS: usize = 3;
/// Ages of entries: whoever has the first is over.
const OVER: u32 = 0;
const LIVE: u32 = 1;

/// Who runs, and for how many steps; for all that there are, if that is large.
type Leg = (usize, u32);

/// Whose turn it is.
#[derive(Debug, Default)]
struct Turns {
    running: usize,
    left: u32,
    /// What comes then, the next one last.
    legs: Vec<Leg>,
    ended: [bool; ACTORS],
    /// Packets that an actor has begun, and that are done.
    begun: [u32; ACTORS],
    done: [u32; ACTORS],
    /// Packets for which the sweeper waits.
    awaited: [u32; ACTORS],
}

impl Turns {
    fn may_run(&self, actor: usize) -> bool {
        let waits = actor == SWEEPER && (0..SWEEPER).any(|n| self.done[n] < self.awaited[n]);
        !self.ended[actor] && !waits
    }

    /// The next one who may run.
    fn hand_on(&mut self) {
        while let Some((actor, steps)) = self.legs.pop() {
            if self.may_run(actor) {
                (self.running, self.left) = (actor, steps);
                return;
            }
        }
        let next = (0..ACTORS).find(|actor| self.may_run(*actor));
        (self.running, self.left) = (next.unwrap_or(ACTORS), u32::MAX);
    }
}

/// A table, and the baton.
struct Table {
    settings: Settings,
    buckets: Vec<Bucket>,
    turns: Mutex<Turns>,
    handed_on: Condvar,
}

impl Table {
    fn new() -> Self {
        let settings = Settings { tracked_mask: BUCKETS - 1, ..Settings::default() };
        let buckets = (0..BUCKETS).map(|_| Bucket::default()).collect();
        Self { settings, buckets, turns: Mutex::default(), handed_on: Condvar::new() }
    }

    fn word(&self, cell: u32) -> &Shared64 {
        &self.buckets[cell as usize / CELLS][cell as usize % CELLS]
    }

    fn wait_for(&self, actor: usize, mut turns: MutexGuard<'_, Turns>) {
        self.handed_on.notify_all();
        while turns.running != actor {
            turns = self.handed_on.wait(turns).expect("nobody panics with the baton");
        }
    }

    /// All of an entry's buckets before the one in which it lies are marked.
    fn check(&self) {
        for cell in 0..BUCKETS * CELLS as u32 {
            let entry = Tracked(self.word(cell).load());
            if !entry.is_taken() || entry.is_in_first() {
                continue;
            }
            let marks = passed(entry, cell / CELLS as u32, BUCKETS - 1);
            let [one, other, third] =
                marks.map(|bucket| self.buckets[bucket as usize][MARK].load() != 0);
            assert!(one || other && third, "{entry:x?} in cell {cell} is behind no mark");
        }
    }
}

/// The table as one of the actors sees it.
#[derive(Clone, Copy)]
struct View<'t> {
    table: &'t Table,
    actor: usize,
}

impl View<'_> {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.table.turns.lock().expect("nobody panics with the baton")
    }

    /// Before each access others may run.
    fn step(&self) {
        let mut turns = self.turns();
        if turns.left == 0 {
            turns.hand_on();
            self.table.wait_for(self.actor, turns);
            turns = self.turns();
        }
        turns.left -= 1;
    }

    /// Runs to the end, from when it is this one's turn.
    fn run(&self, body: impl FnOnce()) {
        self.table.wait_for(self.actor, self.turns());
        // Also if it panics: the others wait for the baton.
        let _end = End(self);
        body();
    }

    /// A packet of a flow: what it finds, or whether its entry found room.
    fn packet(&self, place: &Place) -> Result<Tracked, bool> {
        self.step();
        self.turns().begun[self.actor] += 1;
        let first = Flows::bucket(self, place.buckets[0]).expect("it is in the table");
        let found = find::<Flows, _, true>(self, first, place);
        let entry = place.name.with(self.actor as u32 + 1, LIVE);
        let result = match found {
            Some((_, entry)) => Ok(entry),
            None => Err(insert::<Flows, _, true>(self, first, place, entry)),
        };
        self.turns().done[self.actor] += 1;
        result
    }

    /// Three packets of a flow: once it has an entry, it keeps it.
    fn flow(&self, place: &Place) {
        let mut tracked = false;
        for _ in 0..3 {
            match self.packet(place) {
                Ok(entry) => assert_eq!(entry.backend(), self.actor as u32 + 1),
                Err(_) if tracked => panic!("flow {} has lost its entry", self.actor),
                Err(stored) => tracked = stored,
            }
        }
    }

    /// A sweep, after a grace period.
    fn sweep(&self, marks: &mut Marks, is_needed: impl Fn(Tracked) -> bool) {
        let mut turns = self.turns();
        turns.awaited = turns.begun;
        if !turns.may_run(self.actor) {
            turns.hand_on();
            self.table.wait_for(self.actor, turns);
        } else {
            drop(turns);
        }
        let mut look = marks.look(BUCKETS * CELLS as u32);
        for cell in 0..BUCKETS * CELLS as u32 {
            let word = self.table.word(cell);
            // Free cells of a bucket are seen at one moment.
            if word.load() != 0 || (cell as usize).is_multiple_of(CELLS) {
                self.step();
            }
            loop {
                let entry = Tracked(word.load());
                if !entry.is_taken() {
                    break look.free(cell, entry);
                }
                if is_needed(entry) {
                    break look.stays(cell, entry);
                }
                self.exchange(word, entry.0, look.leaves(cell).0);
            }
        }
        marks.looked(look, |cell| self.exchange(self.table.word(cell), Tracked::LEFT.0, 0));
    }
}

/// An actor has ended.
struct End<'v>(&'v View<'v>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut turns = self.0.turns();
        turns.ended[self.0.actor] = true;
        turns.hand_on();
        self.0.table.handed_on.notify_all();
    }
}

impl Balance for View<'_> {
    fn settings(&self) -> &Settings {
        &self.table.settings
    }

    fn tracked(&self, index: u32) -> Option<&Bucket> {
        self.step();
        self.table.buckets.get(index as usize)
    }

    fn cell<'b>(&self, bucket: &'b Bucket, number: u32) -> &'b Shared64 {
        self.step();
        &bucket[number as usize - 1]
    }

    fn exchange(&self, cell: &Shared64, old: u64, new: u64) -> bool {
        self.step();
        let is_there = cell.load() == old;
        if is_there {
            cell.store(new);
        }
        is_there
    }

    // Behind the load of a cell, before that of the next one.
    fn is_some(&self, word: u64) -> u32 {
        self.step();
        u32::from(word != 0)
    }

    fn head(&self) -> Option<&Head> {
        None
    }

    fn displacement(&self, _bucket: u32) -> u32 {
        0
    }

    fn frontend(&self, _index: u32) -> Option<&Frontend> {
        None
    }

    fn slot(&self, _index: u32) -> Option<u32> {
        None
    }

    fn backend(&self, _index: u32) -> Option<&Backend> {
        None
    }

    fn source(&self, _index: u32) -> Option<&SourceNode> {
        None
    }

    fn pins(&self, _index: u32) -> Option<&Bucket> {
        None
    }

    fn count_load(&self, _line: u32, _bytes: u32, _opens: bool, _tracked: bool) {}

    fn count_refused(&self, _service: u32) {}

    fn count_drop(&self, _reason: DropReason, _bytes: u32) {}

    fn count(&self, _counter: Counter) {}

    fn error_budget(&self) -> Option<EventBudget> {
        None
    }

    fn set_error_budget(&self, _budget: EventBudget) {}
}

impl Translations for View<'_> {
    fn nat_source(&self, _number: u32) -> Option<&Source> {
        None
    }

    fn nat_taken(&self, _group: u32) -> Option<&Shared64> {
        None
    }

    fn nat_port(&self, _index: u32) -> Option<&Translation> {
        None
    }

    fn nat_flows(&self, _index: u32) -> Option<&Bucket> {
        None
    }
}

impl FragmentTable for View<'_> {
    fn fragment_place(&self) -> (u64, u32) {
        (0, 0)
    }

    fn fragment_timeout(&self) -> u32 {
        0
    }

    fn jiffies(&self) -> u64 {
        0
    }

    fn fragments(&self, _index: u32) -> Option<&FragmentBucket> {
        None
    }

    fn lock_fragments(&self, _bucket: &FragmentBucket) {}

    fn unlock_fragments(&self, _bucket: &FragmentBucket) {}
}

/// A flow whose first bucket is the first one, and whose second one the second.
fn place(number: u64) -> Place {
    let mut all = (0u64..).map(|part| Place::of(5, part, BUCKETS - 1));
    let of = |place: &Place| place.buckets[..2] == [0, 1];
    all.by_ref().filter(of).nth(number as usize).expect("there are many")
}

/// Says which schedule it was, if something is found.
struct Told<'l>(Before, &'l [Leg; 3]);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{:?}, schedule {:?}", self.0, self.1);
        }
    }
}

/// What a table is like before.
#[derive(Clone, Copy, Debug)]
struct Before {
    /// Cells of the first bucket that others have, from the mark on.
    taken: u32,
    /// Those among them that are over.
    over: u32,
    /// The mark was left, and a sweep has seen it.
    left: bool,
}

impl Before {
    fn table(self) -> (Table, Marks) {
        let (table, mut marks) = (Table::new(), Marks::default());
        for cell in 0..self.taken {
            let age = if cell < self.over { OVER } else { LIVE };
            table.word(cell).store(place(u64::from(cell) + 2).name.with(7, age).0);
        }
        if self.left {
            table.word(MARK as u32).store(Tracked::LEFT.0);
            let mut look = marks.look(BUCKETS * CELLS as u32);
            look.free(MARK as u32, Tracked::LEFT);
            marks.looked(look, |_| unreachable!("it was seen once"));
        }
        (table, marks)
    }

    /// One schedule.
    fn run(self, legs: [Leg; 3]) {
        let (_told, (table, mut marks)) = (Told(self, &legs), self.table());
        let legs: Vec<Leg> = legs.into_iter().rev().collect();
        let mut turns = Turns { legs, ..Turns::default() };
        turns.hand_on();
        *table.turns.lock().expect("nobody has it") = turns;
        let view = |actor| View { table: &table, actor };
        let alive = |entry: Tracked| entry.age() == LIVE;
        thread::scope(|scope| {
            for actor in 0..SWEEPER {
                scope.spawn(move || view(actor).run(|| view(actor).flow(&place(actor as u64))));
            }
            let sweeps = || (0..3).for_each(|_| view(SWEEPER).sweep(&mut marks, alive));
            view(SWEEPER).run(sweeps);
        });
        table.check();
        self.ends(&table, &mut marks);
    }

    /// With nobody else, everything goes that is over.
    fn ends(self, table: &Table, marks: &mut Marks) {
        *table.turns.lock().expect("nobody has it") =
            Turns { running: SWEEPER, left: u32::MAX, ..Turns::default() };
        let view = View { table, actor: SWEEPER };
        (0..3).for_each(|_| view.sweep(marks, |_| false));
        assert!((0..BUCKETS * CELLS as u32).all(|cell| table.word(cell).load() == 0));
        assert!(!marks.are_left());
    }
}

/// Every schedule of two interruptions, of actors that take no more than so many steps.
fn schedules(steps: [u32; ACTORS]) -> impl Iterator<Item = [Leg; 3]> {
    let pairs = (0..ACTORS).flat_map(|one| (0..ACTORS).map(move |other| (one, other)));
    pairs.filter(|(one, other)| one != other).flat_map(move |(one, other)| {
        let lasts = (0..ACTORS).filter(move |last| *last != other);
        lasts.flat_map(move |last| {
            (1..steps[one]).flat_map(move |first| {
                (1..steps[other])
                    .map(move |second| [(one, first), (other, second), (last, u32::MAX)])
            })
        })
    })
}

/// Of all schedules every so manieth is tried.
const STRIDE: usize = 11;

#[test]
fn no_interleaving_of_packets_and_sweeps_loses_an_entry() {
    let full = COMMON as u32;
    let cases = [
        Before { taken: full, over: 1, left: false },
        Before { taken: full, over: full, left: false },
        Before { taken: full, over: 0, left: true },
        Before { taken: full - 1, over: 1, left: false },
    ];
    let mut schedules = cases
        .into_iter()
        .flat_map(|before| schedules([32, 32, 48]).step_by(STRIDE).map(move |legs| (before, legs)));
    let count = schedules.by_ref().map(|(before, legs)| before.run(legs)).count();
    println!("{count} schedules");
}

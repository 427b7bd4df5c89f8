//! Where the flow table puts an entry, and whose way it takes; and which state a packet leaves behind.
//!
//! On two buckets of the host's tables, without packets. What becomes of connections is in
//! `tests/connections.rs`.

use flowgate_abi::{
    Settings, Timeouts,
    flow::{Age, Class, Ends, Seen, Verdict, Volume, WAYS},
};
use flowgate_conformance::{connections::UNIT, room};
use flowgate_pipeline::{
    FlowTable, V4,
    conntrack::{self, Entry, Inserted, Place},
    family::Way,
    fragment::FragmentTable,
};
use flowgate_policy::{
    host::{HostRoom, HostTables},
    install::Store,
};

/// The number of a connection, of which its key is made.
type Number = u64;

/// Two buckets for connections whose first choice is the first one.
struct Table(HostTables);

impl Table {
    fn new() -> Self {
        let timeouts = Timeouts([60, 8000, 60, 60]);
        let settings = Settings { timeouts, ..*Store::settings(&room::tables()) };
        Self(HostTables::new(settings, HostRoom { ipcache_nodes: 0, events: 0 }))
    }

    fn jiffies(&self) -> u64 {
        FragmentTable::jiffies(&self.0)
    }

    /// Stores a new connection.
    fn insert(&self, number: Number) -> Inserted {
        self.put(number, false)
    }

    /// Stores a connection over what `find` meets of it.
    fn replace(&self, number: Number) -> Inserted {
        self.put(number, true)
    }

    fn put(&self, number: Number, again: bool) -> Inserted {
        let (place, key) = (place(number), [number; 2]);
        let old = again.then(|| &self.0.flows4()[self.place_of(number).expect("it is there").0]);
        let entry = Entry {
            verdict: Verdict::new(1, 0),
            ends: Ends(number),
            seen: Seen(0).one_more(self.jiffies() as u32),
            sent: Volume::new(1, 60),
            answered: Volume::new(2, 0),
        };
        conntrack::insert::<V4, _>(&self.0, place, &key, old, &entry, self.jiffies())
    }

    /// Bucket and way of a connection, as a packet finds them.
    fn place_of(&self, number: Number) -> Option<(usize, u32)> {
        let mut way = 0;
        let key = [number; 2];
        let found =
            conntrack::find::<V4, _>(&self.0, place(number), &key, self.jiffies(), &mut way)?;
        let bucket = self.0.flows4().iter().position(|bucket| std::ptr::eq(bucket, found));
        Some((bucket.expect("one of both"), way))
    }

    fn bucket_of(&self, number: Number) -> Option<usize> {
        self.place_of(number).map(|(bucket, _)| bucket)
    }

    /// A packet of a connection passes, and leaves it in a class.
    fn touch(&self, number: Number, class: Class) {
        let (bucket, way) = self.place_of(number).expect("it is there");
        let age = FlowTable::<V4>::age(&self.0, &self.0.flows4()[bucket], way);
        age.store(Age::new(class, self.jiffies()).0);
    }

    /// Both buckets are full of connections of a class, numbered from 1 in the order in which they came, a unit apart.
    fn full(class: Class) -> Self {
        let table = Self::new();
        for number in CROWD {
            assert_eq!(table.insert(number), Inserted::Stored);
            table.touch(number, class);
            table.0.advance(UNIT);
        }
        table
    }
}

/// As many connections as both buckets hold.
const CROWD: std::ops::RangeInclusive<Number> = 1..=2 * WAYS as Number;
const NEW: Number = 100;

fn place(number: Number) -> Place {
    Place { first: 0, second: 1, tag: number as u32 | 1 << 16 }
}

#[test]
fn the_first_bucket_is_half_filled_then_the_emptier_one_is_taken() {
    let table = Table::new();
    let mut buckets = Vec::new();
    for number in CROWD {
        assert_eq!(table.insert(number), Inserted::Stored);
        buckets.push(table.bucket_of(number).unwrap());
        let spilled = table.0.flows4()[0].spilled.load() != 0;
        assert_eq!(spilled, buckets.contains(&1), "{buckets:?}");
    }
    assert_eq!(buckets, [0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 0, 1]);
    for (number, bucket) in CROWD.zip(buckets) {
        assert_eq!(table.bucket_of(number), Some(bucket), "none took another one's way");
    }
}

#[test]
fn an_entry_is_what_was_stored() {
    let table = Table::new();
    let _ = table.insert(NEW);
    let (bucket, way) = table.place_of(NEW).unwrap();
    let way = FlowTable::<V4>::way(&table.0, &table.0.flows4()[bucket], way);
    let flow = way.flow();
    assert_eq!(way.key(), [NEW; 2]);
    assert_eq!(flow.verdict.load(), Verdict::new(1, 0).0);
    assert_eq!(flow.ends.load(), NEW);
    assert_eq!(Seen(flow.seen[0].load()).packets(), 1);
    assert_eq!(flow.seen[1].load(), 0);
    assert_eq!(flow.bytes[0].load(), Volume::new(1, 60).0);
    assert_eq!(flow.bytes[1].load(), Volume::new(2, 0).0);
}

#[test]
fn of_those_that_may_go_the_oldest_of_both_buckets_goes() {
    for class in [Class::Opening, Class::Closing] {
        let table = Table::full(class);
        // Both buckets' turns come: the oldest four lie in the first one, the next four in the second.
        for oldest in [1, 2, 3, 4, 5, 6, 7, 8] {
            let (place, next) = (table.place_of(oldest), table.place_of(oldest + 1));
            assert_eq!(table.insert(NEW + oldest), Inserted::Evicted);
            assert_eq!(table.place_of(NEW + oldest), place, "{class:?} {oldest}");
            assert_eq!((table.place_of(oldest), table.place_of(oldest + 1)), (None, next));
        }
    }
}

#[test]
fn of_two_buckets_whose_oldest_are_as_old_the_first_is_taken() {
    let table = Table::new();
    for number in CROWD {
        let _ = table.insert(number);
    }
    assert_eq!(table.insert(NEW), Inserted::Evicted);
    assert_eq!(table.bucket_of(NEW), Some(0));
}

#[test]
fn what_is_established_or_answered_stays() {
    for class in [Class::Established, Class::Answered] {
        let table = Table::full(class);
        assert_eq!(table.insert(NEW), Inserted::Full);
        assert_eq!(table.bucket_of(NEW), None);
        assert!(CROWD.into_iter().all(|number| table.place_of(number).is_some()), "{class:?}");
    }
}

/// However old: an opening one in the other bucket goes instead.
#[test]
fn an_opening_connection_goes_before_an_older_established_one() {
    for opening in [1, 14] {
        let table = Table::full(Class::Established);
        let place = table.place_of(opening);
        table.touch(opening, Class::Opening);
        assert_eq!(table.insert(NEW), Inserted::Evicted);
        assert_eq!(table.place_of(NEW), place);
    }
}

/// One that is established, and silent for longer than its time-out, makes room before one that only opens.
#[test]
fn what_has_expired_goes_first() {
    for expired in [2, 6] {
        let table = Table::full(Class::Answered);
        let place = table.place_of(expired);
        table.0.advance(UNIT * 60);
        for number in CROWD.filter(|number| *number != expired) {
            table.touch(number, Class::Opening);
        }
        assert_eq!(table.insert(NEW), Inserted::Stored);
        assert_eq!(table.place_of(NEW), place);
    }
}

/// The bucket with more room is chosen, not the one whose room is older.
#[test]
fn room_counts_for_more_than_age() {
    let live = |table: &Table, dead: &[Number]| {
        for number in CROWD.filter(|number| !dead.contains(number)) {
            table.touch(number, Class::Answered);
        }
    };
    // 1 to 4 lie in the first bucket, 5 to 8 in the second.
    for (dead, bucket) in
        [(&[1, 5, 6][..], 1), (&[1, 2, 5, 6], 0), (&[1, 2, 5], 0), (&[1, 2, 3, 5], 0)]
    {
        let table = Table::full(Class::Answered);
        table.0.advance(UNIT * 61);
        live(&table, dead);
        assert_eq!(table.insert(NEW), Inserted::Stored);
        assert_eq!(table.bucket_of(NEW), Some(bucket), "{dead:?}");
    }
    // As much room in both: the first, though that of the second is older.
    let table = Table::new();
    for number in [11, 12, 13, 14, 1, 2, 3, 4, 15, 5, 16, 6, 17, 7] {
        assert_eq!(table.insert(number), Inserted::Stored);
    }
    table.0.advance(UNIT);
    table.touch(11, Class::Opening);
    table.0.advance(UNIT * 60);
    for number in [12, 13, 14, 15, 16, 17, 2, 3, 4, 5, 6, 7] {
        table.touch(number, Class::Answered);
    }
    table.0.advance(UNIT);
    assert_eq!(table.insert(NEW), Inserted::Stored);
    assert_eq!(table.bucket_of(NEW), Some(0));
}

/// Whatever room there is elsewhere: else a look-up would meet the old one.
#[test]
fn a_connection_that_opens_anew_takes_its_own_way() {
    for number in CROWD {
        for class in [Class::Closing, Class::Established] {
            let table = Table::full(class);
            let place = table.place_of(number);
            assert_eq!(table.replace(number), Inserted::Stored);
            assert_eq!(table.place_of(number), place);
            assert!(CROWD.into_iter().all(|other| table.place_of(other).is_some()));
        }
    }
}

/// A tag is a hint: of two connections that share it each has its own entry.
#[test]
fn connections_that_share_a_tag_are_told_apart() {
    let table = Table::new();
    let (one, other) = (1, 1 | 1 << 16);
    assert_eq!(place(one).tag, place(other).tag);
    let _ = table.insert(one);
    assert_eq!(table.place_of(other), None);
    let _ = table.insert(other);
    assert_ne!(table.place_of(one), table.place_of(other));
}

fn hashes() -> impl Iterator<Item = u64> {
    let mut state = 1u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state ^ state >> 29
    })
}

/// Each bucket is the first choice of its share, and connections that share their first choice don't share their
/// second one.
#[test]
fn connections_spread_over_all_buckets() {
    const MASK: u32 = 0x3f;
    let mut pairs = vec![vec![0u32; MASK as usize + 1]; MASK as usize + 1];
    for hash in hashes().take(1 << 17) {
        let place = Place::of(hash, MASK);
        assert_ne!(place.first, place.second);
        pairs[place.first as usize][place.second as usize] += 1;
    }
    for (first, seconds) in pairs.iter().enumerate() {
        let sum: u32 = seconds.iter().sum();
        assert!((1800..2300).contains(&sum), "{sum} of 2048 come to {first} first");
        let used = seconds.iter().filter(|count| **count > 0).count();
        assert!(used >= 32, "what comes to {first} first has {used} second choices");
    }
}

/// The tag comes of bits that the buckets don't: those that share both are told apart by it.
#[test]
fn a_tag_is_never_0_and_differs_where_buckets_are_the_same() {
    for low in [0u64, 1, 2, 3, 0xffff_ffff] {
        assert_ne!(Place::of(low, 1).tag, 0);
    }
    let tags: std::collections::BTreeSet<u32> =
        hashes().take(1000).map(|hash| Place::of(hash & 0xfffff | 1 << 45, 0x3f).tag).collect();
    assert!(tags.len() > 990, "{}", tags.len());
}

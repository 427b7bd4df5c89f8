//! The table of entries: what it bears, and that each entry is found where it came.

use flowgate_abi::lb::{CELLS, MARK, Settings, Tracked};
use flowgate_pipeline::lb::tracking::{Entries, Flows, Place, find, insert};
use flowgate_services::{
    host::HostTables,
    store::{Room, Store},
};

const MASK: u32 = (1 << 12) - 1;
const CELLS_IN_ALL: u32 = (MASK + 1) * CELLS as u32;

fn tables() -> HostTables {
    let settings = Settings { tracked_mask: MASK, ..Settings::default() };
    HostTables::new(settings, Room { tracked: CELLS_IN_ALL, ..Room::default() })
}

/// Flows that look like chance.
fn places() -> impl Iterator<Item = Place> {
    (1u64..).map(|number| {
        let mut hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Place::of((hash >> 45) as u32 % 2039, hash ^ hash >> 31, MASK)
    })
}

fn put(tables: &HostTables, place: &Place) -> bool {
    let first = Flows::bucket(tables, place.buckets[0]).expect("it is in the table");
    insert::<Flows, _, true>(tables, first, place, place.name.with(7, 0))
}

fn entry(tables: &HostTables, place: &Place) -> Option<Tracked> {
    let first = Flows::bucket(tables, place.buckets[0]).expect("it is in the table");
    find::<Flows, _, true>(tables, first, place).map(|(_, entry)| entry)
}

#[test]
fn three_quarters_of_all_cells_take_every_flow_and_each_is_found() {
    let tables = tables();
    let flows: Vec<Place> = places().take(CELLS_IN_ALL as usize * 3 / 4).collect();
    assert!(flows.iter().all(|place| put(&tables, place)));
    let found = flows.iter().map(|place| entry(&tables, place).expect("it has an entry"));
    let elsewhere = found.filter(|entry| !entry.is_in_first()).count();
    assert!((10..25).contains(&(elsewhere * 100 / flows.len())), "{elsewhere}");
    // Others look like one of them once in thousands of times.
    let others = places().skip(CELLS_IN_ALL as usize).take(10_000);
    assert!(others.filter(|place| entry(&tables, place).is_some()).count() < 3);
}

#[test]
fn a_third_of_all_cells_reads_one_line_for_nearly_every_flow() {
    let tables = tables();
    assert!(places().take(CELLS_IN_ALL as usize * 3 / 10).all(|place| put(&tables, &place)));
    let marked = (0..=MASK)
        .filter(|bucket| Store::tracked(&tables, bucket * CELLS as u32 + MARK as u32).0 != 0)
        .count();
    assert!(marked * 100 / (MASK as usize + 1) < 6, "{marked} buckets are marked");
}

#[test]
fn entries_are_found_in_their_later_buckets_after_those_before_were_emptied_but_for_the_mark() {
    let mut tables = tables();
    let flows: Vec<Place> = places().take(CELLS_IN_ALL as usize * 3 / 4).collect();
    assert!(flows.iter().all(|place| put(&tables, place)));
    for cell in 0..CELLS_IN_ALL {
        let there = Store::tracked(&tables, cell);
        if there.is_in_first() {
            let left = if cell as usize % CELLS == MARK { Tracked::LEFT } else { Tracked(0) };
            assert!(tables.exchange_tracked(cell, there, left));
        }
    }
    let left = flows.iter().filter(|place| entry(&tables, place).is_some()).count();
    assert!(left * 100 / flows.len() >= 10, "{left}");
    let there = (0..CELLS_IN_ALL).filter(|cell| Store::tracked(&tables, *cell).is_taken()).count();
    assert_eq!(left, there);
}

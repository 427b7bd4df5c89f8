//! What holds of the flow tables between any two packets.

use std::collections::BTreeSet;

use flowgate_abi::{
    Shared32, Shared64,
    flow::{Flow, Verdict, Volume, state},
};
use flowgate_pipeline::{Family, V4, V6};
use flowgate_policy::host::HostTables;

/// No way is taken.
pub(crate) fn assert_empty(tables: &HostTables) {
    let taken = |tag: &Shared32| tag.load() != 0;
    assert!(!tables.flows4().iter().any(|bucket| bucket.tags.iter().any(taken)));
    assert!(!tables.flows6().iter().any(|bucket| bucket.tags.iter().any(taken)));
}

/// Every entry is sound, and a key has one at most: a second one would hide behind it.
pub(crate) fn assert_sound(tables: &HostTables, generation: u32) {
    let mut live = BTreeSet::new();
    for bucket in tables.flows4() {
        for (tag, way) in bucket.tags.iter().zip(&bucket.ways) {
            let key = [0, 1].map(|word: usize| Shared64::load(&way.key[word]));
            let tuple = V4::tuple(&key);
            let canonical = V4::key(&tuple).0 == key || V4::key(&tuple.reversed()).0 == key;
            entry(tag, &way.flow, canonical, generation);
            assert!(tag.load() == 0 || live.insert(key.to_vec()), "two entries for {tuple:?}");
        }
    }
    for bucket in tables.flows6() {
        for (tag, way) in bucket.tags.iter().zip(&bucket.ways) {
            let key = [0, 1, 2, 3, 4].map(|word: usize| Shared64::load(&way.key[word]));
            let tuple = V6::tuple(&key);
            let canonical = V6::key(&tuple).0 == key || V6::key(&tuple.reversed()).0 == key;
            entry(tag, &way.flow, canonical, generation);
            assert!(tag.load() == 0 || live.insert(key.to_vec()), "two entries for {tuple:?}");
        }
    }
}

/// An entry that is taken was judged by a generation that there was, and has a local end.
fn entry(tag: &Shared32, flow: &Flow, canonical: bool, generation: u32) {
    let verdict = Verdict(flow.verdict.load());
    if tag.load() == 0 {
        return;
    }
    assert!(canonical, "the key isn't the one that a packet would have");
    assert!((1..=generation).contains(&verdict.generation()), "{verdict:?}");
    let answered = verdict.state() & state::ANSWERED != 0;
    let established = verdict.state() & state::ESTABLISHED != 0;
    assert!(answered || !established, "established without an answer");
    let slots = [0, 1].map(|end: usize| Volume(flow.bytes[end].load()).slot());
    assert!(slots.iter().any(|slot| matches!(slot, 1 | 2)), "no end is local: {slots:?}");
}

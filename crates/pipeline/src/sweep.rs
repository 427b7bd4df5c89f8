//! The sweep: tells of flows that have ended, and frees the entries that have been silent for too
//! long.
//!
//! A look-up already takes an expired entry for none, so the sweep frees nothing that a packet
//! could still use; it keeps the table's fill honest.

use flowgate_abi::{
    event::{Counter, Hook, Kind},
    flow::{Age, Ends, Verdict, Volume, state},
};

use crate::{
    Family, FlowTable,
    conntrack::{self, for_each_way},
    event::{self, Story},
    family::{Bucket, Way},
    policy::Judgement,
};

/// Sweeps one bucket: tells of one flow that has ended, and frees its way once it is silent for
/// longer than stragglers may take. Returns 1 if there was one; the next run takes the next.
#[inline(always)]
pub fn bucket<F: Family, T: FlowTable<F>>(tables: &T, index: u32) -> u32 {
    let Some(bucket) = tables.bucket(index) else { return 0 };
    let jiffies = tables.jiffies();
    let mut number = 0;
    for_each_way!(candidate => {
        let index = candidate as usize - 1;
        let age = Age(bucket.ages()[index].load());
        let state = Verdict(bucket.ways()[index].flow().verdict.load()).state();
        let ended = conntrack::expired(tables, age, jiffies)
            || state & (state::CLOSING | state::TOLD) == state::CLOSING;
        if ended && bucket.tags()[index].load() != 0 {
            number = candidate;
        }
    });
    if number == 0 {
        return 0;
    }
    end::<F, T>(tables, bucket, tables.forget(number, jiffies), jiffies);
    1
}

#[inline(always)]
fn end<F: Family, T: FlowTable<F>>(tables: &T, bucket: &F::Bucket, number: u32, jiffies: u64) {
    let way = tables.way(bucket, number);
    let key = way.key();
    let flow = way.flow();
    tables.lock(bucket);
    // A packet may have come, or another flow, since the look.
    let known = Verdict(flow.verdict.load());
    let age = Age(tables.age(bucket, number).load());
    let silent = age.idle(jiffies) > tables.timeout(age.class());
    let mine = way.holds(&key) && (silent || known.state() & state::CLOSING != 0);
    if mine && silent {
        flow.verdict.store(0);
        tables.tag(bucket, number).store(0);
    } else if mine {
        flow.verdict.store(Verdict::new(known.generation(), known.state() | state::TOLD).0);
    }
    tables.unlock(bucket);
    if mine && known.state() & state::TOLD == 0 {
        tables.count(Counter::FlowsClosed);
        tell::<F, T>(tables, &key, known, flow);
    }
}

#[inline(always)]
fn tell<F: Family, T: FlowTable<F>>(
    tables: &T,
    key: &F::Key,
    known: Verdict,
    flow: &flowgate_abi::flow::Flow,
) {
    let tuple = F::tuple(key);
    let from_second = known.state() & state::FROM_SECOND != 0;
    let story = Story::<F> {
        kind: Some(Kind::Closed),
        reason: None,
        tuple: if from_second { tuple.reversed() } else { tuple },
        judgement: Judgement::NONE,
        generation: known.generation(),
        ends: Ends(flow.ends.load()),
        slots: [Volume(flow.bytes[0].load()).slot(), Volume(flow.bytes[1].load()).slot()],
        hook: Hook::Sweep,
        ifindex: 0,
        tcp_flags: 0,
        reply: false,
        flow: Some(flow),
    };
    event::emit(tables, &story);
}

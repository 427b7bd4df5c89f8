//! The sweep: frees the entries of a bucket that have been silent for too long.
//!
//! A look-up already takes an expired entry for none, so the sweep frees nothing that a packet
//! could still use; it tells of the flow's end and keeps the table's fill honest.

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

/// Sweeps one bucket; returns how many entries it freed.
#[inline(always)]
pub fn bucket<F: Family, T: FlowTable<F>>(tables: &T, index: u32) -> u32 {
    let Some(bucket) = tables.bucket(index) else { return 0 };
    let jiffies = tables.jiffies();
    // The oldest expired way alone: one lock, one event, and the next run takes the next.
    let mut number = 0;
    for_each_way!(candidate => {
        let index = candidate as usize - 1;
        let age = Age(bucket.ages()[index].load());
        if bucket.tags()[index].load() != 0
            && conntrack::expired(age, tables.settings(), jiffies)
        {
            number = candidate;
        }
    });
    if number == 0 {
        return 0;
    }
    free::<F, T>(tables, bucket, number, jiffies)
}

#[inline(always)]
fn free<F: Family, T: FlowTable<F>>(
    tables: &T,
    bucket: &F::Bucket,
    number: u32,
    jiffies: u64,
) -> u32 {
    let way = tables.way(bucket, number);
    let key = way.key();
    let flow = way.flow();
    let known = Verdict(flow.verdict.load());
    tables.lock(bucket);
    // A packet may have come, or another flow, since the look.
    let age = Age(tables.age(bucket, number).load());
    let gone = way.holds(&key) && conntrack::expired(age, tables.settings(), jiffies);
    if gone {
        flow.verdict.store(0);
        tables.tag(bucket, number).store(0);
    }
    tables.unlock(bucket);
    if !gone {
        return 0;
    }
    // A flow that was closed by its ends has been told of already.
    if known.state() & state::CLOSING == 0 {
        tables.count(Counter::FlowsClosed);
        tell::<F, T>(tables, &key, known, flow);
    }
    1
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

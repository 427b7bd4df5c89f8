//! The sweep: tells of flows that have ended, and frees the entries that have been silent for too
//! long.
//!
//! A look-up already takes an expired entry for none, so the sweep frees nothing that a packet
//! could still use; it keeps the table's fill honest.

use flowgate_abi::{
    event::{Counter, Hook, Kind},
    flow::{Age, Ends, Flow, Verdict, Volume, state},
};

use crate::{
    Family, FlowTable,
    conntrack::{self, for_each_way},
    event,
    family::{Bucket, Way},
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
fn tell<F: Family, T: FlowTable<F>>(tables: &T, key: &F::Key, known: Verdict, flow: &Flow) {
    let Some(mut event) = tables.blank_event() else { return };
    let tuple = F::tuple(key);
    let from_second = known.state() & state::FROM_SECOND != 0;
    let tuple = if from_second { tuple.reversed() } else { tuple };
    let slots = [Volume(flow.bytes[0].load()).slot(), Volume(flow.bytes[1].load()).slot()];
    event::about::<F, T>(tables, &mut event, &tuple, Ends(flow.ends.load()), slots);
    event::volume(&mut event, flow);
    event.kind = Kind::Closed as u8;
    event.reason = 0;
    event.hook = Hook::Sweep as u8;
    event.ifindex = 0;
    event.tcp_flags = 0;
    event.flags = 0;
    event.generation = known.generation();
    tables.submit_event(event);
}

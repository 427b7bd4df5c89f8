//! The pipeline's look-ups.

use std::ops::{Deref, DerefMut};

use flowgate_abi::{
    DropReason, Settings, Shared32,
    endpoint::{Endpoint, Leaf, Peer},
    event::{Counter, DROP_REASONS, Event, Hook, Tally},
    flow::{Bucket4, Bucket6, Way4, Way6},
    fragment::FragmentBucket,
    ipcache::Node,
    policy::{Decision, Direction, EndpointPolicy, Generation, PortTable},
};
use flowgate_pipeline::{
    Family, FlowTable, Tables, V4, V6, answer, event,
    fragment::FragmentTable,
    ipcache::{self, Nodes},
};

use super::HostTables;

/// An event in the making.
#[derive(Debug)]
pub struct Blank(Event);

impl Deref for Blank {
    type Target = Event;
    fn deref(&self) -> &Event {
        &self.0
    }
}

impl DerefMut for Blank {
    fn deref_mut(&mut self) -> &mut Event {
        &mut self.0
    }
}

fn cell(cells: &[u16], slot: u32, room: u32, index: u32) -> Option<u32> {
    if index >= room {
        return None;
    }
    Some(u32::from(cells[slot as usize * room as usize + index as usize]))
}

fn add(tally: &mut Tally, bytes: u32) {
    tally.packets += 1;
    tally.bytes += u64::from(bytes);
}

impl FragmentTable for HostTables {
    fn fragment_place(&self) -> (u64, u32) {
        (self.settings.hash_seed, self.settings.fragment_mask)
    }

    fn fragment_timeout(&self) -> u32 {
        self.settings.fragment_timeout
    }

    fn jiffies(&self) -> u64 {
        self.jiffies.get()
    }

    fn fragments(&self, index: u32) -> Option<&FragmentBucket> {
        self.fragments.get(index as usize)
    }

    // The tables aren't Sync: nobody else is here.
    fn lock_fragments(&self, _bucket: &FragmentBucket) {}

    fn unlock_fragments(&self, _bucket: &FragmentBucket) {}
}

impl Tables for HostTables {
    type Event = Blank;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn timeout(&self, class: u32) -> u32 {
        self.settings.timeouts.0[class as usize]
    }

    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint> {
        let endpoint = self.slot(ifindex & self.settings.endpoint_mask)?;
        if endpoint.ifindex.load() == ifindex {
            return Some(endpoint);
        }
        self.slot(*self.links.get(&ifindex)?)
    }

    fn slot(&self, slot: u32) -> Option<&Endpoint> {
        self.endpoints.get(slot as usize)
    }

    fn peer(&self, index: u32) -> Option<&Peer> {
        self.peers.get(index as usize)
    }

    fn generation(&self) -> u32 {
        self.active.get()
    }

    fn generation_head(&self, slot: u32) -> Option<&Generation> {
        self.generations.get(slot as usize)
    }

    fn endpoint_policy(&self, slot: u32, endpoint: u32) -> Option<&EndpointPolicy> {
        self.endpoint_policy.get(slot as usize * self.endpoints.len() + endpoint as usize)
    }

    fn peer_class(&self, slot: u32, peer: u32) -> Option<u32> {
        cell(&self.peer_class, slot, self.settings.peers, peer)
    }

    fn port_class(&self, slot: u32, table: u32, port: u16) -> Option<u32> {
        let table = slot as usize * PortTable::COUNT + table as usize;
        Some(u32::from(self.port_class[table * PortTable::PORTS + usize::from(port)]))
    }

    fn row(&self, slot: u32, index: u32) -> Option<u32> {
        cell(&self.rows, slot, self.settings.row_cells, index)
    }

    fn decision_number(&self, slot: u32, index: u32) -> Option<u32> {
        cell(&self.decision_cells, slot, self.settings.decision_cells, index)
    }

    fn decision(&self, slot: u32, number: u32) -> Option<Decision> {
        let decisions = self.settings.decisions;
        if number >= decisions {
            return None;
        }
        self.decisions.get((slot * decisions + number) as usize).copied()
    }

    fn count_traffic(&self, slot: u32, direction: Direction, bytes: u32) {
        add(&mut self.traffic.borrow_mut()[slot as usize][direction as usize], bytes);
    }

    fn count_drop(&self, hook: Hook, reason: DropReason, bytes: u32) {
        let index = hook as u32 * DROP_REASONS + reason as u32;
        add(&mut self.drops.borrow_mut()[index as usize], bytes);
    }

    fn count(&self, counter: Counter) {
        self.counters.borrow_mut()[counter as usize] += 1;
    }

    fn note_response(&self, number: u8) {
        self.response.set(number);
    }

    fn response(&self) -> u8 {
        self.response.get()
    }

    fn may_answer(&self) -> bool {
        answer::admit(self, &mut self.answer_budget.borrow_mut())
    }

    fn blank_event(&self) -> Option<Blank> {
        Some(Blank(zerocopy::FromZeros::new_zeroed()))
    }

    fn submit_event(&self, event: Blank) {
        event::count_audited(self, &event);
        let admitted = event::admit(self, &mut self.event_budget.borrow_mut());
        if !admitted {
            return;
        }
        let mut events = self.events.borrow_mut();
        if events.len() >= self.room.events {
            self.count(Counter::EventsLost);
        } else {
            let scaled = u128::from(self.jiffies.get()) * 1_000_000_000;
            let nanoseconds = (scaled / u128::from(self.settings.hz)) as u64;
            events.push_back(Event { timestamp: nanoseconds, ..event.0 });
        }
    }
}

impl Nodes for HostTables {
    fn node(&self, index: u32) -> Option<&Node> {
        self.ipcache.get(index as usize)
    }

    fn word(&self, node: &Node, number: u32) -> u32 {
        node.word(number as u8)
    }
}

macro_rules! flow_table {
    ($family:ty, $flows:ident, $bucket:ty, $way:ty) => {
        impl FlowTable<$family> for HostTables {
            fn bucket_mask(&self) -> u32 {
                self.$flows.len() as u32 - 1
            }

            fn bucket(&self, index: u32) -> Option<&$bucket> {
                self.$flows.get(index as usize)
            }

            fn way<'b>(&self, bucket: &'b $bucket, number: u32) -> &'b $way {
                &bucket.ways[number as usize - 1]
            }

            fn age<'b>(&self, bucket: &'b $bucket, number: u32) -> &'b Shared32 {
                &bucket.ages[number as usize - 1]
            }

            fn tag<'b>(&self, bucket: &'b $bucket, number: u32) -> &'b Shared32 {
                &bucket.tags[number as usize - 1]
            }

            // The tables aren't Sync: nobody else is here.
            fn lock(&self, _bucket: &$bucket) {}

            fn unlock(&self, _bucket: &$bucket) {}

            fn ipcache(&self, address: &<$family as Family>::Addr) -> Leaf {
                ipcache::lookup::<$family, _>(self, address)
            }
        }
    };
}

flow_table!(V4, flows4, Bucket4, Way4);
flow_table!(V6, flows6, Bucket6, Way6);

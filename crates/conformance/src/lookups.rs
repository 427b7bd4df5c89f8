//! Host tables whose look-ups for a verdict are answered by something else.
//!
//! A packet asks a dozen questions until it is decided. [`Lookups`] are these questions; [`Answering`] makes
//! tables of whoever answers them, with the flow table, counters and clock of host tables behind.
//! [`crate::mixture`] answers from two policy sets, [`crate::under_way`] from two moments.

use std::{
    cell::Cell,
    net::IpAddr,
    ops::{Deref, DerefMut},
    rc::Rc,
};

use flowgate_abi::{
    Addr4, Addr6, Be32, DropReason, Settings, Shared32,
    endpoint::{Endpoint, Leaf, Peer},
    event::{Counter, Event, Hook},
    flow::{Bucket4, Bucket6, Way4, Way6},
    fragment::FragmentBucket,
    policy::{Decision, Direction, EndpointPolicy, Generation, Judgement},
};
use flowgate_pipeline::{FlowTable, Tables, V4, V6, fragment::FragmentTable};
use flowgate_policy::host::HostTables;
use zerocopy::FromZeros;

/// What a verdict depends on. The methods are those of [`Tables`] and [`FlowTable`].
#[allow(missing_docs, reason = "documented where the pipeline has them")]
pub trait Lookups {
    /// Everything else.
    fn host(&self) -> &HostTables;
    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint>;
    fn slot(&self, slot: u32) -> Option<&Endpoint>;
    fn peer(&self, index: u32) -> Option<&Peer>;
    fn ipcache(&self, address: IpAddr) -> Leaf;
    fn generation(&self) -> u32;
    fn generation_head(&self, slot: u32) -> Option<&Generation>;
    fn endpoint_policy(&self, slot: u32, endpoint: u32) -> Option<&EndpointPolicy>;
    fn peer_class(&self, slot: u32, peer: u32) -> Option<u32>;
    fn port_class(&self, slot: u32, table: u32, port: u16) -> Option<u32>;
    fn row(&self, slot: u32, cell: u32) -> Option<u32>;
    fn decision_number(&self, slot: u32, cell: u32) -> Option<u32>;
    fn decision(&self, slot: u32, number: u32) -> Option<Decision>;
    /// A bucket's lock has been waited for.
    fn locked(&self) {}
}

/// What host tables say of an address.
pub(crate) fn ipcache(tables: &HostTables, address: IpAddr) -> Leaf {
    match address {
        IpAddr::V4(v4) => FlowTable::<V4>::ipcache(tables, &Be32::new(v4.into())),
        IpAddr::V6(v6) => FlowTable::<V6>::ipcache(tables, &Addr6::from_octets(v6.octets())),
    }
}

/// Tables over [`Lookups`].
#[derive(Debug)]
pub struct Answering<L> {
    lookups: L,
    judged: Judged,
}

/// The generation that judged a packet, and what it decided.
type Judged = Rc<Cell<Option<(u32, Judgement)>>>;

impl<L: Lookups> Answering<L> {
    /// Tables that ask `lookups`.
    pub fn new(lookups: L) -> Self {
        Self { lookups, judged: Judged::default() }
    }

    /// Who answers.
    pub const fn lookups(&self) -> &L {
        &self.lookups
    }

    /// Which generation judged the last packet, told or not, and what it decided; `None`: none did.
    #[must_use]
    pub fn judged(&self) -> Option<(u32, Judgement)> {
        self.judged.get()
    }
}

/// An event that leaves its judgement behind when it is dropped.
#[derive(Debug)]
pub struct Noted {
    event: Event,
    judged: Judged,
}

impl Deref for Noted {
    type Target = Event;
    fn deref(&self) -> &Event {
        &self.event
    }
}

impl DerefMut for Noted {
    fn deref_mut(&mut self) -> &mut Event {
        &mut self.event
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.judged.set(Some((self.event.generation, self.event.judgement)));
    }
}

impl<L: Lookups> FragmentTable for Answering<L> {
    fn fragment_place(&self) -> (u64, u32) {
        self.lookups.host().fragment_place()
    }

    fn fragment_timeout(&self) -> u32 {
        self.lookups.host().fragment_timeout()
    }

    fn jiffies(&self) -> u64 {
        self.lookups.host().jiffies()
    }

    fn fragments(&self, index: u32) -> Option<&FragmentBucket> {
        self.lookups.host().fragments(index)
    }

    fn lock_fragments(&self, bucket: &FragmentBucket) {
        self.lookups.host().lock_fragments(bucket);
    }

    fn unlock_fragments(&self, bucket: &FragmentBucket) {
        self.lookups.host().unlock_fragments(bucket);
    }
}

impl<L: Lookups> Tables for Answering<L> {
    type Event = Noted;

    fn settings(&self) -> &Settings {
        Tables::settings(self.lookups.host())
    }

    fn timeout(&self, class: u32) -> u32 {
        self.lookups.host().timeout(class)
    }

    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint> {
        self.lookups.endpoint(ifindex)
    }

    fn slot(&self, slot: u32) -> Option<&Endpoint> {
        self.lookups.slot(slot)
    }

    fn peer(&self, index: u32) -> Option<&Peer> {
        self.lookups.peer(index)
    }

    fn generation(&self) -> u32 {
        self.lookups.generation()
    }

    fn generation_head(&self, slot: u32) -> Option<&Generation> {
        self.lookups.generation_head(slot)
    }

    fn endpoint_policy(&self, slot: u32, endpoint: u32) -> Option<&EndpointPolicy> {
        self.lookups.endpoint_policy(slot, endpoint)
    }

    fn peer_class(&self, slot: u32, peer: u32) -> Option<u32> {
        self.lookups.peer_class(slot, peer)
    }

    fn port_class(&self, slot: u32, table: u32, port: u16) -> Option<u32> {
        self.lookups.port_class(slot, table, port)
    }

    fn row(&self, slot: u32, cell: u32) -> Option<u32> {
        self.lookups.row(slot, cell)
    }

    fn decision_number(&self, slot: u32, cell: u32) -> Option<u32> {
        self.lookups.decision_number(slot, cell)
    }

    fn decision(&self, slot: u32, number: u32) -> Option<Decision> {
        self.lookups.decision(slot, number)
    }

    fn count_traffic(&self, slot: u32, direction: Direction, bytes: u32) {
        self.lookups.host().count_traffic(slot, direction, bytes);
    }

    fn count_drop(&self, hook: Hook, reason: DropReason, bytes: u32) {
        self.lookups.host().count_drop(hook, reason, bytes);
    }

    fn count(&self, counter: Counter) {
        self.lookups.host().count(counter);
    }

    fn note_response(&self, number: u8) {
        self.lookups.host().note_response(number);
    }

    fn response(&self) -> u8 {
        self.lookups.host().response()
    }

    fn may_answer(&self) -> bool {
        self.lookups.host().may_answer()
    }

    fn blank_event(&self) -> Option<Noted> {
        Some(Noted { event: Event::new_zeroed(), judged: Rc::clone(&self.judged) })
    }

    fn submit_event(&self, _event: Noted) {}
}

macro_rules! flow_table {
    ($family:ty, $bucket:ty, $way:ty, $address:ty, $ip:expr) => {
        impl<L: Lookups> FlowTable<$family> for Answering<L> {
            fn bucket_mask(&self) -> u32 {
                FlowTable::<$family>::bucket_mask(self.lookups.host())
            }

            fn bucket(&self, index: u32) -> Option<&$bucket> {
                FlowTable::<$family>::bucket(self.lookups.host(), index)
            }

            fn way<'b>(&self, bucket: &'b $bucket, number: u32) -> &'b $way {
                FlowTable::<$family>::way(self.lookups.host(), bucket, number)
            }

            fn age<'b>(&self, bucket: &'b $bucket, number: u32) -> &'b Shared32 {
                FlowTable::<$family>::age(self.lookups.host(), bucket, number)
            }

            fn tag<'b>(&self, bucket: &'b $bucket, number: u32) -> &'b Shared32 {
                FlowTable::<$family>::tag(self.lookups.host(), bucket, number)
            }

            fn lock(&self, bucket: &$bucket) {
                FlowTable::<$family>::lock(self.lookups.host(), bucket);
                self.lookups.locked();
            }

            fn unlock(&self, bucket: &$bucket) {
                FlowTable::<$family>::unlock(self.lookups.host(), bucket);
            }

            fn ipcache(&self, address: &$address) -> Leaf {
                self.lookups.ipcache($ip(address))
            }
        }
    };
}

flow_table!(V4, Bucket4, Way4, Addr4, |at: &Addr4| IpAddr::from(at.get().to_be_bytes()));
flow_table!(V6, Bucket6, Way6, Addr6, |at: &Addr6| IpAddr::from(at.octets()));

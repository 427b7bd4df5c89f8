//! Look-ups and narrow updates: the second seam.
//!
//! On BPF each method is a map access; on the host a vector behind the same layout. What both sides
//! must agree on (hashing, eviction, judging) isn't here but in the pipeline.

use core::ops::DerefMut;

use flowgate_abi::{
    DropReason, Settings,
    endpoint::{Endpoint, Leaf, Peer},
    event::{Counter, Event, Hook},
    policy::{Decision, Direction, EndpointPolicy, Generation},
};

use crate::{
    family::{Bucket, Family},
    fragment::FragmentTable,
    policy,
};

/// What both families share. [`FragmentTable::jiffies`] ticks `settings().hz` times a second.
pub trait Tables: FragmentTable {
    /// An event that user space will see once it is submitted.
    type Event: DerefMut<Target = Event>;

    /// The settings.
    fn settings(&self) -> &Settings;
    /// After how long of silence a flow is gone, by the number of its class (0 to 3), in units of
    /// 256 jiffies.
    fn timeout(&self, class: u32) -> u32;
    /// The same number. On BPF, one of which the verifier doesn't know any more where it came from;
    /// `unknown` is a number that it knows nothing of.
    ///
    /// VERIFIER: where seven branches each bring a constant of their own, everything behind them is
    /// verified seven times.
    fn forget(&self, number: u32, unknown: u64) -> u32 {
        let _ = unknown;
        number
    }
    /// The endpoint of an interface index.
    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint>;
    /// The endpoint in a slot, free or not.
    fn slot(&self, slot: u32) -> Option<&Endpoint>;
    /// A peer.
    fn peer(&self, index: u32) -> Option<&Peer>;

    /// The number of the running generation; 0: none.
    fn generation(&self) -> u32;
    /// The head of the generation in a slot (0 or 1).
    fn generation_head(&self, slot: u32) -> Option<&Generation>;
    /// An endpoint's two policies in the generation of a slot.
    fn endpoint_policy(&self, slot: u32, endpoint: u32) -> Option<&EndpointPolicy>;
    /// A peer's class; 0: none.
    fn peer_class(&self, slot: u32, peer: u32) -> Option<u32>;
    /// A port's class, by port table.
    fn port_class(&self, slot: u32, table: u32, port: u16) -> Option<u32>;
    /// The row in a cell.
    fn row(&self, slot: u32, cell: u32) -> Option<u32>;
    /// The number of the decision in a cell.
    fn decision_number(&self, slot: u32, cell: u32) -> Option<u32>;
    /// The number of what a scattered row decides about a column ([`policy::scattered`]).
    ///
    /// VERIFIER: for a global subprogram, which is verified once: few flows come here, and none of the others
    /// pays for its steps.
    fn scattered(&self, slot: u32, end: u32, row: u32, column: u32) -> u32 {
        policy::scattered(self, slot, end, (row, column))
    }
    /// A decision by its number.
    fn decision(&self, slot: u32, number: u32) -> Option<Decision>;

    /// Counts a packet that passed an endpoint.
    fn count_traffic(&self, slot: u32, direction: Direction, bytes: u32);
    /// Counts a packet that was dropped.
    fn count_drop(&self, hook: Hook, reason: DropReason, bytes: u32);
    /// Counts something else.
    fn count(&self, counter: Counter);
    /// Notes what the sender of the packet at hand is told if it is dropped: the number of a
    /// [`Response`](flowgate_abi::policy::Response). Whoever denies it notes it; silence is noted before.
    ///
    /// VERIFIER: in memory, for whoever answers to read back as an unknown number; carried along, it would
    /// keep states apart until then.
    fn note_response(&self, number: u8);
    /// What was noted.
    fn response(&self) -> u8;
    /// [`crate::answer::admit`], over this CPU's budget.
    fn may_answer(&self) -> bool;
    /// Where the one event that a packet may cause is written.
    fn blank_event(&self) -> Option<Self::Event>;
    /// Hands the event over to user space once the packet is done, if [`crate::event::admit`]
    /// allows, with the time; counts it as lost if the ring buffer is full.
    fn submit_event(&self, event: Self::Event);
}

/// What each family has of its own.
pub trait FlowTable<F: Family>: Tables {
    /// Buckets of the flow table, less one; a power of two less one.
    fn bucket_mask(&self) -> u32;
    /// A bucket.
    fn bucket(&self, index: u32) -> Option<&F::Bucket>;
    /// A way of a bucket, by its number from 1 to 7.
    fn way<'b>(&self, bucket: &'b F::Bucket, number: u32) -> &'b <F::Bucket as Bucket>::Way;
    /// The age of a way, by its number from 1 to 7.
    fn age<'b>(&self, bucket: &'b F::Bucket, number: u32) -> &'b flowgate_abi::Shared32;
    /// The tag of a way, by its number from 1 to 7.
    fn tag<'b>(&self, bucket: &'b F::Bucket, number: u32) -> &'b flowgate_abi::Shared32;
    /// Takes the bucket's lock. No other call but [`FlowTable::unlock`] may follow until then.
    fn lock(&self, bucket: &F::Bucket);
    /// Gives the bucket's lock back.
    fn unlock(&self, bucket: &F::Bucket);
    /// Whose an address is: [`crate::ipcache::lookup`], by itself.
    ///
    /// VERIFIER: on BPF a function that is verified once, instead of for every state in which it is called.
    fn ipcache(&self, address: &F::Addr) -> Leaf;
}

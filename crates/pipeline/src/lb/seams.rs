//! The balancer's seams: tables, and the frame in its buffer.

use flowgate_abi::{
    DropReason, Shared32, Shared64,
    event::EventBudget,
    lb::{
        Backend, Bucket, Counter, Frontend, Head, Settings, SourceNode, Sources, Tracked,
        nat::{Source, Translation},
    },
};

use super::{
    choose::Signs,
    pin::Client,
    server_id::Naming,
    tracking::{Entries, Place},
};
use crate::{Cursor, Skip, fragment::FragmentTable, hook::Rewrite};

/// What happens to a frame.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// On to the host's stack, unchanged.
    Pass,
    /// Out of the interface by which it came.
    Transmit,
    /// Dropped.
    Drop(DropReason),
}

/// The tables of full NAT.
pub trait Translations {
    /// A place of sources, by its number.
    fn nat_source(&self, number: u32) -> Option<&Source>;
    /// Which ports of a group are taken.
    fn nat_taken(&self, group: u32) -> Option<&Shared64>;
    /// A port, by its index.
    fn nat_port(&self, index: u32) -> Option<&Translation>;
    /// A bucket of the flows that have a port.
    fn nat_flows(&self, index: u32) -> Option<&Bucket>;
}

/// Look-ups and narrow updates.
pub trait Balance: FragmentTable + Translations {
    /// The settings.
    fn settings(&self) -> &Settings;
    /// What user space tells from time to time.
    fn head(&self) -> Option<&Head>;
    /// The multiplier of a bucket of frontends; 0: none.
    fn displacement(&self, bucket: u32) -> u32;
    /// A frontend.
    fn frontend(&self, index: u32) -> Option<&Frontend>;
    /// A slot's word.
    fn slot(&self, index: u32) -> Option<u32>;
    /// A backend's line.
    fn backend(&self, index: u32) -> Option<&Backend>;
    /// A node of the services' source ranges.
    fn source(&self, index: u32) -> Option<&SourceNode>;
    /// Source ranges refuse an address ([`super::sources::is_refused`]); on BPF a subprogram, which few
    /// packets need.
    fn refuses(&self, sources: Sources, address: [u64; 2]) -> bool {
        super::sources::is_refused(self, sources, address)
    }

    /// A bucket of tracked flows.
    fn tracked(&self, index: u32) -> Option<&Bucket>;
    /// A bucket of clients' pins.
    fn pins(&self, index: u32) -> Option<&Bucket>;
    /// Where an entry lies that isn't in its first bucket ([`super::tracking::elsewhere`]); on BPF a subprogram.
    fn elsewhere<E: Entries>(&self, place: &Place) -> u32
    where
        Self: Sized,
    {
        super::tracking::elsewhere::<E, Self>(self, place)
    }

    /// Stores an entry in whichever of its buckets ([`super::tracking::lodge`]); on BPF a subprogram.
    fn lodge<E: Entries>(&self, place: &Place, entry: Tracked) -> bool
    where
        Self: Sized,
    {
        super::tracking::lodge::<E, Self>(self, place, entry)
    }

    /// The backend that a client has ([`super::pin::pinned`]); on BPF a subprogram.
    fn pinned(&self, client: &Client, signs: Signs) -> u32
    where
        Self: Sized,
    {
        super::pin::pinned(self, client, signs)
    }

    /// Gives a client a backend, by its first bucket ([`super::pin::in_first`]); on BPF a subprogram.
    fn pin_in_first(&self, client: &Client, number: u32) -> Option<Tracked>
    where
        Self: Sized,
    {
        super::pin::in_first(self, client, number)
    }

    /// The backend that a packet's server id names ([`super::server_id::server`]); on BPF a subprogram.
    fn named(&self, naming: &Naming) -> u32
    where
        Self: Sized,
    {
        super::server_id::server(self, naming)
    }

    /// A cell of such a bucket, by its number from 1 to 8.
    fn cell<'b>(&self, bucket: &'b Bucket, number: u32) -> &'b Shared64;
    /// Puts `new` into a cell if `old` is there, at once; `false`: something else is.
    fn exchange(&self, cell: &Shared64, old: u64, new: u64) -> bool;
    /// The same number. On BPF, one of which the verifier doesn't know any more where it came from;
    /// `unknown` is a number that it knows nothing of.
    fn forget(&self, number: u32, unknown: u64) -> u32 {
        let _ = unknown;
        number
    }

    /// 1 if the word is anything but zero, otherwise 0; on BPF without a branch.
    fn is_some(&self, word: u64) -> u32 {
        u32::from(word != 0)
    }

    /// Counts a packet to a backend: its bytes, and whether it opens a flow, and made an entry.
    fn count_load(&self, line: u32, bytes: u32, opens: bool, tracked: bool);
    /// Counts an entry of a service's flow that found no room.
    fn count_refused(&self, service: u32);
    /// Counts a packet that was dropped.
    fn count_drop(&self, reason: DropReason, bytes: u32);
    /// Counts something else.
    fn count(&self, counter: Counter);
    /// This CPU's budget of ICMP errors.
    fn error_budget(&self) -> Option<EventBudget>;
    /// Writes it back.
    fn set_error_budget(&self, budget: EventBudget);
}

/// A frame in its buffer, which may grow at the front.
pub trait Buffer: Rewrite {
    /// Reads the part that lies at hand: all headers of nearly every packet.
    type Head<'b>: Cursor
    where
        Self: 'b;
    /// Reads every byte, wherever it lies.
    type Whole<'b>: Skip
    where
        Self: 'b;

    /// From the frame's start.
    fn head(&self) -> Self::Head<'_>;
    /// From the frame's start.
    fn whole(&self) -> Self::Whole<'_>;
    /// Bytes of the frame.
    fn length(&self) -> u32;
    /// Puts bytes in front of the frame, whose contents are anything; `false`: there is no room.
    fn grow(&mut self, bytes: u32) -> bool;
    /// The same offset, which is below 128. On BPF, one of which the verifier knows that.
    fn near(&self, offset: u32) -> u32 {
        offset
    }

    /// The server id in the options of a TCP header ([`super::tcp_option::server_id`]); on BPF a subprogram, which few
    /// services need.
    fn server_id(&self, header: u32, kind: u8) -> u32
    where
        Self: Sized,
    {
        super::tcp_option::server_id(self, header, kind)
    }

    /// Cuts the frame's end off, so that this many bytes are left; `false`: it is shorter.
    fn truncate(&mut self, length: u32) -> bool;
}

/// A word of a cell that both sides write.
pub(super) type Cell = Shared64;

/// The age that an entry gets now.
#[inline(always)]
pub(super) fn age<T: Balance>(tables: &T) -> u32 {
    tables.head().map_or(0, |head| Shared32::load(&head.age))
}

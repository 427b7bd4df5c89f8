//! Fragments: a first one leaves its datagram's ports for the later ones to find.
//!
//! A first fragment is judged by its own header and remembered before, so each fragment passes the
//! flow's judgement; a datagram of which the first fragment was denied is denied as a whole. Fragments
//! that overtake their first are dropped (Cilium does so too).
//!
//! Invariants: an entry is found only at the hook and the endpoint that stored it, so no endpoint can
//! put headers under another's datagrams; one that lives is never evicted: a full bucket refuses.

use flowgate_abi::{
    Be16, DropReason,
    fragment::{Datagram, FragmentBucket, WAYS},
};

use crate::{
    Family, Packet, Tables, V6,
    hook::Frame,
    parse::{Fragment, Role},
};

/// Where datagrams are remembered.
pub trait FragmentTable {
    /// Seed of the table's hash, and its buckets, less one; a power of two less one.
    fn fragment_place(&self) -> (u64, u32);
    /// For how long a first fragment is remembered, in jiffies.
    fn fragment_timeout(&self) -> u32;
    /// The kernel's ticks.
    fn jiffies(&self) -> u64;
    /// A bucket of the fragment table.
    fn fragments(&self, index: u32) -> Option<&FragmentBucket>;
    /// Takes the bucket's lock. No other call but [`FragmentTable::unlock_fragments`] may follow until
    /// then.
    fn lock_fragments(&self, bucket: &FragmentBucket);
    /// Gives the bucket's lock back.
    fn unlock_fragments(&self, bucket: &FragmentBucket);
}

/// What names a datagram: both addresses, its identification and protocol, and where it was met.
pub struct Name {
    key: [u64; 5],
    jiffies: u64,
}

impl Name {
    /// Of a fragment.
    ///
    /// # Errors
    /// [`DropReason::UnknownEndpoint`]: there is no endpoint to store it for.
    #[inline(always)]
    pub fn of<F: Family, T: Tables>(
        tables: &T,
        frame: Frame,
        packet: &Packet<F>,
        fragment: Fragment,
    ) -> Result<Self, DropReason> {
        let endpoint = tables.endpoint(frame.ifindex).ok_or(DropReason::UnknownEndpoint)?;
        let place = u64::from(endpoint.slot & 0xffff) << 16 | u64::from(frame.hook as u8) << 4;
        Ok(Self::at::<F, T>(tables, place, (packet.sender, packet.receiver), fragment))
    }

    /// Of a fragment from the first of two addresses to the second, met at a place: bits 4 to 7 and 16 to
    /// 31 of a number.
    #[inline(always)]
    pub fn at<F: Family, T: FragmentTable>(
        tables: &T,
        place: u64,
        ends: (F::Addr, F::Addr),
        fragment: Fragment,
    ) -> Self {
        let (source, destination) = (F::wide(ends.0), F::wide(ends.1));
        let last = u64::from(fragment.identification) << 32
            | place
            | u64::from(fragment.protocol) << 8
            | u64::from(F::NUMBER);
        let key = [source[0], source[1], destination[0], destination[1], last];
        Self { key, jiffies: tables.jiffies() }
    }
}

/// Runs a body for each way, unrolled.
///
/// VERIFIER: as for the flow tables, a literal is an offset, and a run-time number is refused on 5.10
/// and 6.1.
macro_rules! for_each_datagram {
    ($ways:expr, $number:ident $way:ident => $body:block) => {
        for_each_datagram!(@ $ways, $number $way $body 0 1 2 3)
    };
    (@ $ways:expr, $number:ident $way:ident $body:block $($n:literal)+) => {
        $({ let ($number, $way): (u32, &Datagram) = ($n + 1, &$ways[$n]); $body })+
    };
}

/// Leaves a first fragment's headers for the later ones, and how many bytes of it they take.
///
/// # Errors
/// [`DropReason::FragmentTableFull`]: the bucket has no room. Or such a packet must not be in
/// fragments (RFC 6980).
#[inline(always)]
pub fn remember<F: Family, T: FragmentTable>(
    tables: &T,
    name: &Name,
    packet: &Packet<F>,
    length: u32,
) -> Result<(), DropReason> {
    let headers = pack(packet, length)?;
    let bucket = bucket(tables, name)?;
    tables.lock_fragments(bucket);
    let target = place(tables, &bucket.ways, name);
    for_each_datagram!(bucket.ways, number way => {
        if number == target {
            write(way, name, headers);
        }
    });
    tables.unlock_fragments(bucket);
    if target == 0 { Err(DropReason::FragmentTableFull) } else { Ok(()) }
}

/// The number of the way for a datagram: its own, or a vacant one; 0: there is none.
#[inline(always)]
fn place<T: FragmentTable>(tables: &T, ways: &[Datagram; WAYS], name: &Name) -> u32 {
    let mut best = 0;
    for_each_datagram!(ways, number way => {
        let own = u32::from(is(way, name));
        let vacant = u32::from(!lives(tables, way, name));
        let score = (own << 1 | vacant) << 3;
        if score > best & !7 {
            best = score | number;
        }
    });
    best & 7
}

#[inline(always)]
fn write(way: &Datagram, name: &Name, headers: u64) {
    way.key[0].store(name.key[0]);
    way.key[1].store(name.key[1]);
    way.key[2].store(name.key[2]);
    way.key[3].store(name.key[3]);
    way.key[4].store(name.key[4]);
    way.headers.store(headers);
    way.seen.store(name.jiffies);
}

/// Gives a later fragment the ports of its first, and returns how many bytes its headers took.
///
/// # Errors
/// [`DropReason::FragmentNotFound`].
#[inline(always)]
pub fn recall<F: Family, T: FragmentTable>(
    tables: &T,
    name: &Name,
    packet: &mut Packet<F>,
) -> Result<u32, DropReason> {
    let bucket = bucket(tables, name)?;
    let mut headers = 0;
    tables.lock_fragments(bucket);
    for_each_datagram!(bucket.ways, _number way => {
        if is(way, name) && lives(tables, way, name) {
            headers = way.headers.load();
        }
    });
    tables.unlock_fragments(bucket);
    if headers == 0 {
        return Err(DropReason::FragmentNotFound);
    }
    unpack(headers, packet);
    Ok(headers as u32 & LENGTH)
}

#[inline(always)]
fn bucket<'t, T: FragmentTable>(
    tables: &'t T,
    name: &Name,
) -> Result<&'t FragmentBucket, DropReason> {
    let (seed, mask) = tables.fragment_place();
    let hash = V6::hash(&name.key, seed);
    let index = (hash >> 32) as u32 & mask;
    tables.fragments(index).ok_or(DropReason::FragmentTableFull)
}

#[inline(always)]
fn is(way: &Datagram, name: &Name) -> bool {
    (way.key[0].load() ^ name.key[0])
        | (way.key[1].load() ^ name.key[1])
        | (way.key[2].load() ^ name.key[2])
        | (way.key[3].load() ^ name.key[3])
        | (way.key[4].load() ^ name.key[4])
        == 0
}

#[inline(always)]
fn lives<T: FragmentTable>(tables: &T, way: &Datagram, name: &Name) -> bool {
    let (seen, timeout) = (way.seen.load(), u64::from(tables.fragment_timeout()));
    seen != 0 && name.jiffies.wrapping_sub(seen) <= timeout
}

/// The bits of a word of headers that say how long they are: multiples of 4, and at most eight
/// extension headers of 2048 bytes in front of a transport's.
const LENGTH: u32 = 0xfffc;
/// The bit that says that they are a reply's.
const REPLY: u64 = 2;

/// The headers in one word, which is never 0.
#[inline(always)]
fn pack<F: Family>(packet: &Packet<F>, length: u32) -> Result<u64, DropReason> {
    if packet.role.stays_on_link() {
        return Err(DropReason::ForbiddenIcmp6);
    }
    // Errors are cut to what fits.
    if packet.role == Role::Error {
        return Err(DropReason::InvalidForFlow);
    }
    let tuple = &packet.tuple;
    Ok(u64::from(tuple.source_port.raw()) << 48
        | u64::from(tuple.destination_port.raw()) << 32
        | u64::from(tuple.protocol) << 24
        | u64::from(tuple.icmp_type) << 16
        | u64::from(length & LENGTH)
        | if packet.role == Role::Reply { REPLY } else { 0 }
        | 1)
}

#[inline(always)]
fn unpack<F: Family>(headers: u64, packet: &mut Packet<F>) {
    packet.tuple.source_port = Be16::from_raw((headers >> 48) as u16);
    packet.tuple.destination_port = Be16::from_raw((headers >> 32) as u16);
    packet.tuple.protocol = (headers >> 24) as u8;
    packet.tuple.icmp_type = (headers >> 16) as u8;
    packet.role = if headers & REPLY != 0 { Role::Reply } else { Role::Any };
}

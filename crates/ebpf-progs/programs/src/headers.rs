//! A packet's headers, between the half of a program that reads them and the half that decides.
//!
//! What is like most packets is read by direct access at the entry; everything else by a subprogram
//! of its own, by copy. Either way they lie in a per-CPU element then, where the family's subprogram
//! finds them.
//!
//! VERIFIER: what is read from the element is an unknown number to the verifier, so deciding is
//! verified once, whatever was read, and no branch of reading lies on its stack. With the headers on
//! the stack, 6.1 verified 646,000 instructions of `tc_from_endpoint`.

use aya_ebpf::bindings::__sk_buff;
use flowgate_abi::{DropReason, event::Hook, maps::Parsed, policy::Response};
use flowgate_pipeline::{
    Family, Packet,
    parse::{self, Link, Parse},
};

use crate::{
    maps,
    packet::{self, Direct},
    skb_copying::Copying,
    tables::Maps,
};

/// What reading a packet came to, and what its sender is told if it is dropped.
#[repr(C)]
struct Read<F: Family> {
    /// A response's number; the first byte, whatever the family.
    response: u8,
    reason: Option<DropReason>,
    packet: Packet<F>,
}

const _: () = assert!(size_of::<Read<flowgate_pipeline::V6>>() <= size_of::<Parsed>());
const _: () = assert!(size_of::<Read<flowgate_pipeline::V4>>() <= size_of::<Parsed>());

#[inline(always)]
fn element<F: Family>() -> Option<*mut Read<F>> {
    maps::PARSED.get_ptr_mut(0).map(<*mut Parsed>::cast)
}

/// Reads a packet that is like most; `false`: it isn't.
#[inline(always)]
pub fn read_plain<F: Parse>(skb: *mut __sk_buff, link: Link) -> bool {
    let Some(read) = element::<F>() else { return false };
    // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
    let read = unsafe { &mut *read };
    read.response = Response::Silence as u8;
    read.reason = None;
    parse::plain(&mut Direct::new(skb), link, &mut read.packet)
}

/// Reads any packet.
#[inline(always)]
pub fn read_whole<F: Parse>(skb: *mut __sk_buff, link: Link, hook: Hook) {
    let Some(read) = element::<F>() else { return };
    // SAFETY: this CPU's own element, and nothing else runs on it meanwhile.
    let read = unsafe { &mut *read };
    let at = (packet::frame(skb, hook), &Maps::new());
    read.reason = parse::whole(&mut Copying::new(skb), link, at, &mut read.packet).err();
}

/// The packet that was read, or the reason for which it couldn't be.
#[inline(always)]
pub fn packet<'r, F: Family>() -> Result<&'r Packet<F>, DropReason> {
    let read = element::<F>().ok_or(DropReason::MalformedPacket)?;
    // SAFETY: this CPU's own element, which the entry has filled for this very packet.
    let read = unsafe { &*read };
    match read.reason {
        Some(reason) => Err(reason),
        None => Ok(&read.packet),
    }
}

/// Notes what the sender of the packet at hand is told.
#[inline(always)]
pub fn note_response(number: u8) {
    if let Some(read) = maps::PARSED.get_ptr_mut(0) {
        // SAFETY: this CPU's own element, of which the first byte is the response.
        unsafe { read.cast::<u8>().write(number) };
    }
}

/// What was noted.
#[inline(always)]
pub fn response() -> u8 {
    // SAFETY: as above.
    maps::PARSED.get_ptr_mut(0).map_or(0, |read| unsafe { read.cast::<u8>().read() })
}

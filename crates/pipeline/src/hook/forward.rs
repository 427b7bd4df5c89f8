//! How an allowed packet goes on, and what changes in it on the way to a local endpoint.

use flowgate_abi::{Be16, EtherAddr, Settings, endpoint::Endpoint, flow::NO_SLOT};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{Family, Packet, Tables, V4, V6, Verdict};

/// Chooses the way of an allowed packet whose destination has a slot, or none.
#[inline(always)]
pub(super) fn choose<F: Family, T: Tables>(
    tables: &T,
    packet: &Packet<F>,
    destination: u32,
) -> Verdict {
    if destination == NO_SLOT {
        return Verdict::Pass;
    }
    let Some(endpoint) = tables.slot(destination) else { return Verdict::Pass };
    // The slot may have a new owner since the flow was judged: then its address is another one.
    if endpoint.ifindex.load() == 0 || F::address(endpoint) != packet.receiver {
        return Verdict::Pass;
    }
    let through_stack = tables.settings().flags & Settings::THROUGH_STACK != 0;
    // The last hop is the stack's: it knows how to tell the sender. So is a tag.
    if through_stack || packet.tagged || packet.hops <= 1 {
        Verdict::Stack(destination)
    } else if endpoint.flags & Endpoint::REDIRECT_PEER != 0 {
        Verdict::RedirectPeer(destination)
    } else if endpoint.flags & Endpoint::REDIRECT != 0 {
        Verdict::Redirect(destination)
    } else {
        Verdict::Stack(destination)
    }
}

/// Bytes of a frame, by their offset.
pub trait FrameBytes {
    /// Reads at an offset; `None`: the frame ends before.
    fn load<T: FromBytes + IntoBytes + Default>(&self, offset: u32) -> Option<T>;
}

/// Bytes of a frame that may be rewritten.
pub trait Rewrite: FrameBytes {
    /// Writes at an offset; `false`: the frame ends before.
    fn store<T: IntoBytes + Immutable>(&mut self, offset: u32, value: T) -> bool;
}

/// How a family routes.
pub trait Route: Family {
    /// One hop less.
    fn one_hop_less<B: Rewrite>(frame: &mut B) -> Option<()>;
}

/// Makes a frame look as if this node had routed it to a local endpoint.
#[inline(always)]
pub fn route<F: Route, B: Rewrite>(frame: &mut B, endpoint: &Endpoint) -> Option<()> {
    F::one_hop_less(frame)?;
    let addresses: [EtherAddr; 2] = [endpoint.mac, endpoint.router_mac];
    frame.store(0, addresses).then_some(())
}

impl Route for V4 {
    #[inline(always)]
    fn one_hop_less<B: Rewrite>(frame: &mut B) -> Option<()> {
        // TTL and protocol are one word of the checksum (RFC 1624, equation 3).
        let [word, checksum]: [Be16; 2] = frame.load(22)?;
        let less = word.get().wrapping_sub(0x100);
        let sum = !checksum.get() as u32 + !word.get() as u32 + less as u32;
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        frame.store(22, [Be16::new(less), Be16::new(!(folded as u16))]).then_some(())
    }
}

impl Route for V6 {
    #[inline(always)]
    fn one_hop_less<B: Rewrite>(frame: &mut B) -> Option<()> {
        let hops: u8 = frame.load(21)?;
        frame.store(21, hops.wrapping_sub(1)).then_some(())
    }
}

impl FrameBytes for &[u8] {
    fn load<T: FromBytes + IntoBytes + Default>(&self, offset: u32) -> Option<T> {
        Some(T::read_from_prefix(self.get(offset as usize..)?).ok()?.0)
    }
}

impl FrameBytes for &mut [u8] {
    fn load<T: FromBytes + IntoBytes + Default>(&self, offset: u32) -> Option<T> {
        (&**self).load(offset)
    }
}

impl Rewrite for &mut [u8] {
    fn store<T: IntoBytes + Immutable>(&mut self, offset: u32, value: T) -> bool {
        self.get_mut(offset as usize..).is_some_and(|rest| value.write_to_prefix(rest).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    fn checksum(header: &[u8]) -> u16 {
        let sum: u32 = header.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        !((folded & 0xffff) + (folded >> 16)) as u16
    }

    #[test]
    fn every_ttl_keeps_the_checksum_right() {
        for ttl in 1..=255u8 {
            for salt in [0u8, 0xff, 0x80] {
                let mut frame = vec![0u8; 34];
                frame[14..24].copy_from_slice(&[0x45, salt, 0, 40, salt, 1, 0x40, 0, ttl, 6]);
                frame[26..34].copy_from_slice(&[198, 18, 0, 1, 198, 18, salt, 2]);
                let sum = checksum(&frame[14..34]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
                V4::one_hop_less(&mut frame.as_mut_slice()).unwrap();
                assert_eq!(frame[22], ttl - 1);
                assert_eq!(checksum(&frame[14..34]), 0, "ttl {ttl} salt {salt}");
            }
        }
    }
}

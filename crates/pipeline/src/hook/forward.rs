//! How an allowed packet goes on, and what changes in it on the way to a local endpoint.

use flowgate_abi::{EtherAddr, Settings, endpoint::Endpoint, flow::NO_SLOT};
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

    /// Writes a value, and another behind it; `false`: the frame ends before, and may have the first.
    #[inline(always)]
    fn store_both<T, U>(&mut self, offset: u32, first: T, second: U) -> bool
    where
        T: IntoBytes + Immutable,
        U: IntoBytes + Immutable,
    {
        self.store(offset, first) && self.store(offset + size_of::<T>() as u32, second)
    }

    /// Makes a value another one; `None`: the frame ends before.
    #[inline(always)]
    fn change<T>(&mut self, offset: u32, change: impl FnOnce(T) -> T) -> Option<()>
    where
        T: FromBytes + IntoBytes + Immutable + Default,
    {
        let old = self.load(offset)?;
        self.store(offset, change(old)).then_some(())
    }
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
        // TTL, protocol and checksum, little end first. With one hop less the checksum has one more in that byte
        // order as in any other (RFC 1071, section 2 B; RFC 1141), and 0xffff isn't among its results.
        frame.change(22, |word: u32| {
            let word = u32::from_le(word);
            let sum = (word >> 16) + 1;
            let sum = sum + ((sum + 1) >> 16);
            let hops = word.wrapping_sub(1) & 0xff;
            ((sum << 16) | (word & 0xff00) | hops).to_le()
        })
    }
}

impl Route for V6 {
    #[inline(always)]
    fn one_hop_less<B: Rewrite>(frame: &mut B) -> Option<()> {
        frame.change(21, |hops: u8| hops.wrapping_sub(1))
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

    /// RFC 1624, equation 3.
    #[test]
    fn one_hop_less_is_the_same_by_any_checksum() {
        for checksum in 0..=u16::MAX {
            for word in [0x0106, 0x4006, 0xff11_u16] {
                let mut frame = [[0; 22].to_vec(), word.to_be_bytes().to_vec()].concat();
                frame.extend(checksum.to_be_bytes());
                assert!(V4::one_hop_less(&mut frame.as_mut_slice()).is_some());
                let less = word - 0x100;
                let sum = u32::from(!checksum) + u32::from(!word) + u32::from(less);
                let sum = (sum & 0xffff) + (sum >> 16);
                let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
                assert_eq!(frame[22..], [less.to_be_bytes(), sum.to_be_bytes()].concat());
            }
        }
    }
}

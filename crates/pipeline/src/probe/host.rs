//! A whole frame on the host, whose checksums are finished.

use super::{End, Own};
use crate::{
    Family, SliceCursor,
    hook::{FrameBytes, Rewrite},
    lb::HostBuffer,
    parse::Layer3,
    sum::updated,
    wire::protocol::TCP,
};

const ETHERNET: u32 = 14;

impl Own for HostBuffer<'_> {
    fn layer3(&self) -> Layer3 {
        Layer3::of(self.load(12).unwrap_or_default())
    }

    fn network(&self) -> SliceCursor<'_> {
        SliceCursor::new(self.frame().get(ETHERNET as usize..).unwrap_or_default())
    }

    fn readdress<F: Family>(&mut self, end: End, protocol: u8, [old, new]: [[u64; 2]; 2]) -> bool {
        let (at, half_words) = end.place::<F>();
        let at = ETHERNET + at;
        let transport = ETHERNET + u32::from(F::HEADER) + if protocol == TCP { 16 } else { 6 };
        let sums = [(F::NUMBER == 4).then_some(ETHERNET + 10), Some(transport)];
        (0..half_words).all(|index| {
            let word = |of: [u64; 2]| (of[index / 4].to_le() >> (16 * (index % 4))) as u16;
            let change = (word(old).to_le(), word(new).to_le());
            sums.into_iter().flatten().all(|sum| replace(self, sum, change))
                && self.store(at + 2 * index as u32, change.1)
        })
    }
}

/// In a checksum; one of zero is none.
fn replace(frame: &mut HostBuffer<'_>, at: u32, (old, new): (u16, u16)) -> bool {
    match frame.load::<flowgate_abi::Be16>(at) {
        Some(sum) if sum.raw() == 0 => true,
        Some(sum) => frame.store(at, updated(sum, old, new)),
        None => false,
    }
}

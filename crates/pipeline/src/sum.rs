//! The internet checksum (RFC 1071), over words as they lie in memory: the byte order makes no
//! difference to it.

use flowgate_abi::Be16;

/// A sum of 16-bit words; folded when it is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u32);

impl Sum {
    /// Of words.
    #[inline(always)]
    pub(crate) fn of<const N: usize>(words: [u16; N]) -> Self {
        words.into_iter().fold(Self(0), Self::plus)
    }

    /// One word more.
    #[inline(always)]
    pub(crate) fn plus(self, word: u16) -> Self {
        Self(self.0 + u32::from(word))
    }

    /// Another sum more.
    #[inline(always)]
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// In 16 bits, as it lies in memory.
    #[inline(always)]
    pub(crate) const fn folded(self) -> u16 {
        folded(self.0)
    }

    /// As the checksum of what was summed.
    #[inline(always)]
    pub(crate) fn checksum(self) -> Be16 {
        Be16::from_raw(!self.folded())
    }
}

/// A sum of 16-bit words in 16 bits, as the words lie in memory (RFC 1071).
#[inline(always)]
#[must_use]
pub const fn folded(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// A checksum after a 16-bit word of what it covers, as it lies in memory, has changed (RFC 1624,
/// equation 3).
#[inline(always)]
pub(crate) fn updated(checksum: Be16, old: u16, new: u16) -> Be16 {
    let sum = u32::from(!checksum.raw()) + u32::from(!old) + u32::from(new);
    Be16::from_raw(!folded(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        let bytes = [[0x00, 0x01], [0xf2, 0x03], [0xf4, 0xf5], [0xf6, 0xf7]];
        let sum = Sum::of(bytes.map(u16::from_ne_bytes));
        assert_eq!(sum.folded().to_ne_bytes(), [0xdd, 0xf2]);
        assert_eq!(sum.checksum().get(), 0x220d);
    }
}

//! Blocks of addresses: what a node of the ipcache is about.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The addresses of one family that begin with certain bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Block {
    pub(crate) v6: bool,
    /// From the left; zeros behind `length`.
    bits: u128,
    pub(crate) length: u8,
}

impl Block {
    /// All addresses of a family.
    pub(crate) const fn all(v6: bool) -> Self {
        Self { v6, bits: 0, length: 0 }
    }

    pub(crate) fn net(self) -> IpNet {
        if self.v6 {
            Ipv6Net::new_assert(Ipv6Addr::from(self.bits), self.length).into()
        } else {
            Ipv4Net::new_assert(Ipv4Addr::from((self.bits >> 96) as u32), self.length).into()
        }
    }

    /// The block of this length, which isn't longer, around it.
    pub(crate) fn around(self, length: u8) -> Self {
        Self { bits: self.bits & leading(length), length, ..self }
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.v6 == other.v6
            && self.length <= other.length
            && (self.bits ^ other.bits) & leading(self.length) == 0
    }

    /// One contains the other.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// The block inside of it of so many bits more, by its number.
    pub(crate) fn part(self, bits: u8, number: usize) -> Self {
        let length = self.length + bits;
        Self { bits: self.bits | (number as u128) << (128 - length), length, ..self }
    }

    /// Both halves.
    pub(crate) fn halves(self) -> [Self; 2] {
        [self.part(1, 0), self.part(1, 1)]
    }

    /// Four bits, from bit `at` on.
    pub(crate) const fn nibble(self, at: u8) -> usize {
        (self.bits << at >> 124) as usize
    }

    /// The first bits, as a number.
    pub(crate) const fn first(self, bits: u8) -> u32 {
        (self.bits >> (128 - bits)) as u32
    }

    /// 64 bits, from bit `at` on.
    pub(crate) const fn window(self, at: u8) -> u64 {
        (self.bits << at >> 64) as u64
    }

    /// The block inside of it that begins with `key`, `bits` of which count.
    pub(crate) fn with_key(self, key: u64, bits: u8) -> Self {
        let bits_of_key = (u128::from(key) << 64 & leading(bits)) >> self.length;
        Self { bits: self.bits | bits_of_key, length: self.length + bits, ..self }
    }

    /// How many bits two blocks have in common from the left.
    pub(crate) fn common(self, other: Self) -> u8 {
        let same = (self.bits ^ other.bits).leading_zeros() as u8;
        same.min(self.length).min(other.length)
    }
}

impl From<IpNet> for Block {
    fn from(net: IpNet) -> Self {
        let (v6, bits) = match net.network() {
            std::net::IpAddr::V4(address) => (false, u128::from(u32::from(address)) << 96),
            std::net::IpAddr::V6(address) => (true, u128::from(address)),
        };
        Self { v6, bits, length: net.prefix_len() }
    }
}

/// Ones, so many from the left.
const fn leading(bits: u8) -> u128 {
    match bits {
        0 => 0,
        bits => u128::MAX << (128 - bits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Block {
        Block::from(text.parse::<IpNet>().unwrap())
    }

    #[test]
    fn a_block_is_a_network() {
        for text in ["0.0.0.0/0", "198.18.0.0/15", "198.18.0.1/32", "::/0", "2001:db8::1/128"] {
            assert_eq!(block(text).net().to_string(), text);
        }
    }

    #[test]
    fn families_never_meet() {
        assert!(!Block::all(false).meets(block("2001:db8::/32")));
        assert!(!block("32.1.0.0/16").meets(block("2001::/16")));
    }

    #[test]
    fn parts_are_inside_and_tell_their_numbers() {
        let outer = block("2001:db8::/60");
        for number in 0..16 {
            let part = outer.part(4, number);
            assert!(outer.contains(part) && !part.contains(outer));
            assert_eq!(part.nibble(60), number);
            assert_eq!(part.around(60), outer);
        }
        assert_eq!(outer.halves()[1].net().to_string(), "2001:db8:0:8::/61");
    }

    #[test]
    fn a_key_leads_to_the_block_that_it_was_taken_of() {
        let outer = block("2001:db8::/44");
        let inner = block("2001:db8:1:203::/64");
        assert_eq!(outer.with_key(inner.window(44), 20), inner);
        assert_eq!(inner.common(outer), 44);
        assert_eq!(inner.common(block("2001:db8:1:200::/64")), 62);
    }
}

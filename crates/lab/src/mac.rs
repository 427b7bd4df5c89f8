//! The Ethernet addresses of the lab's links.

use std::fmt;

/// An Ethernet address; displays as `02:00:5e:00:00:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The node's end of pod `number`: locally administered.
    pub(crate) const fn of_host(number: u32) -> Self {
        Self::numbered(0x10, number)
    }

    /// The pod's end of pod `number`: locally administered.
    pub(crate) const fn of_pod(number: u32) -> Self {
        Self::numbered(0x20, number)
    }

    const fn numbered(end: u8, number: u32) -> Self {
        let [a, b, c, d] = number.to_be_bytes();
        Self([0x02, end, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_link_differ_and_are_local() {
        assert_eq!(Mac::of_host(0x0102).to_string(), "02:10:00:00:01:02");
        assert_eq!(Mac::of_pod(0x0102).to_string(), "02:20:00:00:01:02");
    }
}

//! A slot: what a share of a service's flows is told, in one word that is read and written as a whole.

/// Slots lie in elements of this many, since an array rounds its element to 8 bytes.
pub const SLOTS: usize = 16;
/// Slots that there may be at all: a tracked flow names its slot in 26 bits.
pub const MAX_SLOTS: u32 = 1 << 26;
/// Numbers of a service's backends, [`NOBODY`] among them.
pub const BACKEND_NUMBERS: u32 = 1 << 14;
/// The number that no backend has: packets are dropped.
pub const NOBODY: u32 = 0;

/// A slot: two backends and three bits.
///
/// The default backend serves flows that have no entry and don't open; the fresh one those that open.
/// Bits 0 to 13: default; 14 to 27: fresh; then [`Slot::TRACK`], [`Slot::ADOPT`], [`Slot::ANNOUNCE`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot(pub u32);

impl Slot {
    /// Some of its flows may have another backend than the default: look them up.
    pub const TRACK: u32 = 1 << 28;
    /// A flow without an entry, whose packet doesn't open it, gets one that names the default.
    pub const ADOPT: u32 = 1 << 29;
    /// A flow that opens gets an entry even if it names the default.
    pub const ANNOUNCE: u32 = 1 << 30;

    const NUMBER: u32 = BACKEND_NUMBERS - 1;

    /// One that tracks nothing: all of its flows have this backend.
    #[inline(always)]
    #[must_use]
    pub const fn stable(backend: u32) -> Self {
        Self::new(backend, backend, 0)
    }

    /// Of its parts; `bits` are those of [`Slot::TRACK`] and its like.
    #[inline(always)]
    #[must_use]
    pub const fn new(default: u32, fresh: u32, bits: u32) -> Self {
        Self(default & Self::NUMBER | (fresh & Self::NUMBER) << 14 | bits)
    }

    /// The backend of flows that have no entry and don't open.
    #[inline(always)]
    #[must_use]
    pub const fn default_backend(self) -> u32 {
        self.0 & Self::NUMBER
    }

    /// The backend of flows that open.
    #[inline(always)]
    #[must_use]
    pub const fn fresh_backend(self) -> u32 {
        self.0 >> 14 & Self::NUMBER
    }

    /// The three bits, in place.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0 & (Self::TRACK | Self::ADOPT | Self::ANNOUNCE)
    }

    /// It has one of these bits.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_its_parts_apart() {
        let slot = Slot::new(0x3fff, 0x2001, Slot::TRACK | Slot::ANNOUNCE);
        assert_eq!((slot.default_backend(), slot.fresh_backend()), (0x3fff, 0x2001));
        assert!(slot.has(Slot::TRACK) && slot.has(Slot::ANNOUNCE) && !slot.has(Slot::ADOPT));
        assert_eq!(slot.bits(), Slot::TRACK | Slot::ANNOUNCE);
        assert_eq!(Slot::stable(7), Slot::new(7, 7, 0));
        assert_eq!(Slot::default().default_backend(), NOBODY);
    }
}

//! Bounded, consuming access to packet bytes: the first seam.

use zerocopy::FromBytes;

/// Reads a packet from front to back; each advance checks the end again.
pub trait Cursor {
    /// Takes a header; `None` if the packet ends before it does.
    fn take<T: FromBytes + Copy>(&mut self) -> Option<T>;
}

/// A cursor that reaches every byte of a packet, wherever it lies.
pub trait Skip: Cursor {
    /// Skips bytes; `None` if the packet ends before.
    fn skip(&mut self, bytes: u32) -> Option<()>;
}

/// The host's cursor: a slice.
#[derive(Clone, Copy, Debug)]
pub struct SliceCursor<'p>(&'p [u8]);

impl<'p> SliceCursor<'p> {
    /// A cursor at the start of a packet.
    #[must_use]
    pub const fn new(packet: &'p [u8]) -> Self {
        Self(packet)
    }
}

impl Cursor for SliceCursor<'_> {
    fn take<T: FromBytes + Copy>(&mut self) -> Option<T> {
        let (value, rest) = T::read_from_prefix(self.0).ok()?;
        self.0 = rest;
        Some(value)
    }
}

impl Skip for SliceCursor<'_> {
    fn skip(&mut self, bytes: u32) -> Option<()> {
        self.0 = self.0.get(bytes as usize..)?;
        Some(())
    }
}

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
    /// How many bytes of the packet lie before the next one.
    fn position(&self) -> u32;
}

/// The host's cursor: a slice.
#[derive(Clone, Copy, Debug)]
pub struct SliceCursor<'p> {
    rest: &'p [u8],
    length: usize,
}

impl<'p> SliceCursor<'p> {
    /// A cursor at the start of a packet.
    #[must_use]
    pub const fn new(packet: &'p [u8]) -> Self {
        Self { rest: packet, length: packet.len() }
    }
}

impl Cursor for SliceCursor<'_> {
    fn take<T: FromBytes + Copy>(&mut self) -> Option<T> {
        let (value, rest) = T::read_from_prefix(self.rest).ok()?;
        self.rest = rest;
        Some(value)
    }
}

impl Skip for SliceCursor<'_> {
    fn skip(&mut self, bytes: u32) -> Option<()> {
        self.rest = self.rest.get(bytes as usize..)?;
        Some(())
    }

    fn position(&self) -> u32 {
        (self.length - self.rest.len()) as u32
    }
}

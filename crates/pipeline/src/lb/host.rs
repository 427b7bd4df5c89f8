//! A whole frame on the host: in a buffer with headroom, as drivers have it.

use flowgate_abi::Be16;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    Action, Balance, Buffer,
    hook::{self, Common, Rare},
    nat::{self, Nat},
    request,
};
use crate::{
    SliceCursor, V4, V6,
    hook::{FrameBytes, Rewrite},
    parse::Layer3,
};

/// A frame somewhere inside of a caller's bytes.
#[derive(Debug)]
pub struct HostBuffer<'b> {
    bytes: &'b mut [u8],
    start: usize,
    end: usize,
}

impl<'b> HostBuffer<'b> {
    /// The frame is what lies behind so many bytes of headroom.
    ///
    /// # Panics
    /// There aren't as many bytes.
    #[must_use]
    pub fn new(bytes: &'b mut [u8], headroom: usize) -> Self {
        assert!(headroom <= bytes.len(), "a headroom of {headroom} in {} bytes", bytes.len());
        let end = bytes.len();
        Self { bytes, start: headroom, end }
    }

    /// Cuts bytes off the frame's start; `false`: it has no more than that.
    pub(crate) fn shrink(&mut self, bytes: u32) -> bool {
        let start = self.start + bytes as usize;
        if start >= self.end {
            return false;
        }
        self.start = start;
        true
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }
}

impl FrameBytes for HostBuffer<'_> {
    fn load<T: FromBytes + IntoBytes + Default>(&self, offset: u32) -> Option<T> {
        self.frame().load(offset)
    }
}

impl Rewrite for HostBuffer<'_> {
    fn store<T: IntoBytes + Immutable>(&mut self, offset: u32, value: T) -> bool {
        (&mut self.bytes[self.start..self.end]).store(offset, value)
    }
}

impl Buffer for HostBuffer<'_> {
    type Head<'h>
        = SliceCursor<'h>
    where
        Self: 'h;
    type Whole<'h>
        = SliceCursor<'h>
    where
        Self: 'h;

    fn head(&self) -> SliceCursor<'_> {
        SliceCursor::new(self.frame())
    }

    fn whole(&self) -> SliceCursor<'_> {
        SliceCursor::new(self.frame())
    }

    fn length(&self) -> u32 {
        (self.end - self.start) as u32
    }

    fn grow(&mut self, bytes: u32) -> bool {
        match self.start.checked_sub(bytes as usize) {
            Some(start) => self.start = start,
            None => return false,
        }
        true
    }

    fn truncate(&mut self, length: u32) -> bool {
        let end = self.start + length as usize;
        if end > self.end {
            return false;
        }
        self.end = end;
        true
    }
}

/// Runs a frame through the balancer, as the program does.
pub fn run<B: Buffer, T: Balance>(buffer: &mut B, tables: &T) -> Action {
    let ethertype: Be16 = buffer.load(12).unwrap_or_default();
    match Layer3::of(ethertype) {
        Layer3::Ipv4 => of_family::<V4, B, T>(buffer, tables),
        Layer3::Ipv6 => of_family::<V6, B, T>(buffer, tables),
        _ => Action::Pass,
    }
}

fn of_family<F: Nat, B: Buffer, T: Balance>(buffer: &mut B, tables: &T) -> Action {
    let request = request::plain(buffer);
    match hook::common::<F, B, T>(buffer, request, tables) {
        Common::Done(action) => action,
        Common::Rare => match hook::rare::<F, B, T>(buffer, tables) {
            Rare::Done(action) => action,
            Rare::NatError => nat::translate_error::<F, B, T>(buffer, tables),
        },
        Common::Nat => nat::translate::<F, B, T>(buffer, tables),
        Common::Affine => hook::affine::<F, B, T>(buffer, tables),
    }
}

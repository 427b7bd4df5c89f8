//! A frame as a vector: what the pipeline reshapes.

use flowgate_pipeline::{
    answer::Reshape,
    hook::{FrameBytes, Rewrite},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A frame of its own.
#[derive(Clone, Debug)]
pub(super) struct HostFrame(pub(super) Vec<u8>);

impl AsRef<[u8]> for HostFrame {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FrameBytes for HostFrame {
    fn load<T: FromBytes + IntoBytes + Default>(&self, offset: u32) -> Option<T> {
        (&*self.0).load(offset)
    }
}

impl Rewrite for HostFrame {
    fn store<T: IntoBytes + Immutable>(&mut self, offset: u32, value: T) -> bool {
        (&mut *self.0).store(offset, value)
    }
}

impl Reshape for HostFrame {
    fn set_length(&mut self, bytes: u32) -> bool {
        self.0.resize(bytes as usize, 0);
        true
    }

    fn push(&mut self, bytes: u32) -> bool {
        self.0.splice(..0, std::iter::repeat_n(0, bytes as usize));
        true
    }

    fn sum(&self, offset: u32, bytes: u32) -> Option<u16> {
        let (from, to) = (offset as usize, (offset + bytes) as usize);
        let word =
            |pair: &[u8]| u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        let mut sum: u32 = self.0.get(from..to)?.chunks(2).map(word).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        Some(sum as u16)
    }

    /// Nobody takes it on.
    fn is_unfinished(&mut self, _scratch: u32) -> bool {
        false
    }
}

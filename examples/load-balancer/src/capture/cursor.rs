//! Bounded reading of numbers in either byte order.

use super::CaptureError;

/// Bytes of a file, and where in it the next one is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    pub(super) rest: &'a [u8],
    pub(super) at: usize,
    pub(super) little: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self { rest: file, at: 0, little: true }
    }

    pub(super) fn take(
        &mut self,
        length: usize,
        what: &'static str,
    ) -> Result<&'a [u8], CaptureError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(CaptureError::CutOff { at: self.at, what });
        };
        self.rest = rest;
        self.at += length;
        Ok(taken)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, CaptureError> {
        let bytes = self.take(4, what)?.try_into().expect("four bytes were taken");
        Ok(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, CaptureError> {
        let bytes = self.take(2, what)?.try_into().expect("two bytes were taken");
        Ok(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    /// A length that nothing longer than `most` has.
    pub(super) fn length(
        &mut self,
        what: &'static str,
        most: usize,
    ) -> Result<usize, CaptureError> {
        let at = self.at;
        let length = self.u32(what)? as usize;
        if length > most { Err(CaptureError::Length { at, what, length }) } else { Ok(length) }
    }
}

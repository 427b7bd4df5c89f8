//! The pcapng format (draft-ietf-opsawg-pcapng): blocks, of which a reader may skip those that it doesn't
//! know.

use super::{CaptureError, Frame, LONGEST_FRAME, cursor::Cursor};

/// A file begins with a section header; its type reads the same in both byte orders.
pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;
/// Type and length before the body, and the length again behind it.
const AROUND: usize = 12;

pub(super) fn frames(file: &[u8]) -> Result<Vec<Frame>, CaptureError> {
    let mut cursor = Cursor::new(file);
    let mut reading = Reading::default();
    while !cursor.rest.is_empty() {
        let (kind, body) = block(&mut cursor)?;
        reading.block(kind, body)?;
    }
    Ok(reading.frames)
}

/// A block's type and body.
fn block<'a>(cursor: &mut Cursor<'a>) -> Result<(u32, Cursor<'a>), CaptureError> {
    let at = cursor.at;
    let kind = cursor.u32("a block")?;
    if kind == SECTION {
        cursor.little = is_little(cursor.rest);
    }
    let length = cursor.u32("a block")? as usize;
    if length < AROUND || !length.is_multiple_of(4) {
        return Err(CaptureError::Length { at, what: "a block", length });
    }
    let body = Cursor { at: cursor.at, ..Cursor::new(cursor.take(length - AROUND, "a block")?) };
    let again = cursor.u32("a block")? as usize;
    match again == length {
        true => Ok((kind, Cursor { little: cursor.little, ..body })),
        false => {
            Err(CaptureError::Length { at, what: "a block that ends with a length", length: again })
        }
    }
}

/// The byte-order mark comes behind the length, which can't be read without it.
fn is_little(rest: &[u8]) -> bool {
    rest.get(4..8) == Some(&BYTE_ORDER.to_le_bytes())
}

#[derive(Default)]
struct Reading {
    frames: Vec<Frame>,
    /// The section's interfaces: link type and where it was said, and how much of each packet was kept.
    interfaces: Vec<(u16, usize, usize)>,
}

impl Reading {
    fn block(&mut self, kind: u32, mut body: Cursor<'_>) -> Result<(), CaptureError> {
        match kind {
            SECTION => self.interfaces.clear(),
            INTERFACE => {
                let at = body.at;
                let link_type = body.u16("an interface")?;
                body.u16("an interface")?;
                let kept = body.u32("an interface")? as usize;
                self.interfaces.push((link_type, at, if kept == 0 { usize::MAX } else { kept }));
            }
            ENHANCED_PACKET => {
                let at = body.at;
                let number = body.u32("a packet")?;
                self.interface(number, at)?;
                body.take(8, "a packet")?;
                let kept = body.length("a packet", LONGEST_FRAME)?;
                let length = body.u32("a packet")? as usize;
                self.frame(&mut body, kept, length)?;
            }
            SIMPLE_PACKET => {
                let limit = self.interface(0, body.at)?;
                let length = body.u32("a packet")? as usize;
                self.frame(&mut body, length.min(limit).min(LONGEST_FRAME), length)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// How much is kept of the packets of an interface.
    fn interface(&self, number: u32, at: usize) -> Result<usize, CaptureError> {
        match self.interfaces.get(number as usize) {
            None => Err(CaptureError::UnknownInterface { at, number }),
            Some(&(ETHERNET, _, kept)) => Ok(kept),
            Some(&(link_type, at, _)) => {
                Err(CaptureError::LinkType { at, link_type: link_type.into() })
            }
        }
    }

    fn frame(
        &mut self,
        body: &mut Cursor<'_>,
        kept: usize,
        length: usize,
    ) -> Result<(), CaptureError> {
        let at = body.at;
        let bytes = body.take(kept, "a packet")?.to_vec();
        if length < kept {
            let what = "a packet of which more was kept";
            return Err(CaptureError::Length { at, what, length });
        }
        self.frames.push(Frame { bytes, length });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sections, in both byte orders; a block that nobody knows; packets of both kinds.
    const FILE: &[u8] = &[
        0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, //
        255, 255, 255, 255, 255, 255, 255, 255, 28, 0, 0, 0, //
        1, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 20, 0, 0, 0, //
        6, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
        1, 0, 0, 0, 9, 0, 0, 0, 0xaa, 0, 0, 0, 36, 0, 0, 0, //
        3, 0, 0, 0, 20, 0, 0, 0, 5, 0, 0, 0, 0xbb, 0xcc, 0, 0, 20, 0, 0, 0, //
        0xad, 0x0b, 0, 0, 12, 0, 0, 0, 12, 0, 0, 0, //
        0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 28, 0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0, //
        255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 28, //
        0, 0, 0, 1, 0, 0, 0, 20, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, //
        0, 0, 0, 3, 0, 0, 0, 20, 0, 0, 0, 1, 0xdd, 0, 0, 0, 0, 0, 0, 20,
    ];

    #[test]
    fn sections_of_both_byte_orders_are_read() {
        let expected = [(vec![0xaa], 9), (vec![0xbb, 0xcc], 5), (vec![0xdd], 1)];
        let expected = expected.map(|(bytes, length)| Frame { bytes, length });
        assert_eq!(frames(FILE).unwrap(), expected);
    }

    #[test]
    fn whatever_is_cut_off_is_an_error() {
        let ends = [28, 48, 84, 104, 116, 144, 164];
        for end in (4..FILE.len()).filter(|end| !ends.contains(end)) {
            let error = frames(&FILE[..end]).unwrap_err();
            assert!(matches!(error, CaptureError::CutOff { .. }), "{end}: {error}");
        }
    }

    #[test]
    fn other_links_and_impossible_lengths_are_refused() {
        let with = |at: usize, byte| {
            let mut file = FILE.to_vec();
            file[at] = byte;
            frames(&file).unwrap_err()
        };
        assert_eq!(with(36, 113), CaptureError::LinkType { at: 36, link_type: 113 });
        assert_eq!(with(56, 1), CaptureError::UnknownInterface { at: 56, number: 1 });
        assert!(matches!(with(32, 18), CaptureError::Length { at: 28, length: 18, .. }));
        assert!(matches!(with(44, 24), CaptureError::Length { at: 28, length: 24, .. }));
        assert!(matches!(with(71, 0x7f), CaptureError::Length { at: 68, .. }));
        assert!(matches!(with(72, 0), CaptureError::Length { length: 0, .. }));
    }
}

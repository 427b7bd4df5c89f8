//! The pcap format (draft-ietf-opsawg-pcap): a header, and behind it records.

use super::{CaptureError, Frame, LONGEST_FRAME, cursor::Cursor};

const ETHERNET: u32 = 1;
/// With times in microseconds and in nanoseconds, in the writer's byte order.
const MAGIC: [u32; 2] = [0xa1b2_c3d4, 0xa1b2_3c4d];
/// Behind the magic number: version, two words that nobody uses, and the longest record.
const BEFORE_LINK_TYPE: usize = 16;
const TIME: usize = 8;

pub(super) fn is_magic(bytes: [u8; 4]) -> bool {
    MAGIC.contains(&u32::from_le_bytes(bytes)) || MAGIC.contains(&u32::from_be_bytes(bytes))
}

pub(super) fn frames(file: &[u8]) -> Result<Vec<Frame>, CaptureError> {
    let mut cursor = Cursor::new(file);
    let magic = cursor.u32("the header")?;
    cursor.little = MAGIC.contains(&magic);
    cursor.take(BEFORE_LINK_TYPE, "the header")?;
    let at = cursor.at;
    // The upper bits say whether frames have a checksum at their end.
    let link_type = cursor.u32("the header")? & 0x0fff_ffff;
    if link_type != ETHERNET {
        return Err(CaptureError::LinkType { at, link_type });
    }
    let mut frames = Vec::new();
    while !cursor.rest.is_empty() {
        frames.push(record(&mut cursor)?);
    }
    Ok(frames)
}

fn record(cursor: &mut Cursor<'_>) -> Result<Frame, CaptureError> {
    cursor.take(TIME, "a record")?;
    let kept = cursor.length("a record", LONGEST_FRAME)?;
    let at = cursor.at;
    let length = cursor.u32("a record")? as usize;
    if length < kept {
        return Err(CaptureError::Length {
            at,
            what: "a record with more bytes than its packet",
            length,
        });
    }
    Ok(Frame { bytes: cursor.take(kept, "a record")?.to_vec(), length })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header and one record of three bytes, of four on the wire.
    const LITTLE: &[u8] = &[
        0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, //
        1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0xaa, 0xbb, 0xcc,
    ];
    const BIG: &[u8] = &[
        0xa1, 0xb2, 0x3c, 0x4d, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 1, //
        0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0xaa, 0xbb, 0xcc,
    ];

    #[test]
    fn both_byte_orders_are_read() {
        let expected = vec![Frame { bytes: vec![0xaa, 0xbb, 0xcc], length: 4 }];
        assert_eq!(frames(LITTLE), Ok(expected.clone()));
        assert_eq!(frames(BIG), Ok(expected));
        assert_eq!(frames(&LITTLE[..24]), Ok(vec![]));
    }

    #[test]
    fn whatever_is_cut_off_is_an_error() {
        for end in (4..LITTLE.len()).filter(|end| *end != 24) {
            let error = frames(&LITTLE[..end]).unwrap_err();
            assert!(matches!(error, CaptureError::CutOff { .. }), "{end}: {error}");
        }
    }

    #[test]
    fn other_links_and_impossible_lengths_are_refused() {
        let with = |at: usize, byte| {
            let mut file = LITTLE.to_vec();
            file[at] = byte;
            frames(&file).unwrap_err()
        };
        assert_eq!(with(20, 113), CaptureError::LinkType { at: 20, link_type: 113 });
        assert!(matches!(with(35, 0x7f), CaptureError::Length { at: 32, .. }));
        assert!(matches!(with(36, 2), CaptureError::Length { at: 36, length: 2, .. }));
    }
}

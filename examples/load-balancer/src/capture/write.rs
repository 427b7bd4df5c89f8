//! pcapng, written: frames that any reader of captures understands.

use std::{
    io::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use super::Frame;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

/// Writes what comes before the first frame: a section, and one Ethernet interface with times in
/// microseconds.
///
/// # Errors
///
/// Those of `to`.
pub fn header(to: &mut impl Write) -> io::Result<()> {
    let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    section.extend([1, 0, 0, 0]);
    // The section's length isn't known.
    section.extend([0xff; 8]);
    block(to, SECTION, &section)?;
    block(to, INTERFACE, &[1, 0, 0, 0, 0, 0, 0, 0])
}

/// Writes a frame; returns how many bytes that took.
///
/// # Errors
///
/// Those of `to`.
pub fn frame(to: &mut impl Write, frame: &Frame, time: SystemTime) -> io::Result<usize> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    let [kept, length] =
        [frame.bytes.len(), frame.length].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let mut body = Vec::with_capacity(frame.bytes.len() + 24);
    for word in [0, (time >> 32) as u32, time as u32, kept, length] {
        body.extend(word.to_le_bytes());
    }
    body.extend(&frame.bytes);
    body.resize(body.len().next_multiple_of(4), 0);
    block(to, ENHANCED_PACKET, &body)?;
    Ok(body.len() + 12)
}

fn block(to: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 12).unwrap_or(u32::MAX).to_le_bytes();
    to.write_all(&kind.to_le_bytes())?;
    to.write_all(&length)?;
    to.write_all(body)?;
    to.write_all(&length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::frames;

    #[test]
    fn what_is_written_is_read_again() {
        let cut = Frame { bytes: vec![7; 5], length: 1500 };
        let written = [Frame::whole(vec![1, 2, 3]), cut, Frame::whole(vec![0; 60])];
        let mut file = Vec::new();
        header(&mut file).unwrap();
        for one in &written {
            let before = file.len();
            let length = frame(&mut file, one, UNIX_EPOCH).unwrap();
            assert_eq!(file.len() - before, length);
        }
        assert_eq!(frames(&file).unwrap(), written);
    }
}

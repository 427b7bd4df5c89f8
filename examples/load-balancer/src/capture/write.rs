//! pcapng, written (draft-ietf-opsawg-pcapng): frames that any reader of captures understands, and what is to be
//! said of them.

use std::{
    io::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use super::Frame;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

const COMMENT: u16 = 1;
/// Of an interface.
const NAME: u16 = 2;
/// Of an interface's statistics: packets that the system lost.
const LOST: u16 = 7;
/// Of a packet: what a program said of it.
const VERDICT: u16 = 7;
/// The kind of verdict that XDP programs give.
const XDP: u8 = 2;

/// A frame and what is said of it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The interface by which it came: its number in the file, from 0 on.
    pub interface: u32,
    /// The frame.
    pub frame: &'a Frame,
    /// When it was there.
    pub time: SystemTime,
    /// What an XDP program said of it, by the kernel's numbers.
    pub verdict: Option<u32>,
    /// Anything else, for the eye.
    pub comment: &'a str,
}

/// Writes what comes before the first frame: a section, and one Ethernet interface with times in
/// microseconds.
///
/// # Errors
///
/// Those of `to`.
pub fn header(to: &mut impl Write) -> io::Result<()> {
    section(to)?;
    interface(to, "")
}

/// Writes what a file begins with.
///
/// # Errors
///
/// Those of `to`.
pub fn section(to: &mut impl Write) -> io::Result<()> {
    let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    section.extend([1, 0, 0, 0]);
    // The section's length isn't known.
    section.extend([0xff; 8]);
    block(to, SECTION, &section)
}

/// Writes an Ethernet interface with times in microseconds, the next number's; an empty name says nothing.
///
/// # Errors
///
/// Those of `to`.
pub fn interface(to: &mut impl Write, name: &str) -> io::Result<()> {
    let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0];
    options(&mut body, &[(NAME, name.as_bytes())]);
    block(to, INTERFACE, &body)
}

/// Writes a frame; returns how many bytes that took.
///
/// # Errors
///
/// Those of `to`.
pub fn frame(to: &mut impl Write, frame: &Frame, time: SystemTime) -> io::Result<usize> {
    packet(to, &Packet { interface: 0, frame, time, verdict: None, comment: "" })
}

/// Writes a frame and what is said of it; returns how many bytes that took.
///
/// # Errors
///
/// Those of `to`.
pub fn packet(to: &mut impl Write, packet: &Packet<'_>) -> io::Result<usize> {
    let Packet { interface, frame, time, verdict, comment } = *packet;
    let [high, low] = stamp(time);
    let [kept, length] =
        [frame.bytes.len(), frame.length].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let mut body = Vec::with_capacity(frame.bytes.len() + 64);
    for word in [interface, high, low, kept, length] {
        body.extend(word.to_le_bytes());
    }
    body.extend(&frame.bytes);
    body.resize(body.len().next_multiple_of(4), 0);
    let verdict = verdict
        .map(|said| [&[XDP][..], &u64::from(said).to_le_bytes()].concat())
        .unwrap_or_default();
    options(&mut body, &[(VERDICT, &verdict), (COMMENT, comment.as_bytes())]);
    block(to, ENHANCED_PACKET, &body)?;
    Ok(body.len() + 12)
}

/// Writes how many packets an interface lost.
///
/// # Errors
///
/// Those of `to`.
pub fn lost(
    to: &mut impl Write,
    (interface, packets): (u32, u64),
    time: SystemTime,
) -> io::Result<()> {
    let [high, low] = stamp(time);
    let mut body: Vec<u8> = [interface, high, low].into_iter().flat_map(u32::to_le_bytes).collect();
    options(&mut body, &[(LOST, &packets.to_le_bytes())]);
    block(to, STATISTICS, &body)
}

/// Microseconds since 1970, the upper half first.
fn stamp(time: SystemTime) -> [u32; 2] {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    [(time >> 32) as u32, time as u32]
}

/// Those that aren't empty, and the end of them.
fn options(body: &mut Vec<u8>, options: &[(u16, &[u8])]) {
    let longest = usize::from(u16::MAX);
    for (code, value) in options.iter().filter(|(_, value)| !value.is_empty()) {
        let value = &value[..value.len().min(longest)];
        body.extend(code.to_le_bytes());
        body.extend((value.len() as u16).to_le_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    if options.iter().any(|(_, value)| !value.is_empty()) {
        body.extend([0; 4]);
    }
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
    use std::time::Duration;

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

    #[test]
    fn a_packet_says_what_was_said_of_it() {
        let (mut file, frame) = (Vec::new(), Frame::whole(vec![0xaa; 5]));
        let time = UNIX_EPOCH + Duration::from_micros((1 << 32) + 2);
        let one = Packet { interface: 1, frame: &frame, time, verdict: Some(3), comment: "out" };
        assert_eq!(packet(&mut file, &one).unwrap(), file.len());
        let expected = [
            6, 0, 0, 0, 68, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 5, 0, 0,
            0, //
            0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0, 0, 0, //
            7, 0, 9, 0, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // a verdict of XDP: 3
            1, 0, 3, 0, b'o', b'u', b't', 0, 0, 0, 0, 0, 68, 0, 0, 0,
        ];
        assert_eq!(file, expected);
    }

    #[test]
    fn an_interface_says_its_name_and_what_it_lost() {
        let mut file = Vec::new();
        interface(&mut file, "eth0").unwrap();
        let name = [2, 0, 4, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0];
        assert_eq!(file[16..], [&name[..], &[32, 0, 0, 0]].concat());
        file.clear();
        lost(&mut file, (1, 5), UNIX_EPOCH).unwrap();
        let expected = [7, 0, 8, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0];
        assert_eq!(file[..12], [5, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(file[20..], expected);
    }
}

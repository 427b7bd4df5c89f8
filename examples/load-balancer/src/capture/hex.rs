//! Frames as hexadecimal digits: one to a line; spaces, colons and what follows a `#` don't count.

use super::{CaptureError, Frame, LONGEST_FRAME};

/// The bytes that a text's digits stand for.
///
/// # Errors
///
/// [`CaptureError::NotHex`] of line 1.
pub fn bytes(text: &str) -> Result<Vec<u8>, CaptureError> {
    line(text).ok_or(CaptureError::NotHex { line: 1 })
}

/// Two digits for each byte.
#[must_use]
pub fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A frame for each line that isn't empty.
pub(super) fn frames(file: &[u8]) -> Result<Vec<Frame>, CaptureError> {
    let text = str::from_utf8(file).map_err(|_| CaptureError::NotText)?;
    let mut frames = Vec::new();
    for (number, text) in (1..).zip(text.lines()) {
        let bytes = line(text).ok_or(CaptureError::NotHex { line: number })?;
        match bytes.len() {
            0 => {}
            length if length > LONGEST_FRAME => {
                return Err(CaptureError::Length { at: 0, what: "a line", length });
            }
            _ => frames.push(Frame::whole(bytes)),
        }
    }
    Ok(frames)
}

fn line(text: &str) -> Option<Vec<u8>> {
    let text = text.split('#').next().unwrap_or_default();
    let written = text.chars().filter(|c| !c.is_ascii_whitespace() && *c != ':');
    let digits: Option<Vec<u8>> =
        written.map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits?;
    let whole = digits.len().is_multiple_of(2);
    whole.then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_line_by_line() {
        let text = b"# two frames\n02 00:0a\n\n ffFF # the other\n";
        let expected = [vec![2, 0, 10], vec![255, 255]].map(Frame::whole);
        assert_eq!(frames(text).unwrap(), expected);
    }

    #[test]
    fn what_isnt_digits_is_an_error_with_its_line() {
        assert_eq!(frames(b"00\n0\n"), Err(CaptureError::NotHex { line: 2 }));
        assert_eq!(frames(b"\n\n0x\n"), Err(CaptureError::NotHex { line: 3 }));
        assert_eq!(frames(&[0xff, 0xfe]), Err(CaptureError::NotText));
        assert_eq!(bytes("+1"), Err(CaptureError::NotHex { line: 1 }));
    }
}

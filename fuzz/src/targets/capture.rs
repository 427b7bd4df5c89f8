//! Any bytes as a capture: nothing panics, what is read is no more than there is, and what is written again is
//! read as the same.

use std::time::UNIX_EPOCH;

use flowgate_lb::capture::{self, LONGEST_FRAME, write};

/// Takes one input.
pub fn run(bytes: &[u8]) {
    let Ok(frames) = capture::frames(bytes) else { return };
    let kept: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
    assert!(kept <= bytes.len());
    assert!(frames.iter().all(|frame| frame.bytes.len() <= LONGEST_FRAME.min(frame.length)));
    let mut file = Vec::new();
    write::header(&mut file).expect("memory takes all");
    for frame in &frames {
        write::frame(&mut file, frame, UNIX_EPOCH).expect("memory takes all");
    }
    assert_eq!(capture::frames(&file).as_ref(), Ok(&frames));
}

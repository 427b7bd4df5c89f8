//! Damaged files and captures: nothing panics, errors name a place that there is, and what is read was there.

use flowgate_lb::{
    capture::{self, Frame, write},
    config,
};
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../lb.yaml");

/// A piece of the example put in the place of another: keys without values, values of other fields, half lines.
fn damaged() -> impl Strategy<Value = String> {
    let places = 0..EXAMPLE.len();
    (places.clone(), 0_usize..80, places, 0_usize..80).prop_map(|(at, gone, from, length)| {
        let end = |start: usize, length: usize| (start + length).min(EXAMPLE.len());
        format!(
            "{}{}{}",
            &EXAMPLE[..at],
            &EXAMPLE[from..end(from, length)],
            &EXAMPLE[end(at, gone)..]
        )
    })
}

fn capture() -> Vec<u8> {
    let mut file = Vec::new();
    write::header(&mut file).unwrap();
    for length in [14, 60, 61] {
        write::frame(&mut file, &Frame::whole(vec![7; length]), std::time::UNIX_EPOCH).unwrap();
    }
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_damaged_file_is_understood_or_refused_at_a_place(text in damaged()) {
        if let Err(error) = config::parse("lb.yaml", &text) {
            prop_assert!(error.to_string().starts_with("lb.yaml"), "{error}");
            let lines = text.lines().count() + 1;
            prop_assert!(error.line().is_none_or(|line| (1..=lines).contains(&line)), "{error}");
        }
    }

    #[test]
    fn of_a_damaged_capture_no_more_is_read_than_there_is(
        changes in prop::collection::vec((0..capture().len(), any::<u8>()), 1..4),
        end in 0..capture().len(),
    ) {
        let mut file = capture();
        changes.iter().for_each(|&(at, byte)| file[at] = byte);
        for file in [&file[..], &file[..end]] {
            let read = capture::frames(file).unwrap_or_default();
            let kept: usize = read.iter().map(|frame| frame.bytes.len()).sum();
            prop_assert!(kept <= file.len());
        }
    }
}

//! libFuzzer's entry to [`flowgate_fuzz::targets::parse_frame`].
#![no_main]

use flowgate_fuzz::targets::parse_frame;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    if parse_frame::run(bytes) { Corpus::Keep } else { Corpus::Reject }
});

//! libFuzzer's entry to [`flowgate_fuzz::targets::events`].
#![no_main]

use flowgate_fuzz::targets::events;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    if events::run(bytes) { Corpus::Keep } else { Corpus::Reject }
});

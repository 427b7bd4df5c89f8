//! libFuzzer's entry to [`flowgate_fuzz::targets::decapsulate`].
#![no_main]

use flowgate_fuzz::targets::decapsulate;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    if decapsulate::run(bytes) { Corpus::Keep } else { Corpus::Reject }
});

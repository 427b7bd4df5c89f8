//! libFuzzer's entry to [`flowgate_fuzz::targets::manifest`].
#![no_main]

use flowgate_fuzz::targets::manifest;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    if manifest::run(bytes) { Corpus::Keep } else { Corpus::Reject }
});

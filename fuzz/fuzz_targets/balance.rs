//! libFuzzer's entry to [`flowgate_fuzz::targets::balance`].
#![no_main]

use flowgate_fuzz::targets::balance;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    if balance::run(bytes) { Corpus::Keep } else { Corpus::Reject }
});

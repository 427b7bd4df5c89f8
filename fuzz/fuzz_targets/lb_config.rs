//! libFuzzer's entry to [`flowgate_fuzz::targets::lb_config`].
#![no_main]

use flowgate_fuzz::targets::lb_config;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    if lb_config::run(bytes) { Corpus::Keep } else { Corpus::Reject }
});

//! libFuzzer's entry to [`flowgate_fuzz::targets::capture`].
#![no_main]

use flowgate_fuzz::targets::capture;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| capture::run(bytes));

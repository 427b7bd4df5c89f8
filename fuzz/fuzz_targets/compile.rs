//! libFuzzer's entry to [`flowgate_fuzz::targets::compile`].
#![no_main]

use flowgate_fuzz::targets::compile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| compile::run(bytes));

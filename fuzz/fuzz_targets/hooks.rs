//! libFuzzer's entry to [`flowgate_fuzz::targets::hooks`].
#![no_main]

use flowgate_fuzz::targets::hooks;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| hooks::run(bytes));

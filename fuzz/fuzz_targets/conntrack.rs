//! libFuzzer's entry to [`flowgate_fuzz::targets::conntrack`].
#![no_main]

use flowgate_fuzz::targets::conntrack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| conntrack::run(bytes));

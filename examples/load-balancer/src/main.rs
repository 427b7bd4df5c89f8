//! `flowgate-lb`: see the library of the same package.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    flowgate_lb::main()
}

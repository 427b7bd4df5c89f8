//! A new flow among ever more networks (`ipBlock`), and what other schemes take for it.
//!
//! Needs root: it works in network namespaces of its own. Random networks of the lengths that address
//! plans have, and random addresses inside of them, so that every look-up takes another way through
//! memory. `FLOWGATE_OBJECT` (a path) has it measure another object than the shipped one.

mod load;
mod tries;
mod verdicts;
mod wire;

use std::{error::Error, process::ExitCode};

use flowgate_benches::ending;
use flowgate_lab::available;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Networks.
const SIZES: [usize; 5] = [100, 1000, 10_000, 100_000, 500_000];

fn main() -> ExitCode {
    if let Err(missing) = ending::own_network() {
        return ending::skipped(&missing);
    }
    let verdicts = verdicts::run();
    if verdicts.is_err() {
        return ending::status(verdicts);
    }
    if let Err(missing) = available() {
        println!("\nSKIPPED over veth: {missing}");
        return ExitCode::SUCCESS;
    }
    ending::status(wire::run().map_err(|error| error as _))
}

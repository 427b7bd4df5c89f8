//! What a packet costs in the loaded programs, by `BPF_PROG_TEST_RUN`, net of an empty program.
//!
//! Needs root: it works in a network namespace of its own, where the endpoint that is measured is
//! bound to loopback, the interface on which the kernel runs test packets. The programs are loaded
//! several times; after each load, each round measures every row, and the empty program right before
//! it. `FLOWGATE_OBJECT` (a path) has it measure another object than the shipped one.

mod row;
mod rows;
mod table;

use std::{error::Error, process::ExitCode};

use flowgate_benches::{ending, rig};

use crate::table::Line;

/// Together an odd number of rounds, so that the median is one of them.
const LOADS: usize = 3;
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    if let Err(missing) = ending::own_network() {
        return ending::skipped(&missing);
    }
    ending::status(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let object = rig::object()?;
    let mut lines: Vec<Line> = Vec::new();
    let mut reports = Vec::new();
    for load in 0..LOADS {
        let mut rows = rows::rows(&object, ROUNDS)?;
        if load == 0 {
            lines = rows.iter().map(Line::of).collect::<Result<_, _>>()?;
            reports = rows[0].rig.borrow().reports();
        }
        for _ in 0..ROUNDS {
            for (row, line) in rows.iter_mut().zip(&mut lines) {
                line.measure(row)?;
            }
        }
        for (row, line) in rows.iter().zip(&mut lines) {
            line.refused += row.refused;
        }
    }
    table::print(&lines, LOADS * ROUNDS);
    table::print_programs(&reports);
    Ok(())
}

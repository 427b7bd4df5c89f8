//! What a packet costs in the load balancer, by `BPF_PROG_TEST_RUN`, net of an empty program; what stages cost; how
//! many frames a wire's end balances; and what size costs.
//!
//! Needs root. The programs are loaded several times; after each load, each round measures every row, and
//! the empty program right before it in the same way.

mod composition;
mod live;
mod scale;

use std::{error::Error, process::ExitCode};

use flowgate_benches::{balanced_rows, ending, sampling::Sample, spread::Spread};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Together an odd number of rounds, so that the median is one of them.
const LOADS: usize = 3;
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    if let Err(missing) = ending::own_network() {
        return ending::skipped(&missing);
    }
    ending::status(run())
}

fn run() -> Result<()> {
    packets()?;
    composition::run()?;
    scale::run()?;
    live::run().map_err(|error| error as _)
}

fn packets() -> Result<()> {
    let mut lines: Vec<(String, Vec<Sample>)> = Vec::new();
    for load in 0..LOADS {
        let mut rows = balanced_rows::rows(load, ROUNDS)?;
        if load == 0 {
            lines = rows.iter().map(|row| (row.name.clone(), Vec::new())).collect();
        }
        for _ in 0..ROUNDS {
            for (row, (_, samples)) in rows.iter_mut().zip(&mut lines) {
                samples.push(row.measure()?);
            }
        }
    }
    println!("ns per packet, net of the empty program; median of {} rounds\n", LOADS * ROUNDS);
    println!("| packet | net | least | most | empty program |\n|---|--:|--:|--:|--:|");
    for (name, samples) in &lines {
        let net = Spread::of(samples.iter().map(Sample::net));
        let empty = Spread::of(samples.iter().map(|sample| sample.empty));
        println!("| {name} | {net} | {:.0} |", empty.median);
    }
    println!();
    Ok(())
}

//! What a packet between two pods costs on its whole way: live frames over veth.
//!
//! Needs root. Each way has a node and two pods of its own, in network namespaces. The kernel makes the
//! frames (`BPF_F_TEST_XDP_LIVE_FRAMES`) and takes them for received on the node's end of the client's
//! link; a program at the server's own interface counts and drops them. Everything happens on one CPU,
//! so the time of a call is what its packets cost, their making included. Each round measures every
//! way.

mod nft;
mod ways;

use std::{error::Error, process::ExitCode};

use flowgate_benches::{ending, live::stay_on_one_cpu, spread::Spread};
use flowgate_lab::available;

use crate::ways::Row;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Odd, so that the median is one of them.
const ROUNDS: usize = 7;

fn main() -> ExitCode {
    if let Err(missing) = available() {
        return ending::skipped(&missing);
    }
    ending::status(run().map_err(|error| error as _))
}

fn run() -> Result<()> {
    stay_on_one_cpu()?;
    let mut rows = ways::rows(ROUNDS)?;
    for _ in 0..ROUNDS {
        for row in &mut rows {
            row.measure()?;
        }
    }
    print(&rows);
    Ok(())
}

fn print(rows: &[Row]) {
    let spread = |row: &Row| Spread::of(row.samples.iter().copied());
    let floor = spread(&rows[0]).median;
    let routing = rows.iter().find(|row| row.name == ways::ROUTING).map(spread);
    println!("ns per packet, the making of it included; median of {ROUNDS} rounds\n");
    println!("| way | ns | least | most | million/s | net, against routing |");
    println!("|---|--:|--:|--:|--:|--:|");
    for row in rows {
        if let Some(missing) = &row.missing {
            println!("| {} | SKIPPED: {missing} | | | | |", row.name);
            continue;
        }
        let all = spread(row);
        let ratio = routing.map_or(f64::NAN, |r| (all.median - floor) / (r.median - floor));
        println!("| {} | {all} | {:.2} | {ratio:.2} |", row.name, 1000.0 / all.median);
    }
}

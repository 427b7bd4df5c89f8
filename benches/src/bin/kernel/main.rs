//! What a packet costs in the loaded programs, by `BPF_PROG_TEST_RUN`, net of an empty program.
//!
//! Needs root: it works in a network namespace of its own, where the endpoint that is measured is
//! bound to loopback, the interface on which the kernel runs test packets. Each round measures
//! every row, and the empty program right before it.

mod rig;
mod rows;
mod sampling;

use std::{error::Error, process::ExitCode};

use flowgate_datapath::{OpenError, ProgramReport};
use nix::sched::{CloneFlags, unshare};

use crate::{
    rows::Row,
    sampling::{Sample, Spread},
};

/// Odd, so that the median is one of them.
const ROUNDS: usize = 15;

fn main() -> ExitCode {
    // Nothing may ever attach to an interface of the machine's own namespace.
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        println!("SKIPPED: no network namespace of its own ({error}): run as root");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<OpenError>() {
            Some(missing @ OpenError::MissingCapability { .. }) => {
                println!("SKIPPED: {missing}");
                ExitCode::SUCCESS
            }
            _ => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut rows = rows::rows(ROUNDS)?;
    let mut samples = vec![Vec::new(); rows.len()];
    for round in 0..ROUNDS {
        for (row, samples) in rows.iter_mut().zip(&mut samples) {
            samples.push(row.measure(round)?);
        }
    }
    let notes: Vec<String> = rows
        .iter()
        .filter_map(|row| row.check_afterwards().transpose())
        .collect::<Result<_, _>>()?;
    print(&rows, &samples);
    print_programs(&rows[0].programs());
    notes.iter().for_each(|note| println!("\n{note}"));
    Ok(())
}

fn print(rows: &[Row], samples: &[Vec<Sample>]) {
    println!("ns per packet, net of the empty program; median of {ROUNDS} rounds\n");
    println!("| packet | net | least | most | empty program |");
    println!("|---|--:|--:|--:|--:|");
    for (row, samples) in rows.iter().zip(samples) {
        let net = Spread::of(samples.iter().map(Sample::net));
        let empty = Spread::of(samples.iter().map(|sample| sample.empty));
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} |",
            row.name, net.median, net.least, net.most, empty.median
        );
    }
}

fn print_programs(reports: &[ProgramReport]) {
    println!("\n| program | verified instructions | bytes of machine code |");
    println!("|---|--:|--:|");
    for report in reports {
        let verified = report.verified_instructions.map_or("?".to_owned(), |n| n.to_string());
        println!("| `{}` | {verified} | {} |", report.name, report.jited_bytes);
    }
}

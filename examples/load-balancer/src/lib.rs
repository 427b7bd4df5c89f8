//! `flowgate-lb`: an L4 load balancer for the front of a service, from one file.
//!
//! ```text
//! flowgate-lb run --config lb.yaml           balances
//! flowgate-lb check lb.yaml                  says what is wrong with a file
//! flowgate-lb status | services | backends   how it is
//! flowgate-lb drain web 198.18.0.11          no new flows there; undrain, add, remove
//! flowgate-lb stats --watch                  what goes where
//! flowgate-lb explain | simulate             where a flow or a packet goes, and why
//! flowgate-lb sample -w out.pcapng           packets as they go on, one of so many
//! flowgate-lb decapsulate --interface eth0 … on a backend: takes packets out of its tunnels
//! flowgate-lb server-id --cgroup … --id 11   on a backend: TCP names it; on its clients, with --client
//! ```
//!
//! The library (`flowgate-services`, `flowgate-datapath`) does the work in the kernel. What a product adds is
//! here: [`config`] reads the file, [`desired`] puts operators' changes over it, [`health`] finds out who
//! answers, [`balancer`] brings the three together, [`daemon`] drives it, [`api`] and [`metrics`] let others
//! look, and [`capture`] reads and writes packets.
//!
//! Not here: how a packet is balanced. What the product needs of that is [`plane::Plane`].
//!
//! Invariant: whatever is refused, in a file, by a command or by the system, leaves running what ran before.
//! Tested in `tests/`, without privileges but for targets named `netns*`.
#![forbid(unsafe_code)]

pub mod api;
pub mod balancer;
pub mod capture;
mod cli;
mod command;
pub mod config;
pub mod daemon;
mod decapsulate;
mod demo;
pub mod desired;
mod differences;
pub mod health;
mod library;
pub mod metrics;
mod namespace;
pub mod plane;
mod privileges;
mod respond;
mod sample;
mod sampling;
pub mod saved;
mod server_id;
mod show;
mod table;
mod until_told;
mod watch;

use std::{error::Error, process::ExitCode};

use clap::Parser;

use cli::{Arguments, Command};

/// What `main` does.
#[must_use]
pub fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well, of what can end otherwise without an error.
fn run(command: &Command) -> Result<bool, Box<dyn Error>> {
    match command {
        Command::Run { config } => balance(config)?,
        Command::Check { file } => drop(config::read(file)?),
        Command::Decapsulate(wanted) => decapsulate::run(wanted)?,
        Command::ServerId(wanted) => server_id::run(wanted)?,
        Command::Reference => print!("{}", config::reference()),
        Command::Demo(arguments) => return Ok(demo::run(arguments)?),
        Command::DemoBackend { name, port } => demo::serve(name, *port)?,
        other => command::run(other)?,
    }
    Ok(true)
}

fn balance(config: &std::path::Path) -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    daemon::run(config, library::open)?;
    Ok(())
}

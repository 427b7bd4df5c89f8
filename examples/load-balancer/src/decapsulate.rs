//! A backend's end of the tunnels: takes outer headers off until it is told to end.
//!
//! Not here: what comes out of a tunnel and what doesn't ([`flowgate_datapath::decap`]).
//!
//! On SIGTERM and SIGINT it prints what it counted, on SIGUSR1 too, and goes on then. Pinned, it stays attached
//! when it ends, and the next one takes over; otherwise nothing is left of it. Tested by `tests/netns_decap.rs`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use flowgate_datapath::{
    OpenError,
    decap::{AttachError, Builder, Decapsulator, Hook, Stats},
    lb::XdpAttach,
};
use ipnet::IpNet;
use thiserror::Error;

use crate::{
    table::table,
    until_told::{UntoldError, until_told},
};

/// What a backend takes out of tunnels.
#[derive(Debug, Args)]
pub(crate) struct Decapsulate {
    /// Where packets come in
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// This backend's address, as the balancer has it; more than one are allowed
    #[arg(long, required = true)]
    address: Vec<IpAddr>,
    /// A service's address, which this backend has on loopback; more than one are allowed
    #[arg(long, required = true)]
    vip: Vec<IpAddr>,
    /// A network that balancers send tunnels from: `uplink.source4` or `uplink.source6` of their file; more
    /// than one are allowed, and without any whoever reaches this host may send
    #[arg(long, value_name = "NETWORK")]
    balancer: Vec<IpNet>,
    /// Takes GUE, too: its UDP port
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    gue: u16,
    /// Where the program runs
    #[arg(long, value_enum, default_value_t = At::Xdp)]
    hook: At,
    /// A directory in a BPF file system, so that packets are taken on without this process
    #[arg(long, value_name = "DIRECTORY")]
    pin: Option<PathBuf>,
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum At {
    /// XDP: in the driver if it can, otherwise in front of the stack
    Xdp,
    /// TC: keeps together what the driver has put together
    Tc,
}

/// Why it doesn't begin, or ends.
#[non_exhaustive]
#[derive(Debug, Error)]
pub(crate) enum DecapsulateError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Ended(#[from] UntoldError),
}

/// Takes outer headers off, until it is told to end.
pub(crate) fn run(wanted: &Decapsulate) -> Result<(), DecapsulateError> {
    let mut decapsulator = builder(wanted).open()?;
    let hook = match wanted.hook {
        At::Xdp => Hook::Xdp(XdpAttach::Any),
        At::Tc => Hook::Tc,
    };
    let attached = decapsulator.attach(&wanted.interface, hook)?;
    let how = if attached.adopted { ", taken over" } else { "" };
    let begun = format!("decapsulates on {}: {}{how}\n", wanted.interface, attached.way);
    until_told(&begun, || Ok(shown(&decapsulator.stats()?)))?;
    if wanted.pin.is_some() {
        // It was opened with pins.
        let _ = decapsulator.persist();
    }
    Ok(())
}

fn builder(wanted: &Decapsulate) -> Builder {
    let builder = Decapsulator::builder().gue(wanted.gue);
    let builder = wanted.address.iter().copied().fold(builder, Builder::tunnel_end);
    let builder = wanted.vip.iter().copied().fold(builder, Builder::service);
    let builder = wanted.balancer.iter().copied().fold(builder, Builder::balancers);
    match &wanted.pin {
        Some(directory) => builder.pin(directory),
        None => builder,
    }
}

/// What was counted, as a table with an empty line behind it.
fn shown(stats: &Stats) -> String {
    let row =
        |what: String, packets: u64, bytes: u64| vec![what, packets.to_string(), bytes.to_string()];
    let passed = stats.counters.iter();
    let passed =
        passed.map(|(counter, tally)| row(counter.name().to_owned(), tally.packets, tally.bytes));
    let dropped = stats.drops.iter();
    let dropped = dropped
        .map(|(reason, tally)| row(format!("dropped: {reason}"), tally.packets, tally.bytes));
    table(&["what", "packets", "bytes"], passed.chain(dropped)) + "\n"
}

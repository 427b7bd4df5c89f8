//! The command line.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    config::{Mac, model::Protocol},
    decapsulate::Decapsulate,
    server_id,
};

/// An L4 load balancer for the front of a service, from one file.
///
/// Exit status: 0 done, 1 refused or failed, 2 the command line is wrong.
#[derive(Debug, Parser)]
#[command(name = "flowgate-lb", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Balances, until it is told to end; what it did goes on without it
    Run {
        /// The file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Says what is wrong with a file, and touches nothing
    Check {
        /// The file
        file: PathBuf,
    },
    /// Prints what may be written in a file, as Markdown
    Reference,
    /// On a backend: takes what balancers send out of its tunnels, until it is told to end
    Decapsulate(Decapsulate),
    /// On a backend, or on a client of one's own: TCP's headers name the backend, until it is told to end
    ServerId(server_id::Named),
    /// How the running balancer is
    Status(Client),
    /// Its services
    Services(Client),
    /// Its backends, and what their checks say
    Backends {
        /// Those of one service alone
        service: Option<String>,
        #[command(flatten)]
        client: Client,
    },
    /// Keeps new flows from a backend
    Drain(Named),
    /// Gives new flows to a backend again
    Undrain(Named),
    /// Adds a backend to a service
    Add(Add),
    /// Takes a backend from a service, and its flows with it
    Remove(Named),
    /// What was counted
    Stats {
        /// Once a second, with rates
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        client: Client,
    },
    /// What is remembered of flows, and which tables are changing
    Flows(Client),
    /// Where a flow goes, and why
    Explain {
        /// The client, as ADDRESS:PORT
        #[arg(value_name = "CLIENT", value_parser = end)]
        from: SocketAddr,
        /// The service, as ADDRESS:PORT
        #[arg(value_parser = end)]
        service: SocketAddr,
        /// Its protocol
        #[arg(value_enum, default_value_t = Transport::Tcp)]
        protocol: Transport,
        /// The connection id of its packets, if it is of QUIC, in hexadecimal digits
        #[arg(long, value_name = "HEX")]
        quic_connection_id: Option<String>,
        /// The server id in its packets' option of TCP, if they have one
        #[arg(long, value_name = "ID")]
        server_id: Option<u32>,
        #[command(flatten)]
        client: Client,
    },
    /// Runs the loaded program on packets: verdict, backend and the packet as it goes on
    ///
    /// It does with them what it does with any: they are counted, and what it would remember is remembered.
    Simulate {
        /// pcap, pcapng, or text with a frame in hexadecimal digits on each line
        file: PathBuf,
        /// Writes the packets as they go on, as pcapng
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
        #[command(flatten)]
        client: Client,
    },
    /// Writes packets as they go on or are dropped, one of so many, as pcapng
    Sample(Sample),
    /// Has the file read anew, which undoes what operators changed
    Reload(Client),
    /// Shows all of it in namespaces of its own, as root: exit status 1 if requests failed
    Demo(Demo),
    /// A server of the demo's
    #[command(hide = true)]
    DemoBackend {
        /// What it answers
        name: String,
        /// Where it listens
        port: u16,
    },
}

/// One end of a flow.
fn end(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "write address and port, as 203.0.113.7:40000 or [2001:db8::7]:40000")
}

/// Which balancer, and how it answers.
#[derive(Debug, Args)]
pub(crate) struct Client {
    /// The balancer's directory, as its file says
    #[arg(long, value_name = "DIRECTORY", default_value = "/run/flowgate-lb")]
    pub(crate) directory: PathBuf,
    /// How answers are printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// A backend of a service.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The service
    pub(crate) service: String,
    /// The backend's address
    pub(crate) backend: IpAddr,
    #[command(flatten)]
    pub(crate) client: Client,
}

/// A new backend.
#[derive(Debug, Args)]
pub(crate) struct Add {
    #[command(flatten)]
    pub(crate) named: Named,
    /// The port on which it listens, for snat forwarding, if it isn't the service's
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Its share of new flows
    #[arg(long, default_value_t = 1)]
    pub(crate) weight: u16,
    /// Its Ethernet address, if it is in the balancer's segment
    #[arg(long)]
    pub(crate) mac: Option<Mac>,
    /// The largest IP packet that the path to it carries
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u16>,
    /// Its server id, for a service with `quic` or `tcp_option`
    #[arg(long, value_name = "ID")]
    pub(crate) server_id: Option<u16>,
}

/// Which packets are sampled, and where they go.
#[derive(Debug, Args)]
pub(crate) struct Sample {
    /// Where they are written; a file that is there is replaced
    #[arg(short, long, value_name = "FILE")]
    pub(crate) write: PathBuf,
    /// One packet of so many, at random
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) every: u32,
    /// Ends after so many packets; otherwise when it is interrupted
    #[arg(long, value_name = "PACKETS")]
    pub(crate) count: Option<u64>,
    /// Bytes that are kept of a packet, from its Ethernet header on
    #[arg(long, default_value_t = 256, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=2048))]
    pub(crate) snaplen: u32,
    /// Those of one service alone
    #[arg(long)]
    pub(crate) service: Option<String>,
    #[command(flatten)]
    pub(crate) client: Client,
}

/// The demo.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How many requests each step lasts for, at least
    #[arg(long, default_value_t = 2000)]
    pub(crate) requests: usize,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For the eye
    Table,
    /// The answer as JSON, on one line
    Json,
}

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Arguments;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    /// Those that begin a line of the operators' guide.
    #[test]
    fn the_commands_of_the_guide_are_understood() {
        let guide = include_str!("../../../docs/load-balancer-operators.md");
        let lines = guide.lines().filter(|line| line.starts_with("flowgate-lb "));
        let commands: Vec<&str> =
            lines.map(|line| line.split(['#', '&']).next().unwrap_or_default().trim()).collect();
        assert!(commands.len() > 10, "{commands:?}");
        for command in commands {
            let parsed = Arguments::try_parse_from(command.split_whitespace());
            assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
        }
    }
}

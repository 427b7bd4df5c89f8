//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Asks what Kubernetes manifests allow, without a cluster.
///
/// Probes are JSON lines: {"from":"ns/pod","to":"ns/pod","port":80,"proto":"TCP"}. An end may also be
/// ip:ADDRESS or node:NAME, a port a number or a name that the destination declares. proto is TCP
/// (default), UDP, SCTP, ICMP or ICMPv6; ICMP has an optional type and code instead of a port. family
/// is 4 or 6, and without it all families that both ends have must allow.
///
/// Exit status: 0 done, 1 the backends disagree, 2 bad input (nothing on stdout), 3 the kernel backend
/// can't be used here (nothing on stdout).
#[derive(Debug, Parser)]
#[command(name = "flowgate-simulate", version)]
pub(crate) struct Arguments {
    /// Files and directories with Namespaces, Nodes, Pods and NetworkPolicies, YAML or JSON
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub(crate) manifests: Vec<PathBuf>,
    /// Probes as JSON lines; without it every pod to every other, on every declared port
    #[arg(long, value_name = "FILE")]
    pub(crate) probes: Option<PathBuf>,
    /// Who is asked
    #[arg(long, value_enum, default_value_t = Backend::Host)]
    pub(crate) backend: Backend,
    /// How the answers are printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// The pipeline in user space; needs no privileges
    Host,
    /// The same, compared with the programs in the kernel; needs root
    Kernel,
}

/// How the answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For the eye
    Table,
    /// One JSON object a line
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Arguments;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}

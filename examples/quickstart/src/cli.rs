//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Enforces Kubernetes NetworkPolicies on real traffic between network namespaces, and compares what
/// the sockets see with what was predicted.
///
/// Everything happens in namespaces of its own: no interface of this machine is touched, and nothing
/// stays behind. The kernel backend needs root; the host backend predicts, and needs nothing.
///
/// Exit status: 0 all as predicted, 1 a mismatch, 2 bad input (nothing on stdout), 3 the kernel backend
/// can't be used here.
#[derive(Debug, Parser)]
#[command(name = "quickstart", version)]
pub(crate) struct Arguments {
    /// Files and directories with Namespaces, Pods and NetworkPolicies; without it a built-in example
    #[arg(long, num_args = 1.., value_name = "PATH")]
    pub(crate) manifests: Vec<PathBuf>,
    /// Who decides about the traffic
    #[arg(long, value_enum, default_value_t = Backend::Kernel)]
    pub(crate) backend: Backend,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Who decides about the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// eBPF programs, about the packets of real sockets
    Kernel,
    /// The same code in user space: predicts, without any traffic
    Host,
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For the eye
    Table,
    /// One JSON object a line, a summary last
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

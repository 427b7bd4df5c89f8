//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use flowgate_policy::options::{EndpointScope, Options};

/// Asks what Kubernetes manifests allow, without a cluster.
///
/// Probes are JSON lines: {"from":"ns/pod","to":"ns/pod","port":80,"proto":"TCP"}. An end may also be an
/// address (ip:ADDRESS) or node:NAME, a port a number or a name that the destination declares. proto is TCP
/// (default), UDP, SCTP, ICMP or ICMPv6; ICMP has an optional type and code instead of a port. family
/// is 4 or 6, and without it all families that both ends have must allow.
///
/// Exit status: 0 done, 1 the backends disagree, 2 bad input (nothing on stdout), 3 the kernel backend
/// can't be used here (nothing on stdout).
#[derive(Debug, Parser)]
#[command(
    name = "flowgate-simulate",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Files and directories with Namespaces, Nodes, Pods and NetworkPolicies, YAML or JSON
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub(crate) manifests: Vec<PathBuf>,
    /// Probes as JSON lines; without it every pod to every other, on every declared port
    #[arg(long, value_name = "FILE")]
    pub(crate) probes: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Who is asked
    #[arg(long, value_enum, default_value_t = Backend::Host)]
    pub(crate) backend: Backend,
    /// How the answers are printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// What else may be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Why a flow is allowed or denied: the rules that match it, tier by tier, and where they are
    ///
    /// Exit status: 0 answered, 2 bad input (nothing on stdout).
    Explain(Explain),
    /// What two sets of manifests decide differently, exactly
    ///
    /// Exit status: 0 nothing, 1 something, 2 bad input (nothing on stdout).
    Diff(Diff),
    /// Which recorded flows would be judged differently
    ///
    /// Exit status: 0 none, 1 some, 2 bad input (nothing on stdout).
    Replay(Replay),
}

/// `explain`.
#[derive(Debug, Args)]
#[command(
    override_usage = "flowgate-simulate explain [OPTIONS] <FROM> <TO> <PORT/PROTO> --manifests <PATH>..."
)]
pub(crate) struct Explain {
    /// Who opens the flow and to whom (ns/pod, ip:ADDRESS or node:NAME), and PORT/PROTO, as in 8080/TCP or
    /// http/TCP; ICMP and ICMPv6 alone, or with a type, as in 8/ICMP
    #[arg(num_args = 0..=3, value_name = "FROM TO PORT/PROTO")]
    flow: Vec<String>,
    /// Files and directories with Namespaces, Nodes, Pods and policies, YAML or JSON
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    manifests: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Answer for a plan that keeps established connections which it denies
    #[arg(long)]
    pub(crate) keep_established: bool,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

impl Explain {
    /// Where the manifests are, and from, to and service of the flow; `None`: there is no flow.
    ///
    /// `--manifests` takes everything up to the next option: a flow that stands behind is its end.
    pub(crate) fn parts(&self) -> Option<(&[PathBuf], [String; 3])> {
        if !self.flow.is_empty() {
            let flow = self.flow.clone().try_into().ok()?;
            return Some((&self.manifests, flow));
        }
        let (manifests, flow) = self.manifests.split_last_chunk::<3>()?;
        let flow = flow.each_ref().map(|word| word.to_string_lossy().into_owned());
        (!manifests.is_empty()).then_some((manifests, flow))
    }
}

/// `diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// Manifests as they are
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub(crate) before: Vec<PathBuf>,
    /// Manifests as they would be
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub(crate) after: Vec<PathBuf>,
    /// Manifests that belong to both
    #[arg(long, num_args = 1.., value_name = "PATH")]
    pub(crate) manifests: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// `replay`.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// Files and directories with Namespaces, Nodes, Pods and policies, YAML or JSON
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub(crate) manifests: Vec<PathBuf>,
    /// Entries of the flow log as JSON lines
    #[arg(long, value_name = "FILE")]
    pub(crate) flows: PathBuf,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Answer for a plan that keeps established connections which it denies
    #[arg(long)]
    pub(crate) keep_established: bool,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Whose plan is asked.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Answer as this node's agent decides, about the endpoints on it; it is `host`. Without it all pods are
    /// endpoints, and every node is a `remote-node`
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
}

impl Place {
    /// How its plan is compiled.
    pub(crate) fn options(&self) -> Options {
        match &self.node {
            None => Options::default(),
            Some(node) => Options {
                local_node: Some(node.as_str().into()),
                endpoints: EndpointScope::LocalNode,
                ..Options::default()
            },
        }
    }
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

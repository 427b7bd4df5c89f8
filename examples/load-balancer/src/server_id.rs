//! Has the sockets of a control group name servers in TCP's headers, until it is told to end.
//!
//! Not here: how, and whom that reaches ([`flowgate_datapath::server_id`]).
//!
//! It prints what it counted when it ends, and on SIGUSR1. Nothing is left of it then. Tested by `tests/netns_server_id.rs`.

use std::path::PathBuf;

use clap::Args;
use flowgate_datapath::{
    TableError,
    server_id::{Counter, Kinds, ServerId, ServerIdError},
};
use thiserror::Error;

use crate::{
    table::table,
    until_told::{UntoldError, until_told},
};

/// Whose sockets say what.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// A control group's directory (cgroup v2): its sockets, and those of groups below it
    #[arg(long, value_name = "DIRECTORY")]
    cgroup: PathBuf,
    /// Who listens there is this backend: its `server_id` in the balancers' file
    #[arg(long, value_name = "ID", required_unless_present = "client")]
    id: Option<u32>,
    /// Who connects from there repeats the id that its server announces
    #[arg(long)]
    client: bool,
    /// The kind of the option that clients write: `tcp_option.kind` of the balancers' file
    #[arg(long, value_name = "KIND", default_value_t = Kinds::default().repeated)]
    kind: u8,
    /// The kind of the option that servers write
    #[arg(long, value_name = "KIND", default_value_t = Kinds::default().announced)]
    announced_kind: u8,
}

/// Why it doesn't begin, or ends.
#[non_exhaustive]
#[derive(Debug, Error)]
pub(crate) enum NameError {
    #[error(transparent)]
    Attach(#[from] ServerIdError),
    #[error(transparent)]
    Ended(#[from] UntoldError),
}

/// Names servers, until it is told to end.
pub(crate) fn run(wanted: &Named) -> Result<(), NameError> {
    let kinds = Kinds { announced: wanted.announced_kind, repeated: wanted.kind };
    let builder = ServerId::builder().kinds(kinds);
    let builder = wanted.id.map_or(builder, |id| builder.server(id));
    let builder = if wanted.client { builder.client() } else { builder };
    let named = builder.attach(&wanted.cgroup)?;
    let begun = format!("names servers in {}\n", wanted.cgroup.display());
    Ok(until_told(&begun, || shown(&named))?)
}

/// What was counted, as a table with an empty line behind it.
fn shown(named: &ServerId) -> Result<String, TableError> {
    let row =
        |counter: &Counter| Ok(vec![counter.name().to_owned(), named.count(*counter)?.to_string()]);
    let rows = Counter::ALL.iter().map(row).collect::<Result<Vec<_>, TableError>>()?;
    Ok(table(&["what", "count"], rows) + "\n")
}

//! An nftables ruleset as a node would have it: conntrack, a set of pods, deny by default.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::{Command, Stdio},
};

/// Pods in the set, the client among them.
const PODS: usize = 1000;

/// Loads the ruleset into this thread's network namespace; `None`: there is no `nft`.
pub(crate) fn load(client: &str) -> io::Result<Option<()>> {
    let child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut input = child.stdin.take().expect("piped");
    input.write_all(ruleset(client).as_bytes())?;
    drop(input);
    match child.wait()?.success() {
        true => Ok(Some(())),
        false => Err(io::Error::other("nft refuses the ruleset")),
    }
}

fn ruleset(client: &str) -> String {
    let mut elements = client.to_owned();
    for number in 1..PODS {
        // Writing to a String never fails.
        let _ = write!(elements, ", 198.19.{}.{}", number / 250, number % 250 + 1);
    }
    format!(
        "table ip pods {{
  set clients {{ type ipv4_addr; elements = {{ {elements} }} }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    ip saddr @clients ip daddr 198.18.0.2 meta l4proto {{ tcp, udp }} accept
  }}
}}
"
    )
}

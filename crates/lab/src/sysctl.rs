//! The kernel settings of a namespace. `/proc/sys/net` shows those of the thread that opens it.

use std::{fs, path::Path};

use crate::LabError;

/// Addresses are usable at once, nothing is learned from routers, every source may answer, and a
/// connection that a policy cut doesn't keep its namespace for minutes after its process is gone.
const EVERYWHERE: [(&str, &str); 10] = [
    ("ipv4/tcp_orphan_retries", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
];

/// What makes a router of it.
const ON_A_NODE: [(&str, &str); 3] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
];

/// Addresses of the loopback interface are nobody's business in the segment.
const SILENT: [(&str, &str); 2] =
    [("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")];

/// Sets up the calling thread's namespace, for a node or a pod.
pub(crate) fn set_everywhere() -> Result<(), LabError> {
    EVERYWHERE.iter().try_for_each(set)
}

/// Makes a router of the calling thread's namespace.
pub(crate) fn set_on_a_node() -> Result<(), LabError> {
    ON_A_NODE.iter().try_for_each(set)
}

/// Has the calling thread's namespace answer on a link for that link's addresses alone.
pub(crate) fn be_silent() -> Result<(), LabError> {
    SILENT.iter().try_for_each(set)
}

fn set(&(name, value): &(&str, &'static str)) -> Result<(), LabError> {
    let path = format!("/proc/sys/net/{name}");
    // A kernel without IPv6 still makes a lab, of IPv4 alone.
    if name.starts_with("ipv6/") && !Path::new("/proc/sys/net/ipv6").exists() {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| LabError::Sysctl { path, value, source })
}

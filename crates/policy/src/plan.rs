//! The plan: what a set of policies compiles to, before anything is installed.
//!
//! Numbers in a plan are the plan's own (a peer is an index into [`Plan::peers`]). Installing maps
//! them to the numbers that the running tables use; see [`crate::install`].

use std::{collections::BTreeSet, sync::Arc};

use flowgate_abi::policy::Decision;
use flowgate_identity::NumericIdentity;
use ipnet::IpNet;

use crate::{inventory::WorkloadRef, model::PolicyRef};

/// A compiled set of policies.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Every workload that has an address of its own, with its two policies.
    pub endpoints: Vec<PlannedEndpoint>,
    /// The peers: distinct combinations of labels, named ports and CIDR memberships.
    pub peers: Vec<PlannedPeer>,
    /// Longest prefix -> peer; `0.0.0.0/0` and `::/0` are always there. Sorted, no prefix twice.
    pub ipcache: Vec<(IpNet, u32)>,
    /// The number of peer classes. Class 0 is never used: it is what an empty cell reads as.
    pub peer_classes: u32,
    /// The number of port classes. Class 0 is "no rule names this port".
    pub port_classes: u32,
    /// Port class by `abi::policy::PortTable` and port (host byte order), ICMP type, or protocol.
    pub port_class: [Box<[u16]>; 4],
    /// `row[endpoint_policy * peer_classes + peer_class]`. Endpoint policy 0 is "not ready" and
    /// all its rows are row 0.
    pub row: Vec<u16>,
    /// `decision[row * port_classes + port_class]`, an index into `decisions`. Row 0 denies all.
    pub decision: Vec<u16>,
    /// The distinct decisions. Number 0 is [`Decision::UNREACHABLE`]: no packet of a complete plan
    /// reads it, and it denies.
    pub decisions: Vec<Decision>,
    /// What a decision's cookie stands for: the policies that decided, sorted.
    pub cookies: Vec<Arc<BTreeSet<PolicyRef>>>,
}

/// An endpoint of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedEndpoint {
    /// The workload.
    pub workload: WorkloadRef,
    /// Its peer.
    pub peer: u32,
    /// Its policy for what it opens: a row group, not 0.
    pub egress: u32,
    /// Its policy for what is opened to it: a row group, not 0.
    pub ingress: u32,
}

/// A peer of a plan.
#[derive(Clone, Debug)]
pub struct PlannedPeer {
    /// What makes it one and the same peer from plan to plan: equal keys are the same peer.
    pub key: Arc<str>,
    /// Its numeric identity, for events.
    pub identity: NumericIdentity,
    /// Its class in this plan, not 0.
    pub class: u16,
}

//! The plan: what a set of policies compiles to, before anything is installed.
//!
//! The verdict of a new flow at one of its ends is five loads:
//! `ep = endpoint policy of the end and direction`, `pc = peers[other end's peer].class`,
//! `q = port_class[table][port]`, `r = row[ep * peer_classes + pc]`,
//! `d = decision[r * step + q]`; the answer is `decisions[d]`. In a narrow plan it is a load more: the
//! port class has the column `columns[ep][q]` in the rows of that policy. A scattered one is narrow too, and
//! `d` is found as [`Scattered`] says. [`Plan::decide`] walks them.
//!
//! Numbers in a plan are the plan's own (a peer is an index into [`Plan::peers`]). Installing maps
//! them to the numbers that the running tables use.
//!
//! Invariant: the same inventory, policies and options, in whatever order, give the same plan.

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr, sync::Arc};

use flowgate_abi::policy::{Decision, Scattered};
use flowgate_identity::NumericIdentity;
use flowgate_pipeline::policy::scattered_in;
use ipnet::IpNet;

use crate::{
    inventory::WorkloadRef, model::PolicyRef, options::EndpointScope, outcome::SideVerdict,
    peer_key::PeerKey,
};

/// A compiled set of policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Every workload that has an address of its own, and every node that a policy selects, with their
    /// two policies; sorted. Which of them there are the options say.
    pub endpoints: Vec<PlannedEndpoint>,
    /// The peers: distinct combinations of labels, named ports and CIDR memberships; sorted by key.
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
    /// `decision[row * step + column]`, an index into `decisions`. Row 0 denies all, and is as wide as the
    /// widest. Rows with more columns than a step have several numbers, of which the first counts. In a
    /// scattered plan: records and areas, as [`Scattered`] has them.
    pub decision: Vec<u16>,
    /// The cells of `decision` from a row to that of the next number.
    pub step: u32,
    /// By endpoint policy: where in `decision` its rows are. Empty if the plan isn't scattered.
    pub scattered: Vec<Scattered>,
    /// By endpoint policy: the column of each port class in its rows, that of class 0 being 0. Empty if the
    /// plan isn't narrow: then the column is the class, and a step as wide as all of them.
    pub columns: Vec<Arc<[u16]>>,
    /// The distinct decisions. Number 0 is [`Decision::UNREACHABLE`]: no packet of a complete plan
    /// reads it, and it denies.
    pub decisions: Vec<Decision>,
    /// What a decision's cookie stands for. Number 0 is nobody.
    pub cookies: Vec<Arc<Cookie>>,
    /// The networks that each policy names, sorted, for the account of what costs most.
    pub networks: Vec<(PolicyRef, Vec<IpNet>)>,
    /// The node for which it was made: that of workloads whose node isn't known.
    pub local_node: Option<Arc<str>>,
    /// Which workloads are among its endpoints.
    pub scope: EndpointScope,
    /// Established connections that it denies live on, as [`crate::options::Options`] says.
    pub keep_established: bool,
}

impl Plan {
    /// The rows of each endpoint policy have columns of their own.
    pub(crate) const fn is_narrow(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Rows lie in one another's gaps.
    pub(crate) const fn is_scattered(&self) -> bool {
        !self.scattered.is_empty()
    }

    /// What makes a row one and the same: its number, and in a scattered plan whose it is.
    pub(crate) const fn whose(&self, group: u32, row: u16) -> (u32, u16) {
        if self.is_scattered() { (group, row) } else { (0, row) }
    }

    /// How many endpoint policies there are, the reserved one included.
    pub(crate) fn groups(&self) -> usize {
        self.row.len() / self.peer_classes as usize
    }

    /// The cells that an endpoint policy takes at least in the running tables: an odd number if its columns
    /// are among them ([`flowgate_abi::policy::EndpointPolicy::NARROW`]).
    pub(crate) const fn line(&self) -> usize {
        match self.is_narrow() {
            true => (self.peer_classes as usize + self.tail()) | 1,
            false => self.peer_classes as usize,
        }
    }

    /// The cells at the end of an endpoint policy's line that aren't rows.
    pub(crate) const fn tail(&self) -> usize {
        match (self.is_narrow(), self.is_scattered()) {
            (false, _) => 0,
            (true, false) => self.port_classes as usize,
            (true, true) => self.port_classes as usize + Scattered::CELLS as usize,
        }
    }

    /// What the end of an endpoint policy's line is: columns, and where its rows are.
    pub(crate) fn end_of_line(&self, group: usize) -> Vec<u16> {
        let columns = self.columns.get(group).map_or(&[][..], |columns| columns);
        let told = self.scattered.get(group).map(|told| told.cells());
        columns.iter().copied().chain(told.into_iter().flatten()).collect()
    }

    /// How many columns the rows of an endpoint policy have.
    pub(crate) fn width(&self, group: u32) -> usize {
        let columns = self.columns.get(group as usize);
        let last = columns.map(|columns| columns.iter().max().map_or(0, |last| usize::from(*last)));
        last.map_or(self.port_classes as usize, |last| last + 1)
    }

    /// What a row of an endpoint policy decides about each of its columns.
    pub(crate) fn cells(&self, group: u32, row: u16) -> Cow<'_, [u16]> {
        if !self.is_scattered() {
            let begin = usize::from(row) * self.step as usize;
            return Cow::Borrowed(&self.decision[begin..][..self.width(group)]);
        }
        let columns = (0..=u16::MAX).take(self.width(group));
        columns.map(|column| self.decided_in(group, row, column).unwrap_or_default()).collect()
    }

    /// The number of what a row of an endpoint policy decides about a port class.
    pub(crate) fn decided_about(&self, group: u32, row: u16, port_class: u16) -> Option<u16> {
        self.decided_in(group, row, self.column(group, port_class))
    }

    fn decided_in(&self, group: u32, row: u16, column: u16) -> Option<u16> {
        let (row, column) = (u32::from(row), u32::from(column));
        let cell = |at: u32| self.decision.get(at as usize).copied();
        match self.scattered.get(group as usize) {
            None => cell(row * self.step + column),
            Some(told) => {
                let number = scattered_in(*told, (row, column), |at| cell(at).map(u32::from))?;
                u16::try_from(number).ok()
            }
        }
    }

    /// The column of a port class in the rows of an endpoint policy.
    pub(crate) fn column(&self, group: u32, port_class: u16) -> u16 {
        match self.columns.get(group as usize) {
            Some(columns) => columns[usize::from(port_class)],
            None => port_class,
        }
    }
}

/// Who decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cookie {
    /// The policies that decided, or that isolate the endpoint if nothing else did.
    pub policies: BTreeSet<PolicyRef>,
    /// What staged policies would decide instead, if anything else.
    pub staged: Option<SideVerdict>,
    /// The values for the log that the policies name.
    pub log: BTreeSet<Arc<str>>,
}

/// An endpoint of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedEndpoint {
    /// The workload, or the node.
    pub workload: WorkloadRef,
    /// Its addresses, in the workload's order. The first of each family is the endpoint's own; the
    /// ipcache knows the others too.
    pub addresses: Vec<IpAddr>,
    /// The node that it runs on, if the inventory says so; of a node itself.
    pub node: Option<Arc<str>>,
    /// The peer of its first IPv4 address.
    pub peer4: Option<u32>,
    /// The peer of its first IPv6 address.
    pub peer6: Option<u32>,
    /// Its policy for what it opens: a row group, not 0.
    pub egress: u32,
    /// Its policy for what is opened to it: a row group, not 0.
    pub ingress: u32,
}

/// A peer of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPeer {
    /// What makes it one and the same peer from plan to plan: equal keys are the same peer.
    pub key: PeerKey,
    /// Its numeric identity, for events.
    pub identity: NumericIdentity,
    /// Its class in this plan, not 0.
    pub class: u16,
}

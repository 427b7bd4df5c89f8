//! What a plan says about a flow, by walking the plan's own tables.
//!
//! Not here: packets, connections and what is installed; a flow is judged as if it were new.
//! Tested against [`crate::oracle`].

use std::net::IpAddr;

use flowgate_abi::policy::{Decision, PortTable};
use ipnet::IpNet;

use crate::{
    outcome::{Flow, FlowProtocol, Outcome, Side, SideVerdict},
    plan::{Cookie, Plan, PlannedEndpoint},
};

impl Plan {
    /// What becomes of a new flow.
    ///
    /// Every address of an endpoint counts as the endpoint's, not the first of a family alone. A
    /// flow of a workload to itself is judged like any other, although it never leaves the workload.
    pub fn decide(&self, flow: &Flow) -> Outcome {
        let source = self.endpoint(flow.source);
        let destination = self.endpoint(flow.destination);
        let leaving = source.filter(|source| !self.stays_on_node(source, destination));
        Outcome {
            egress: self.side(leaving.map(|e| e.egress), flow.destination, flow.protocol),
            ingress: self.side(destination.map(|e| e.ingress), flow.source, flow.protocol),
        }
    }

    /// It comes from a node and goes to that node itself, or to a workload on it: not a matter of the
    /// node's egress policy.
    pub(crate) fn stays_on_node(
        &self,
        source: &PlannedEndpoint,
        destination: Option<&PlannedEndpoint>,
    ) -> bool {
        let (Some(node), Some(to)) = (source.workload.as_node(), destination) else { return false };
        to.node.as_ref().or(self.local_node.as_ref()) == Some(node)
    }

    /// The peer behind an address: an index into [`Plan::peers`].
    #[must_use]
    pub fn peer_of(&self, address: IpAddr) -> Option<u32> {
        let mut probe = IpNet::from(address);
        loop {
            let after = self.ipcache.partition_point(|(network, _)| *network <= probe);
            let (network, peer) = self.ipcache.get(after.checked_sub(1)?)?;
            if network.contains(&address) {
                return Some(*peer);
            }
            // Networks sort before those inside them: one around the address is around this one, too.
            probe = common(network.addr(), address)?;
        }
    }

    /// The endpoint that has an address.
    #[must_use]
    pub fn endpoint(&self, address: IpAddr) -> Option<&PlannedEndpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.addresses.contains(&address))
    }

    /// The decision that a new flow of `protocol` between an end with `endpoint_policy` and `peer`
    /// meets. What is out of the tables is unreachable, and so denied.
    #[must_use]
    pub fn decision(&self, endpoint_policy: u32, peer: u32, protocol: FlowProtocol) -> Decision {
        self.look_up(endpoint_policy, peer, protocol).unwrap_or(Decision::UNREACHABLE)
    }

    fn look_up(&self, group: u32, peer: u32, protocol: FlowProtocol) -> Option<Decision> {
        let (table, port) = port_index(protocol);
        let peer_class = self.peers.get(peer as usize)?.class;
        let port_class = *self.port_class[table as usize].get(usize::from(port))?;
        let row = cell(&self.row, group, self.peer_classes, peer_class)?;
        let decision = self.decided_about(group, row, port_class)?;
        self.decisions.get(usize::from(decision)).copied()
    }

    fn side(&self, group: Option<u32>, other: IpAddr, protocol: FlowProtocol) -> Side {
        let Some(group) = group else { return Side::NotAnEndpoint };
        let peer = self.peer_of(other).unwrap_or(u32::MAX);
        self.named(self.decision(group, peer, protocol))
    }

    /// What a decision means, by its number: the one that an event carries, if the event is of this
    /// plan's generation. A number that the plan doesn't have is a denial that nobody made.
    #[must_use]
    pub fn decided(&self, number: u32) -> Side {
        let decision = self.decisions.get(number as usize).copied();
        self.named(decision.unwrap_or(Decision::UNREACHABLE))
    }

    fn named(&self, decision: Decision) -> Side {
        let verdict = match (decision.allows(), decision.is_default()) {
            (true, _) if decision.is_audited() => SideVerdict::Audit,
            (true, false) => SideVerdict::Allow,
            (true, true) => SideVerdict::DefaultAllow,
            (false, false) => SideVerdict::Deny,
            (false, true) => SideVerdict::DefaultDeny,
        };
        let Cookie { policies, staged, log } = self
            .cookies
            .get(decision.cookie as usize)
            .map_or_else(Cookie::default, |c| (**c).clone());
        Side::Verdict { verdict, policies, staged, response: decision.response(), log }
    }
}

/// The longest network around both; `None`: they are of two families.
fn common(one: IpAddr, other: IpAddr) -> Option<IpNet> {
    let length = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => return None,
    };
    IpNet::new(other, u8::try_from(length).ok()?).ok().map(|network| network.trunc())
}

fn cell(cells: &[u16], line: u32, width: u32, column: u16) -> Option<u16> {
    cells.get(line as usize * width as usize + usize::from(column)).copied()
}

/// The port table of a protocol, and the index into it.
#[must_use]
pub fn port_index(protocol: FlowProtocol) -> (PortTable, u16) {
    match protocol {
        FlowProtocol::Tcp(port) => (PortTable::Tcp, port),
        FlowProtocol::Udp(port) => (PortTable::Udp, port),
        FlowProtocol::Sctp(port) => (PortTable::Sctp, port),
        FlowProtocol::Icmp { icmp_type } => (PortTable::Other, PortTable::icmp4(icmp_type)),
        FlowProtocol::Icmp6 { icmp_type } => (PortTable::Other, PortTable::icmp6(icmp_type)),
        FlowProtocol::Other(number) => (PortTable::Other, u16::from(number)),
    }
}

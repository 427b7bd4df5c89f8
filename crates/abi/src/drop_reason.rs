//! Why a packet was dropped.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal;)+) => {
        /// Why a packet was dropped. Append-only; numbers below 224 are Cilium's, so that Hubble's
        /// tools print the right name; numbers from 224 on are flowgate's own.
        #[repr(u8)]
        #[non_exhaustive]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl DropReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// From its number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// In a few words, lower case, without a full stop.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }

        impl core::fmt::Display for DropReason {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.text())
            }
        }
    };
}

drop_reasons! {
    /// The source Ethernet address isn't the endpoint's own; also that inside of an ARP packet.
    ///
    /// Operator: the endpoint spoofs, or its Ethernet address was changed without telling the
    /// datapath.
    InvalidSourceMac = 130, "invalid source Ethernet address";
    /// The source address isn't the endpoint's own.
    ///
    /// Operator: the endpoint spoofs, or its address was changed without telling the datapath.
    InvalidSourceAddress = 132, "invalid source address";
    /// The endpoint is isolated and no rule allows the flow.
    ///
    /// Operator: if it should pass, add a rule; `simulate` names the policies that isolate.
    PolicyDefaultDeny = 133, "policy denied (no rule allows it)";
    /// The packet is shorter than its headers say, or a header contradicts itself.
    ///
    /// Operator: look at the sender; a healthy stack doesn't send these.
    MalformedPacket = 134, "malformed packet";
    /// A TCP or ICMP packet that can't belong to its flow, e.g. an ICMP reply that nobody asked for.
    ///
    /// Full NAT: a segment of a connection that isn't known, or an answer to a port that nobody has.
    ///
    /// Operator: expected in small numbers, e.g. after the flow's entry has expired.
    InvalidForFlow = 135, "invalid for its flow";
    /// An EtherType that isn't IPv4, IPv6 or ARP.
    ///
    /// Operator: nothing, unless the endpoint really needs that protocol.
    UnsupportedEtherType = 139, "unsupported EtherType";
    /// The flow table has no room: both buckets hold established flows alone.
    ///
    /// Operator: raise the flow capacity; live flows are never evicted for new ones.
    FlowTableFull = 155, "flow table full";
    /// IPv6 extension headers that may not pass: more than eight, one that must come first and
    /// doesn't, two fragment headers, or a routing header that sends the packet on to elsewhere
    /// (RFC 5095).
    ///
    /// Operator: look at the sender; a healthy stack doesn't send these.
    ExtensionHeader = 156, "invalid IPv6 extension header";
    /// A fragment for a service that doesn't take fragments: only the first one has the ports.
    ///
    /// Operator: let path MTU discovery work, or have the service track fragments.
    UnsupportedFragment = 157, "fragments are not balanced";
    /// The service has no backend that takes the flow.
    ///
    /// Operator: add a backend, or find out why all of them are drained or quarantined.
    NoBackend = 158, "no backend";
    /// A protocol that isn't balanced, sent to an address of a service.
    ///
    /// Operator: nothing, unless the service really needs that protocol.
    UnsupportedProtocol = 159, "protocol is not balanced";
    /// No port of a source is free for one flow more: both of the groups in which the flow may have one are
    /// full, or there is no source of its family.
    ///
    /// Operator: give full NAT more source addresses or more ports; look for clients that open connections
    /// without end. Live flows never lose their port.
    NoNatPort = 167, "no port left for NAT";
    /// A packet of a service with full NAT that can't be translated: there are options in front of the ports, its own
    /// or those that an ICMP error quotes, or it quotes too little.
    ///
    /// Operator: expected in small numbers.
    UnsupportedByNat = 168, "not translated by NAT";
    /// The ipcache knows no peer for the address, not even world. A defect of the tables.
    ///
    /// Operator: report it; apply the plan again.
    UnknownIdentity = 171, "no identity for the address";
    /// A later fragment of a datagram of which no first fragment has passed, or too long ago.
    ///
    /// Operator: expected where fragments are reordered or the first one was dropped; otherwise let
    /// path MTU discovery work.
    FragmentNotFound = 175, "first fragment not found";
    /// A router advertisement or redirect from an endpoint (CVE-2020-10749).
    ///
    /// Operator: the endpoint is misconfigured or hostile.
    ForbiddenIcmp6 = 176, "forbidden ICMPv6 message";
    /// The service doesn't take this client: its source ranges leave it out.
    ///
    /// Operator: if the client should be served, change the service's source ranges.
    SourceRefused = 177, "client refused by the service's source ranges";
    /// A rule denies the flow.
    ///
    /// Operator: the event names the policy.
    PolicyDeny = 181, "policy denied (by a rule)";
    /// The packet may not be sent on once more: its TTL or hop limit is used up.
    ///
    /// Operator: look for a routing loop between the balancer and a backend.
    HopsExceeded = 196, "hops exceeded";
    /// An ICMP error would have been due, and too many were sent already.
    ///
    /// Operator: somebody sends many packets that are too big; raise the limit if they are wanted.
    RateLimited = 198, "ICMP error rate limited";
    /// The endpoint has no policy yet, so nothing may pass.
    ///
    /// Operator: apply a plan that contains the endpoint.
    EndpointNotReady = 203, "endpoint not ready";
    /// The program runs on an interface that is no endpoint of this datapath.
    ///
    /// Operator: detach it; usually a leftover of a process that was killed.
    UnknownEndpoint = 206, "interface is no endpoint";
    /// The tables of the running generation aren't complete. A defect of the tables.
    ///
    /// Operator: report it; apply the plan again.
    IncompleteGeneration = 224, "incomplete policy generation";
    /// An ICMP error that quotes no tracked flow.
    ///
    /// Operator: expected in small numbers, e.g. after the flow's entry has expired.
    UnrelatedIcmpError = 225, "ICMP error without a flow";
    /// The flow was allowed once; a later generation, or an address that changed hands, ended it.
    ///
    /// Operator: expected after a policy was tightened, until both ends give up; the event of the
    /// first packet that was cut names the policy.
    Revoked = 226, "flow was revoked";
    /// The fragment table has no room for one datagram more.
    ///
    /// Operator: somebody sends many fragments; raise the capacity if they are wanted.
    FragmentTableFull = 227, "fragment table full";
    /// A first fragment that ends inside of the transport header, or a later one that would be put
    /// over it (RFC 1858, RFC 3128, RFC 7112).
    ///
    /// Operator: somebody tries to get around a filter; a healthy stack doesn't send these.
    FragmentOverlap = 228, "tiny or overlapping fragment";
    /// A source or destination that can't be on a wire: loopback, unspecified, IPv4-mapped IPv6, or
    /// a multicast or reserved source (RFC 1122, RFC 4291, RFC 6890).
    ///
    /// Operator: look at the sender, and at the routes of this node.
    Martian = 229, "martian address";
    /// A packet larger than any link can have delivered: the kernel has put several together (GRO), or
    /// not yet taken one apart (GSO), and such a one can't be tunnelled.
    ///
    /// Operator: attach natively, or switch off GRO on the interface and TSO on the other end of a veth.
    SuperPacket = 230, "super-packet";
    /// The driver left no room in front of the frame for the outer headers.
    ///
    /// Operator: attach in generic mode, or use a driver with XDP headroom.
    NoHeadroom = 231, "no headroom for outer headers";
    /// A packet too big for the path to its backend whose sender may not be told: an ICMP error, or a later
    /// fragment (RFC 1122, section 3.2.2).
    ///
    /// Operator: raise the MTU of the path to the backends, so that it carries the largest packet of the
    /// clients' paths with outer headers.
    TooBig = 232, "too big for the path, and not to be answered";
    /// A packet in a tunnel to this backend that no balancer has sent: its outer source isn't in their
    /// networks.
    ///
    /// Operator: somebody tries to inject packets; or tell the decapsulator of the balancer's network.
    UnknownBalancer = 240, "outer source is no balancer";
    /// A packet in a tunnel to this backend whose inner destination isn't an address of a service.
    ///
    /// Operator: tell the decapsulator of the service's address, or the balancer of its backends.
    UnknownService = 241, "inner destination is no service";
    /// Its outer header says that it met congestion, and its sender can't be told: the inner one is not of an
    /// ECN-capable transport (RFC 6040, section 4.2).
    ///
    /// Operator: a router on the way marks what it should have dropped.
    CongestionMark = 242, "congestion met, and not ECN-capable";
    /// A packet in a tunnel to this backend whose outer header has options, or is a fragment's: balancers
    /// send neither.
    ///
    /// Operator: somebody tries to inject packets; or a router fragments what forbids it.
    UnsupportedOuter = 243, "outer header with options, or of a fragment";
    /// The kernel couldn't take the outer headers off.
    ///
    /// Operator: the host is out of memory for network buffers.
    NotDecapsulated = 244, "outer headers couldn't be taken off";
}

impl DropReason {
    /// Policy decided so; not the packet's or the tables' fault.
    #[must_use]
    pub const fn is_policy(self) -> bool {
        matches!(self, Self::PolicyDefaultDeny | Self::PolicyDeny)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_up_and_come_back() {
        assert!(DropReason::ALL.windows(2).all(|w| (w[0] as u8) < (w[1] as u8)));
        for &reason in DropReason::ALL {
            assert_eq!(DropReason::from_number(reason as u8), Some(reason));
            assert!(!reason.text().ends_with('.'));
        }
        assert_eq!(DropReason::from_number(0), None);
    }
}

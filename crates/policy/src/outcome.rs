//! Flows, and what becomes of them: what the oracle, a plan and the simulation all answer.
//!
//! Not here: how an answer is found ([`crate::oracle`], [`crate::explain`]).

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use crate::model::{PolicyRef, Protocol, Response};

/// The first packet of a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Who opens it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// Protocol and destination port, or type.
    pub protocol: FlowProtocol,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} {}", self.source, self.destination, self.protocol)
    }
}

/// A protocol with what a policy may look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowProtocol {
    /// TCP to a port.
    Tcp(u16),
    /// UDP to a port.
    Udp(u16),
    /// SCTP to a port.
    Sctp(u16),
    /// ICMP of a type.
    Icmp {
        /// The type.
        icmp_type: u8,
    },
    /// ICMPv6 of a type.
    Icmp6 {
        /// The type.
        icmp_type: u8,
    },
    /// Any other protocol, by its IANA number.
    Other(u8),
}

impl FlowProtocol {
    /// A protocol that has ports, to `port`.
    #[must_use]
    pub const fn to_port(protocol: Protocol, port: u16) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp(port),
            Protocol::Udp => Self::Udp(port),
            Protocol::Sctp => Self::Sctp(port),
        }
    }

    /// The IANA protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp(_) => Protocol::Tcp.number(),
            Self::Udp(_) => Protocol::Udp.number(),
            Self::Sctp(_) => Protocol::Sctp.number(),
            Self::Icmp { .. } => 1,
            Self::Icmp6 { .. } => 58,
            Self::Other(number) => number,
        }
    }

    /// The protocol and the destination port, if it has ports.
    #[must_use]
    pub const fn port(self) -> Option<(Protocol, u16)> {
        match self {
            Self::Tcp(port) => Some((Protocol::Tcp, port)),
            Self::Udp(port) => Some((Protocol::Udp, port)),
            Self::Sctp(port) => Some((Protocol::Sctp, port)),
            Self::Icmp { .. } | Self::Icmp6 { .. } | Self::Other(_) => None,
        }
    }
}

impl fmt::Display for FlowProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "TCP/{port}"),
            Self::Udp(port) => write!(f, "UDP/{port}"),
            Self::Sctp(port) => write!(f, "SCTP/{port}"),
            Self::Icmp { icmp_type } => write!(f, "ICMP type {icmp_type}"),
            Self::Icmp6 { icmp_type } => write!(f, "ICMPv6 type {icmp_type}"),
            Self::Other(number) => write!(f, "protocol {number}"),
        }
    }
}

/// What becomes of a new flow, at both of its ends.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// At the source, if it is an endpoint.
    pub egress: Side,
    /// At the destination, if it is an endpoint.
    pub ingress: Side,
}

impl Outcome {
    /// Neither end denies it.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.egress.allowed() && self.ingress.allowed()
    }

    /// What the sender is told: by the source if that denies, else by the destination.
    #[must_use]
    pub fn response(&self) -> Response {
        if self.egress.allowed() { self.ingress.response() } else { self.egress.response() }
    }
}

/// What one end says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// No endpoint is there, so nobody judges.
    NotAnEndpoint,
    /// An endpoint is there.
    Verdict {
        /// What it says.
        verdict: SideVerdict,
        /// The policies that say so: those whose rules decide, or, for a default denial, those that
        /// isolate the endpoint.
        policies: BTreeSet<PolicyRef>,
        /// What it would say if policies in [`Mode::Staged`](crate::model::Mode::Staged) were
        /// enforced; `None` if that is the same, but for the policies.
        staged: Option<SideVerdict>,
        /// What the sender is told if it denies: what the policies say that deny without those on
        /// trial. Silence if it doesn't.
        response: Response,
        /// The values for the log that the policies name.
        log: BTreeSet<Arc<str>>,
    },
}

impl Side {
    /// It doesn't deny.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.verdict().is_none_or(SideVerdict::allowed)
    }

    /// What it says, if an endpoint is there.
    #[must_use]
    pub fn verdict(&self) -> Option<SideVerdict> {
        match self {
            Self::NotAnEndpoint => None,
            Self::Verdict { verdict, .. } => Some(*verdict),
        }
    }

    /// What the sender is told if it denies.
    #[must_use]
    pub fn response(&self) -> Response {
        match self {
            Self::NotAnEndpoint => Response::Silence,
            Self::Verdict { response, .. } => *response,
        }
    }

    /// What it would say if staged policies were enforced, if that is anything else.
    #[must_use]
    pub fn staged(&self) -> Option<SideVerdict> {
        match self {
            Self::NotAnEndpoint => None,
            Self::Verdict { staged, .. } => *staged,
        }
    }
}

/// The verdict of one end. Displays as `allow`, `deny`, `default-allow`, `default-deny` or `audit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SideVerdict {
    /// A rule allows it, or it is a node that reaches its own workload.
    Allow,
    /// A rule denies it.
    Deny,
    /// No policy isolates the endpoint.
    DefaultAllow,
    /// The endpoint is isolated, and no rule names the flow.
    DefaultDeny,
    /// Policies in [`Mode::Audit`](crate::model::Mode::Audit) would deny it, and it passes.
    Audit,
}

impl SideVerdict {
    /// It lets the flow pass.
    #[must_use]
    pub const fn allowed(self) -> bool {
        matches!(self, Self::Allow | Self::DefaultAllow | Self::Audit)
    }
}

impl fmt::Display for SideVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::DefaultAllow => "default-allow",
            Self::DefaultDeny => "default-deny",
            Self::Audit => "audit",
        })
    }
}

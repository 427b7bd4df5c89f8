//! Packets to measure with: TCP between the pods of [`crate::manifests::NODE`] and the world.

use flowgate_conformance::frames::Frame;
use flowgate_policy::outcome::{Flow, FlowProtocol};

/// The IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The pod that sends.
    Client,
    /// The pod that it may reach.
    Server,
    /// The pod that nobody may reach.
    Closed,
    /// Outside of every pod.
    World,
}

impl End {
    /// The pod's name; of the world, none.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Closed => "closed",
            Self::World => "",
        }
    }

    /// Its address.
    #[must_use]
    pub const fn address(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Client, Version::V4) => "198.18.0.1",
            (Self::Server, Version::V4) => "198.18.0.2",
            (Self::Closed, Version::V4) => "198.18.0.3",
            (Self::World, Version::V4) => "203.0.113.7",
            (Self::Client, Version::V6) => "2001:db8::1",
            (Self::Server, Version::V6) => "2001:db8::2",
            (Self::Closed, Version::V6) => "2001:db8::3",
            (Self::World, Version::V6) => "2001:db8:f::7",
        }
    }
}

/// The SYN of a connection to port 80, with as many hops left as there can be.
///
/// # Panics
/// Never: the addresses are right.
#[must_use]
pub fn syn(version: Version, source: End, destination: End, source_port: u16) -> Frame {
    let address = |end: End| end.address(version).parse().expect("an address");
    let flow = Flow {
        source: address(source),
        destination: address(destination),
        protocol: FlowProtocol::Tcp(80),
    };
    Frame { hops: 255, ..Frame::opening(flow, source_port) }
}

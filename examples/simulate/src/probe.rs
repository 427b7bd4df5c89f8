//! A probe as it is written: one JSON object a line.
//!
//! Not here: who the ends are ([`crate::end`]), and whether the fields fit each other
//! ([`crate::question`]). Invariant: an unknown field or value is refused.

use std::{fmt, num::NonZeroU16};

use serde::{Deserialize, Serialize};

/// One line of a probes file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Probe {
    /// `ns/pod`, `ip:ADDRESS` or `node:NAME`.
    pub(crate) from: String,
    /// The same.
    pub(crate) to: String,
    /// Required by protocols that have ports, and refused by the others.
    pub(crate) port: Option<Port>,
    #[serde(default)]
    pub(crate) proto: Proto,
    /// Of ICMP and ICMPv6 alone; an echo request where it is missing.
    #[serde(rename = "type")]
    pub(crate) icmp_type: Option<u8>,
    /// Of ICMP and ICMPv6 alone. No policy looks at it.
    pub(crate) code: Option<u8>,
    /// All that both ends have, where it is missing.
    pub(crate) family: Option<Family>,
}

/// A port, by number or by the name that the destination declares.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "a port must be a number from 1 to 65535, or a name")]
pub(crate) enum Port {
    Number(NonZeroU16),
    Name(String),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// What a probe may ask about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum Proto {
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
    #[serde(rename = "SCTP")]
    Sctp,
    #[serde(rename = "ICMP")]
    Icmp,
    #[serde(rename = "ICMPv6")]
    Icmp6,
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
            Self::Icmp6 => "ICMPv6",
        })
    }
}

/// An address family; displays as `IPv4` or `IPv6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "u8")]
pub(crate) enum Family {
    #[serde(rename = "4")]
    V4,
    #[serde(rename = "6")]
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];
}

impl TryFrom<u8> for Family {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            4 => Ok(Self::V4),
            6 => Ok(Self::V6),
            _ => Err("family must be 4 or 6"),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

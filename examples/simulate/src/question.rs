//! A probe as it is asked: resolved to flows, one for each address family.
//!
//! Invariant: a question has at least one flow.

use std::{
    collections::BTreeSet,
    fs, io,
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use flowgate_policy::{
    inventory::Inventory,
    model::Protocol,
    outcome::{Flow, FlowProtocol},
};
use thiserror::Error;

use crate::{
    end::{End, EndError, Ends},
    probe::{Family, Port, Probe, Proto},
};

/// RFC 792.
const ECHO_REQUEST: u8 = 8;
/// RFC 4443, section 4.1.
const ECHO_REQUEST_V6: u8 = 128;

/// A probe, and the flows that answer it.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) probe: Probe,
    /// One for each family, IPv4 first; at least one.
    pub(crate) flows: Vec<(Family, Flow)>,
    /// It never leaves the pod, so no policy holds for it.
    pub(crate) stays_inside: bool,
}

/// Why a file of probes was refused: where, and why.
#[derive(Debug, Error)]
pub(crate) enum ProbeError {
    #[error("{}: can't be read: {error}", .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}:{line}: {mistake}", .path.display())]
    Mistake { path: PathBuf, line: usize, mistake: Mistake },
}

/// Why a probe was refused.
#[derive(Debug, Error)]
pub(crate) enum Mistake {
    #[error("{}", of_line(.0))]
    Json(serde_json::Error),
    #[error("a probe must be a JSON object")]
    NotAnObject,
    #[error("{field}: {error}")]
    End { field: &'static str, error: EndError },
    #[error("{proto} needs a port")]
    PortRequired { proto: Proto },
    #[error("{proto} has no port")]
    PortForbidden { proto: Proto },
    #[error("{proto} has neither type nor code")]
    TypeForbidden { proto: Proto },
    #[error("{to:?} declares no {proto} port that is called {name:?}")]
    UnknownPort { to: String, proto: Proto, name: String },
    #[error("{proto} is a protocol of {family} alone")]
    FamilyOfProtocol { proto: Proto, family: Family },
    #[error("{from:?} and {to:?} have no {} address in common", listed(.families))]
    NoFamily { from: String, to: String, families: Vec<Family> },
}

/// The message without the line, which is 1 always; the column says more.
fn of_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(message) => format!("{message} (column {})", error.column()),
        None => text,
    }
}

fn listed(families: &[Family]) -> String {
    families.iter().map(Family::to_string).collect::<Vec<_>>().join(" or ")
}

/// Reads a file of probes. Blank lines are passed over.
pub(crate) fn read(path: &Path, ends: &Ends<'_>) -> Result<Vec<Question>, ProbeError> {
    let bytes =
        fs::read(path).map_err(|error| ProbeError::Unreadable { path: path.into(), error })?;
    let lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty());
    let questions = lines.map(|(index, line)| {
        let refused = |mistake| ProbeError::Mistake { path: path.into(), line: index + 1, mistake };
        parse(line).and_then(|probe| Question::new(probe, ends)).map_err(refused)
    });
    questions.collect()
}

fn parse(line: &[u8]) -> Result<Probe, Mistake> {
    // serde takes an array for a structure, too.
    if line.starts_with(b"[") {
        return Err(Mistake::NotAnObject);
    }
    serde_json::from_slice(line).map_err(Mistake::Json)
}

/// From every pod to every other, on every port and protocol that any container declares; and
/// the pairs that no family connects.
pub(crate) fn every_pair(
    inventory: &Inventory,
    ends: &Ends<'_>,
) -> (Vec<Question>, Vec<(String, String)>) {
    let declared = inventory.workloads.iter().flat_map(|pod| &pod.ports);
    let ports: BTreeSet<(Protocol, u16)> = declared.map(|p| (p.protocol, p.port)).collect();
    let mut questions = Vec::new();
    let mut apart = Vec::new();
    for from in &inventory.workloads {
        for to in inventory.workloads.iter().filter(|to| to.id != from.id) {
            let (from, to) = (from.id.to_string(), to.id.to_string());
            let probes = ports.iter().map(|&(protocol, port)| probe(&from, &to, protocol, port));
            let asked: Result<Vec<_>, _> = probes.map(|p| Question::new(p, ends)).collect();
            match asked {
                Ok(asked) => questions.extend(asked),
                Err(_) => apart.push((from, to)),
            }
        }
    }
    (questions, apart)
}

fn probe(from: &str, to: &str, protocol: Protocol, port: u16) -> Probe {
    Probe {
        from: from.to_owned(),
        to: to.to_owned(),
        port: NonZeroU16::new(port).map(Port::Number),
        proto: match protocol {
            Protocol::Tcp => Proto::Tcp,
            Protocol::Udp => Proto::Udp,
            Protocol::Sctp => Proto::Sctp,
        },
        icmp_type: None,
        code: None,
        family: None,
    }
}

impl Question {
    /// Resolves a probe.
    pub(crate) fn new(probe: Probe, ends: &Ends<'_>) -> Result<Self, Mistake> {
        let from = end(ends, "from", &probe.from)?;
        let to = end(ends, "to", &probe.to)?;
        let protocol = flow_protocol(&probe, &to)?;
        let families = families(&probe)?;
        let flow = |&family: &Family| {
            let (source, destination) = (from.address(family)?, to.address(family)?);
            Some((family, Flow { source, destination, protocol }))
        };
        let flows: Vec<_> = families.iter().filter_map(flow).collect();
        if flows.is_empty() {
            return Err(Mistake::NoFamily { from: probe.from, to: probe.to, families });
        }
        Ok(Self { probe, flows, stays_inside: from.is_same_pod(&to) })
    }
}

fn end<'a>(ends: &Ends<'a>, field: &'static str, text: &str) -> Result<End<'a>, Mistake> {
    ends.find(text).map_err(|error| Mistake::End { field, error })
}

/// The families in question.
fn families(probe: &Probe) -> Result<Vec<Family>, Mistake> {
    let proto = probe.proto;
    let own = match proto {
        Proto::Tcp | Proto::Udp | Proto::Sctp => None,
        Proto::Icmp => Some(Family::V4),
        Proto::Icmp6 => Some(Family::V6),
    };
    match (own, probe.family) {
        (None, None) => Ok(Family::ALL.to_vec()),
        (Some(family), wanted) if wanted.is_some_and(|wanted| wanted != family) => {
            Err(Mistake::FamilyOfProtocol { proto, family })
        }
        (Some(family), _) | (None, Some(family)) => Ok(vec![family]),
    }
}

fn flow_protocol(probe: &Probe, to: &End<'_>) -> Result<FlowProtocol, Mistake> {
    match probe.proto {
        Proto::Tcp => Ok(FlowProtocol::Tcp(port(probe, to, Protocol::Tcp)?)),
        Proto::Udp => Ok(FlowProtocol::Udp(port(probe, to, Protocol::Udp)?)),
        Proto::Sctp => Ok(FlowProtocol::Sctp(port(probe, to, Protocol::Sctp)?)),
        Proto::Icmp => Ok(FlowProtocol::Icmp { icmp_type: icmp_type(probe, ECHO_REQUEST)? }),
        Proto::Icmp6 => Ok(FlowProtocol::Icmp6 { icmp_type: icmp_type(probe, ECHO_REQUEST_V6)? }),
    }
}

fn port(probe: &Probe, to: &End<'_>, protocol: Protocol) -> Result<u16, Mistake> {
    let proto = probe.proto;
    if probe.icmp_type.is_some() || probe.code.is_some() {
        return Err(Mistake::TypeForbidden { proto });
    }
    match &probe.port {
        None => Err(Mistake::PortRequired { proto }),
        Some(Port::Number(number)) => Ok(number.get()),
        Some(Port::Name(name)) => to.named_port(name, protocol).ok_or_else(|| {
            Mistake::UnknownPort { to: probe.to.clone(), proto, name: name.clone() }
        }),
    }
}

fn icmp_type(probe: &Probe, default: u8) -> Result<u8, Mistake> {
    match &probe.port {
        Some(_) => Err(Mistake::PortForbidden { proto: probe.proto }),
        None => Ok(probe.icmp_type.unwrap_or(default)),
    }
}

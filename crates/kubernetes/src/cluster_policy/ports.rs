//! Ports of the policies of the cluster, as v1alpha2 writes them and as v1alpha1 did.

use flowgate_policy::model::{Peer, Port, PortMatch, Ports, Protocol};

use super::{Api, only, some};
use crate::{
    NameRule, Reason,
    field::{Field, Read},
    network_policy::protocol,
};

/// The ports in the list `field` of a rule with `peers`.
pub(super) fn read(field: &Field<'_>, api: &Api, peers: &[Peer]) -> Read<Ports> {
    let mut ports = Vec::new();
    for field in some(field, api.limit)? {
        ports.extend(port(&field, api, peers)?);
    }
    Ok(Ports::of(ports))
}

fn port(field: &Field<'_>, api: &Api, peers: &[Peer]) -> Read<Vec<Port>> {
    let (key, field) = only(field, api.port_fields)?;
    Ok(match key {
        "tcp" => vec![Port { protocol: Protocol::Tcp, port: destination(&field)? }],
        "udp" => vec![Port { protocol: Protocol::Udp, port: destination(&field)? }],
        "sctp" => vec![Port { protocol: Protocol::Sctp, port: destination(&field)? }],
        "portNumber" => {
            field.deny_unknown(&["protocol", "port"])?;
            let number = field.require("port")?.port_number()?;
            vec![Port { protocol: protocol(&field)?, port: PortMatch::Range(number, number) }]
        }
        "portRange" => {
            field.deny_unknown(&["protocol", "start", "end"])?;
            vec![Port { protocol: protocol(&field)?, port: range(&field)? }]
        }
        _ => named(&field, peers)?,
    })
}

fn destination(protocol: &Field<'_>) -> Read<PortMatch> {
    protocol.deny_unknown(&["destinationPort"])?;
    let (key, field) = only(&protocol.require("destinationPort")?, &["number", "range"])?;
    if key == "number" {
        return field.port_number().map(|number| PortMatch::Range(number, number));
    }
    field.deny_unknown(&["start", "end"])?;
    range(&field)
}

/// The fields `start` and `end`.
fn range(field: &Field<'_>) -> Read<PortMatch> {
    let start = field.require("start")?.port_number()?;
    let last = field.require("end")?;
    let end = last.port_number()?;
    match start < end {
        true => Ok(PortMatch::Range(start, end)),
        false => Err(last.error(Reason::EndNotAboveStart { start, end })),
    }
}

/// What the destination declares under a name, whatever its protocol.
fn named(field: &Field<'_>, peers: &[Peer]) -> Read<Vec<Port>> {
    let name = field.name(NameRule::PortName)?;
    if !peers.iter().all(|peer| matches!(peer, Peer::Workloads(_))) {
        return Err(field.error(Reason::NamedPortOfAddresses));
    }
    let port = |protocol| Port { protocol, port: PortMatch::Named(name.clone()) };
    Ok([Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(port).into())
}

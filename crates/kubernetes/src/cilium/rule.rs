//! Rules of Cilium's policies: who, on which ports.

use std::{net::IpAddr, sync::Arc};

use flowgate_policy::model::{
    Entity, Peer, Peers, Port, PortMatch, Ports, Protocol, Rule, RuleAction, Service,
};
use ipnet::IpNet;

use super::{Scope, check, labels};
use crate::{
    NameRule, Reason, Warning,
    entity::entity,
    field::{Field, Read},
    network_policy::{ip_block, network, port_range},
};

/// What the peers of a direction are called.
pub(super) struct PeerFields {
    endpoints: &'static str,
    cidrs: &'static str,
    cidr_set: &'static str,
    entities: &'static str,
    nodes: &'static str,
    refused: &'static [&'static str],
}

pub(super) const FROM: PeerFields = PeerFields {
    endpoints: "fromEndpoints",
    cidrs: "fromCIDR",
    cidr_set: "fromCIDRSet",
    entities: "fromEntities",
    nodes: "fromNodes",
    refused: &["authentication", "fromGroups", "fromRequires"],
};

pub(super) const TO: PeerFields = PeerFields {
    endpoints: "toEndpoints",
    cidrs: "toCIDR",
    cidr_set: "toCIDRSet",
    entities: "toEntities",
    nodes: "toNodes",
    refused: &["authentication", "toFQDNs", "toGroups", "toRequires", "toServices"],
};

impl PeerFields {
    const fn all(&self) -> [&'static str; 5] {
        [self.endpoints, self.cidrs, self.cidr_set, self.entities, self.nodes]
    }
}

/// A rule, unless it names nothing and so allows nothing.
pub(super) fn read(
    field: &Field<'_>,
    fields: &PeerFields,
    action: RuleAction,
    scope: &Scope,
) -> Read<Option<Rule>> {
    let known = [&fields.all()[..], &["toPorts", "icmps"]].concat();
    check(field, &known, fields.refused)?;
    let (peers, ports) = (peers(field, fields, scope)?, services(field)?);
    if peers.is_none() && ports.is_none() {
        if action == RuleAction::Deny {
            return Err(field.error(Reason::EmptyDenial));
        }
        field.warn(Warning::EmptyRule { at: field.location() });
        return Ok(None);
    }
    Ok(Some(Rule {
        action,
        peers: peers.map_or(Peers::Any, Peers::OneOf),
        ports: ports.map_or(Ports::Any, Ports::OneOf),
    }))
}

/// What the one list of peers names that is there; Cilium takes no two of them.
fn peers(field: &Field<'_>, fields: &PeerFields, scope: &Scope) -> Read<Option<Vec<Peer>>> {
    let mut found: Option<(&'static str, Field<'_>)> = None;
    for second in fields.all() {
        let Some(list) = field.get(second)? else { continue };
        if let Some((first, _)) = found {
            return Err(field.error(Reason::Exclusive { first, second }));
        }
        found = Some((second, list));
    }
    let Some((name, list)) = found else { return Ok(None) };
    let peer = |item: &Field<'_>| match name {
        name if name == fields.endpoints => Ok(Peer::Workloads(labels::peers(item, scope)?)),
        name if name == fields.cidrs => cidr(item),
        name if name == fields.cidr_set => cidr_rule(item),
        name if name == fields.entities => entity(item).map(Peer::Entity),
        _ => Ok(Peer::Nodes(labels::nodes(item)?)),
    };
    let peers: Vec<Peer> = list.items()?.iter().map(peer).collect::<Read<_>>()?;
    if peers.iter().any(|peer| matches!(peer, Peer::Cidr { .. })) {
        list.warn(Warning::NetworksMatchCluster { at: list.location() });
    }
    Ok(Some(peers))
}

/// A network, or an address.
fn cidr(field: &Field<'_>) -> Read<Peer> {
    let cidr = match field.string()?.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => network(field)?,
    };
    Ok(outside(Peer::Cidr { cidr, except: Vec::new() }))
}

fn cidr_rule(field: &Field<'_>) -> Read<Peer> {
    check(field, &["cidr", "except"], &["cidrGroupRef", "cidrGroupSelector"])?;
    Ok(outside(ip_block(field)?))
}

/// All addresses of a family are, in Cilium, those outside of the cluster.
fn outside(peer: Peer) -> Peer {
    match peer {
        Peer::Cidr { cidr, ref except } if cidr.prefix_len() == 0 && except.is_empty() => {
            let world = if cidr.addr().is_ipv4() { Entity::WorldIpv4 } else { Entity::WorldIpv6 };
            Peer::Entity(world)
        }
        other => other,
    }
}

/// The ports, or the ICMP types: Cilium takes one of them.
fn services(field: &Field<'_>) -> Read<Option<Vec<Service>>> {
    let (ports, icmps) = (field.list("toPorts")?, field.list("icmps")?);
    match (ports.is_empty(), icmps.is_empty()) {
        (true, true) => Ok(None),
        (false, true) => flattened(&ports, port_rule).map(Some),
        (true, false) => flattened(&icmps, icmp_rule).map(Some),
        (false, false) => {
            let (first, second) = ("toPorts", "icmps");
            Err(field.error(Reason::Exclusive { first, second }))
        }
    }
}

fn flattened(
    fields: &[Field<'_>],
    read: impl Fn(&Field<'_>) -> Read<Vec<Service>>,
) -> Read<Vec<Service>> {
    let mut services = Vec::new();
    for field in fields {
        services.extend(read(field)?);
    }
    Ok(services)
}

fn port_rule(field: &Field<'_>) -> Read<Vec<Service>> {
    let refused = ["listener", "originatingTLS", "rules", "serverNames", "terminatingTLS"];
    check(field, &["ports"], &refused)?;
    flattened(&field.require("ports")?.some_items()?, port)
}

/// One port, of one protocol or of each.
fn port(field: &Field<'_>) -> Read<Vec<Service>> {
    field.deny_unknown(&["port", "endPort", "protocol"])?;
    let matched = port_match(field)?;
    let service = |protocol| Service::Port(Port { protocol, port: matched.clone() });
    Ok(protocols(field)?.into_iter().map(service).collect())
}

fn protocols(field: &Field<'_>) -> Read<Vec<Protocol>> {
    const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    match field.get("protocol")? {
        Some(field) if !field.string()?.is_empty() => {
            let place = field.choice(&["TCP", "UDP", "SCTP", "ANY"])?;
            Ok(ALL.get(place).map_or_else(|| ALL.into(), |protocol| vec![*protocol]))
        }
        _ => Ok(ALL.into()),
    }
}

/// A number as text, a name, or `0` for every port.
fn port_match(field: &Field<'_>) -> Read<PortMatch> {
    let port = field.require("port")?;
    let end = field.get("endPort")?;
    match (number(&port)?, end) {
        (Some(0), None) => Ok(PortMatch::All),
        (Some(number), None) => Ok(PortMatch::Range(number, number)),
        (None, None) => Ok(PortMatch::Named(Arc::clone(port.name(NameRule::PortName)?))),
        (Some(0) | None, Some(end)) => Err(end.error(Reason::EndPortWithoutNumber)),
        (Some(number), Some(end)) => port_range(number, &end),
    }
}

/// The number that a port's text is. Cilium reads a leading zero as octal, so it is refused as no name.
fn number(port: &Field<'_>) -> Read<Option<u16>> {
    let text = port.string()?;
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    if !decimal || (text.len() > 1 && text.starts_with('0')) {
        return Ok(None);
    }
    let Ok(value) = text.parse::<i64>() else { return Ok(None) };
    let out_of_range = |_| port.error(Reason::PortOutOfRange { value });
    u16::try_from(value).map(Some).map_err(out_of_range)
}

fn icmp_rule(field: &Field<'_>) -> Read<Vec<Service>> {
    field.deny_unknown(&["fields"])?;
    let fields = field.require("fields")?.some_items()?;
    fields.iter().map(icmp).collect()
}

fn icmp(field: &Field<'_>) -> Read<Service> {
    field.deny_unknown(&["family", "type"])?;
    let icmp_type = Some(field.require("type")?.byte()?);
    let family = field.get("family")?.map(|family| family.choice(&["IPv4", "IPv6"])).transpose()?;
    Ok(if family == Some(1) { Service::Icmp6(icmp_type) } else { Service::Icmp(icmp_type) })
}

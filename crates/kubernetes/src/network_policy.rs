//! `networking.k8s.io/v1` `NetworkPolicy` to the policy model.
//!
//! Every field is known or refused. What the API server fills in by default is filled in here.

use std::sync::Arc;

use flowgate_identity::Selector;
use flowgate_policy::model::{
    NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch, Ports,
    Protocol, Rule, WorkloadSelector,
};
use ipnet::IpNet;

use crate::{
    NameRule, Reason, Warning,
    field::{Field, Read},
    object::Metadata,
    selector::selector,
};

/// The fields of `meta/v1` `ObjectMeta`, old ones included.
pub(crate) const METADATA: [&str; 16] = [
    "annotations",
    "clusterName",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// What distinguishes the two directions of a policy.
struct Direction {
    field: &'static str,
    policy_type: &'static str,
    peers: &'static str,
}

const INGRESS: Direction = Direction { field: "ingress", policy_type: "Ingress", peers: "from" };
const EGRESS: Direction = Direction { field: "egress", policy_type: "Egress", peers: "to" };

pub(crate) fn read(object: &Field<'_>, metadata: &Metadata) -> Read<Policy> {
    object.deny_unknown(&["apiVersion", "kind", "metadata", "spec", "status"])?;
    object.require("metadata")?.deny_unknown(&METADATA)?;
    let spec = object.require("spec")?;
    spec.deny_unknown(&["podSelector", "policyTypes", "ingress", "egress"])?;
    let namespace = &metadata.namespace;
    let types = policy_types(&spec)?;
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: Arc::clone(namespace),
        name: Arc::clone(&metadata.name),
    };
    let subject = WorkloadSelector {
        namespaces: NamespaceSelector::Named(Arc::clone(namespace)),
        labels: optional_selector(&spec, "podSelector")?.unwrap_or_default(),
    };
    Ok(Policy {
        ingress: rules(&spec, &INGRESS, types.ingress, namespace)?,
        egress: rules(&spec, &EGRESS, types.egress, namespace)?,
        ..Policy::new(id, subject)
    })
}

struct PolicyTypes {
    ingress: bool,
    egress: bool,
}

fn policy_types(spec: &Field<'_>) -> Read<PolicyTypes> {
    let given = spec.list("policyTypes")?;
    if given.is_empty() {
        return default_policy_types(spec);
    }
    let mut types = PolicyTypes { ingress: false, egress: false };
    for field in given {
        match field.string()?.as_ref() {
            "Ingress" => types.ingress = true,
            "Egress" => types.egress = true,
            other => {
                let allowed = "Ingress and Egress";
                return Err(field.error(Reason::NotOneOf { value: other.into(), allowed }));
            }
        }
    }
    Ok(types)
}

/// What the API server writes into a policy without `policyTypes` (`SetDefaults_NetworkPolicy` in
/// `pkg/apis/networking/v1/defaults.go`): Egress only if there is an egress rule, so an empty list
/// doesn't isolate. Whoever writes that list probably means it to, hence the warning.
fn default_policy_types(spec: &Field<'_>) -> Read<PolicyTypes> {
    let Some(egress) = spec.get("egress")? else {
        return Ok(PolicyTypes { ingress: true, egress: false });
    };
    let has_rules = !egress.items()?.is_empty();
    if !has_rules {
        egress.warn(Warning::EmptyEgressWithoutType { at: egress.location() });
    }
    Ok(PolicyTypes { ingress: true, egress: has_rules })
}

fn rules(
    spec: &Field<'_>,
    direction: &Direction,
    isolates: bool,
    namespace: &Arc<str>,
) -> Read<Option<Vec<Rule>>> {
    let fields = spec.list(direction.field)?;
    let read = |field: &Field<'_>| rule(field, direction, namespace);
    let rules = fields.iter().map(read).collect::<Read<Vec<Rule>>>()?;
    if isolates {
        return Ok(Some(rules));
    }
    if !rules.is_empty() {
        let field = spec.require(direction.field)?;
        let policy_type = direction.policy_type;
        field.warn(Warning::RulesWithoutType { at: field.location(), policy_type });
    }
    Ok(None)
}

fn rule(field: &Field<'_>, direction: &Direction, namespace: &Arc<str>) -> Read<Rule> {
    field.deny_unknown(&[direction.peers, "ports"])?;
    let peers = field.list(direction.peers)?;
    let ports = field.list("ports")?;
    let peers = peers.iter().map(|field| peer(field, namespace)).collect::<Read<Vec<Peer>>>()?;
    let ports = ports.iter().map(port).collect::<Read<Vec<Port>>>()?;
    Ok(Rule::allow(
        if peers.is_empty() { Peers::Any } else { Peers::OneOf(peers) },
        if ports.is_empty() { Ports::Any } else { Ports::of(ports) },
    ))
}

pub(crate) fn optional_selector(owner: &Field<'_>, key: &str) -> Read<Option<Selector>> {
    owner.get(key)?.map(|field| selector(&field)).transpose()
}

fn peer(field: &Field<'_>, namespace: &Arc<str>) -> Read<Peer> {
    field.deny_unknown(&["ipBlock", "podSelector", "namespaceSelector"])?;
    let pods = optional_selector(field, "podSelector")?;
    let namespaces = optional_selector(field, "namespaceSelector")?;
    if let Some(block) = field.get("ipBlock")? {
        return match (pods, namespaces) {
            (None, None) => ip_block(&block),
            _ => Err(field.error(Reason::MixedPeer)),
        };
    }
    if pods.is_none() && namespaces.is_none() {
        return Err(field.error(Reason::EmptyPeer));
    }
    let own = || NamespaceSelector::Named(Arc::clone(namespace));
    Ok(Peer::Workloads(WorkloadSelector {
        namespaces: namespaces.map_or_else(own, NamespaceSelector::Matching),
        labels: pods.unwrap_or_default(),
    }))
}

/// The fields of an `ipBlock`.
pub(crate) const IP_BLOCK: [&str; 2] = ["cidr", "except"];

/// A network without its exceptions.
pub(crate) fn ip_block(field: &Field<'_>) -> Read<Peer> {
    field.deny_unknown(&IP_BLOCK)?;
    let cidr = network(&field.require("cidr")?)?;
    let mut except = Vec::new();
    for field in field.list("except")? {
        let network = network(&field)?;
        if network == cidr || !cidr.contains(&network) {
            return Err(field.error(Reason::ExceptOutside { except: network, cidr }));
        }
        except.push(network);
    }
    Ok(Peer::Cidr { cidr, except })
}

/// A network; host bits count as zero.
pub(crate) fn network(field: &Field<'_>) -> Read<IpNet> {
    let text = field.string()?;
    let parsed = text.parse::<IpNet>();
    let cidr =
        parsed.map_err(|_| field.error(Reason::InvalidCidr { value: text.as_ref().into() }))?;
    if cidr != cidr.trunc() {
        field.warn(Warning::HostBits { at: field.location(), cidr });
    }
    Ok(cidr.trunc())
}

fn port(field: &Field<'_>) -> Read<Port> {
    field.deny_unknown(&["protocol", "port", "endPort"])?;
    Ok(Port { protocol: protocol(field)?, port: port_match(field)? })
}

pub(crate) fn port_match(field: &Field<'_>) -> Read<PortMatch> {
    let port = field.get("port")?;
    let end = field.get("endPort")?;
    let number = port.as_ref().filter(|port| !port.is_string());
    match (&port, number, end) {
        (None, _, None) => Ok(PortMatch::All),
        (Some(port), None, None) => {
            Ok(PortMatch::Named(Arc::clone(port.name(NameRule::PortName)?)))
        }
        (_, Some(port), None) => port.port_number().map(|port| PortMatch::Range(port, port)),
        (_, Some(port), Some(end)) => port_range(port.port_number()?, &end),
        (_, None, Some(end)) => Err(end.error(Reason::EndPortWithoutNumber)),
    }
}

pub(crate) fn port_range(port: u16, end: &Field<'_>) -> Read<PortMatch> {
    let end_port = end.port_number()?;
    if end_port < port {
        return Err(end.error(Reason::EndPortBelowPort { port, end_port }));
    }
    Ok(PortMatch::Range(port, end_port))
}

/// The field `protocol` of a port, which is TCP where it is missing.
pub(crate) fn protocol(port: &Field<'_>) -> Read<Protocol> {
    let Some(field) = port.get("protocol")? else { return Ok(Protocol::Tcp) };
    match field.string()?.as_ref() {
        "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        other => Err(field.error(Reason::InvalidProtocol { value: other.into() })),
    }
}

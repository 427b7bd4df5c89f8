//! `policy.networking.k8s.io` to the policy model: ClusterNetworkPolicy, and the two kinds before it.
//!
//! Every field is known or refused, and the limits are those of the custom resource definitions. The
//! kinds differ in words and numbers alone, which [`Api`] holds as data.
//!
//! A BaselineAdminNetworkPolicy has no priority. No specification says how it stands beside the
//! baseline tier of ClusterNetworkPolicy, to which it gave way: here it comes behind all of that
//! tier, so that every policy of the newer kind has its say.

mod peers;
mod ports;

use std::sync::Arc;

use flowgate_policy::model::{Peers, Policy, PolicyKind, PolicyRef, Ports, Rule, RuleAction, Tier};

use crate::{
    Reason,
    field::{Field, Read},
    network_policy::METADATA,
    object::Metadata,
};

/// The API group of all of them.
pub(crate) const GROUP: &str = "policy.networking.k8s.io";

/// Behind every priority that a ClusterNetworkPolicy can have.
const BEHIND_ALL: u16 = 1001;

/// The longest name of a rule, in characters.
const NAME_LIMIT: usize = 100;

/// The most networks, or domain names, of one peer.
const SET_LIMIT: usize = 25;

/// What distinguishes the kinds.
#[derive(Debug)]
pub(crate) struct Api {
    kind: PolicyKind,
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    place: Place,
    /// The word for the action that allows.
    allow: &'static str,
    passes: bool,
    actions: &'static str,
    /// The most rules of a direction, peers of a rule and ports of a rule.
    limit: usize,
    ports: &'static str,
    port_fields: &'static [&'static str],
    egress_peers: &'static [&'static str],
    /// Of pods, the namespaces may be left out, which means all.
    any_namespace: bool,
}

/// Where the tier of a policy comes from.
#[derive(Debug)]
enum Place {
    TierAndPriority,
    AdminPriority,
    BehindBaseline,
}

const CLUSTER: Api = Api {
    kind: PolicyKind::ClusterNetworkPolicy,
    name: "ClusterNetworkPolicy",
    version: "policy.networking.k8s.io/v1alpha2",
    place: Place::TierAndPriority,
    allow: "Accept",
    passes: true,
    actions: "Accept, Deny and Pass",
    limit: 25,
    ports: "protocols",
    port_fields: &["tcp", "udp", "sctp", "destinationNamedPort"],
    egress_peers: &["namespaces", "pods", "nodes", "networks", "domainNames"],
    any_namespace: true,
};

const ADMIN: Api = Api {
    kind: PolicyKind::AdminNetworkPolicy,
    name: "AdminNetworkPolicy",
    version: "policy.networking.k8s.io/v1alpha1",
    place: Place::AdminPriority,
    allow: "Allow",
    passes: true,
    actions: "Allow, Deny and Pass",
    limit: 100,
    ports: "ports",
    port_fields: &["portNumber", "portRange", "namedPort"],
    egress_peers: &["namespaces", "pods", "nodes", "networks", "domainNames"],
    any_namespace: false,
};

const BASELINE: Api = Api {
    kind: PolicyKind::BaselineAdminNetworkPolicy,
    name: "BaselineAdminNetworkPolicy",
    place: Place::BehindBaseline,
    passes: false,
    actions: "Allow and Deny",
    egress_peers: &["namespaces", "pods", "nodes", "networks"],
    ..ADMIN
};

impl Api {
    pub(crate) const ALL: [&Self; 3] = [&CLUSTER, &ADMIN, &BASELINE];
}

/// What distinguishes the two directions of a policy.
struct Direction {
    field: &'static str,
    peers: &'static str,
}

const INGRESS: Direction = Direction { field: "ingress", peers: "from" };
const EGRESS: Direction = Direction { field: "egress", peers: "to" };

pub(crate) fn read(object: &Field<'_>, api: &Api, metadata: &Metadata) -> Read<Policy> {
    object.deny_unknown(&["apiVersion", "kind", "metadata", "spec", "status"])?;
    let given = object.require("metadata")?;
    given.deny_unknown(&METADATA)?;
    if matches!(api.place, Place::BehindBaseline) && metadata.name.as_ref() != "default" {
        let value = metadata.name.as_ref().into();
        let reason = Reason::NotTheOnly { value, expected: "default" };
        return Err(given.require("name")?.error(reason));
    }
    let spec = object.require("spec")?;
    let tier = tier(&spec, api)?;
    let subject = peers::subject(&spec.require("subject")?, api)?;
    let id = PolicyRef {
        kind: api.kind,
        namespace: Arc::clone(&metadata.namespace),
        name: Arc::clone(&metadata.name),
    };
    Ok(Policy {
        tier,
        ingress: rules(&spec, api, &INGRESS)?,
        egress: rules(&spec, api, &EGRESS)?,
        ..Policy::new(id, subject)
    })
}

/// Where the policy stands; with it, what the spec may have is known.
fn tier(spec: &Field<'_>, api: &Api) -> Read<Tier> {
    match api.place {
        Place::TierAndPriority => {
            spec.deny_unknown(&["tier", "priority", "subject", "ingress", "egress"])?;
            named_tier(spec)
        }
        Place::AdminPriority => {
            spec.deny_unknown(&["priority", "subject", "ingress", "egress"])?;
            Ok(Tier::Admin { priority: priority(spec)? })
        }
        Place::BehindBaseline => {
            spec.deny_unknown(&["subject", "ingress", "egress"])?;
            Ok(Tier::Baseline { priority: BEHIND_ALL })
        }
    }
}

fn named_tier(spec: &Field<'_>) -> Read<Tier> {
    let tier = spec.require("tier")?;
    match tier.string()?.as_ref() {
        "Admin" => Ok(Tier::Admin { priority: priority(spec)? }),
        "Baseline" => Ok(Tier::Baseline { priority: priority(spec)? }),
        other => {
            let allowed = "Admin and Baseline";
            Err(tier.error(Reason::NotOneOf { value: other.into(), allowed }))
        }
    }
}

fn priority(spec: &Field<'_>) -> Read<u16> {
    let field = spec.require("priority")?;
    let value = field.integer()?;
    let priority = u16::try_from(value).ok().filter(|&priority| priority < BEHIND_ALL);
    let last = i64::from(BEHIND_ALL - 1);
    priority.ok_or_else(|| field.error(Reason::NumberOutOfRange { value, first: 0, last }))
}

/// Without rules a policy says nothing about a direction, whether the list is missing or empty.
fn rules(spec: &Field<'_>, api: &Api, direction: &Direction) -> Read<Option<Vec<Rule>>> {
    let Some(list) = spec.get(direction.field)? else { return Ok(None) };
    let fields = at_most(&list, api.limit)?;
    let rules = fields.iter().map(|field| rule(field, api, direction));
    let rules = rules.collect::<Read<Vec<Rule>>>()?;
    Ok(Some(rules).filter(|rules| !rules.is_empty()))
}

fn rule(field: &Field<'_>, api: &Api, direction: &Direction) -> Read<Rule> {
    field.deny_unknown(&["name", "action", direction.peers, api.ports])?;
    check_name(field)?;
    let action = action(&field.require("action")?, api)?;
    let peers = peers::read(&field.require(direction.peers)?, api, direction, action)?;
    let ports = match field.get(api.ports)? {
        Some(list) => ports::read(&list, api, &peers)?,
        None => Ports::Any,
    };
    Ok(Rule { action, peers: Peers::OneOf(peers), ports })
}

/// The name of a rule is for people: it is checked and left out.
fn check_name(rule: &Field<'_>) -> Read<()> {
    let Some(name) = rule.get("name")? else { return Ok(()) };
    let length = name.string()?.chars().count();
    match length <= NAME_LIMIT {
        true => Ok(()),
        false => Err(name.error(Reason::TooLong { length, limit: NAME_LIMIT })),
    }
}

fn action(field: &Field<'_>, api: &Api) -> Read<RuleAction> {
    match field.string()?.as_ref() {
        allow if allow == api.allow => Ok(RuleAction::Allow),
        "Deny" => Ok(RuleAction::Deny),
        "Pass" if api.passes => Ok(RuleAction::Pass),
        other => Err(field.error(Reason::NotOneOf { value: other.into(), allowed: api.actions })),
    }
}

/// The items of a list that has at most `limit`.
fn at_most<'a>(list: &Field<'a>, limit: usize) -> Read<Vec<Field<'a>>> {
    let items = list.items()?;
    match items.len() {
        count if count > limit => Err(list.error(Reason::TooMany { count, limit })),
        _ => Ok(items),
    }
}

/// The items of a list that has at least one, and at most `limit`.
fn some<'a>(list: &Field<'a>, limit: usize) -> Read<Vec<Field<'a>>> {
    let items = at_most(list, limit)?;
    match items.is_empty() {
        true => Err(list.error(Reason::EmptyList)),
        false => Ok(items),
    }
}

/// The one field that a mapping has, of those that it may have.
fn only<'a>(field: &Field<'a>, known: &'static [&'static str]) -> Read<(&'static str, Field<'a>)> {
    field.deny_unknown(known)?;
    let mut found = Vec::new();
    for &key in known {
        found.extend(field.get(key)?.map(|value| (key, value)));
    }
    match <[_; 1]>::try_from(found) {
        Ok([one]) => Ok(one),
        Err(_) => Err(field.error(Reason::NotExactlyOne { allowed: known })),
    }
}

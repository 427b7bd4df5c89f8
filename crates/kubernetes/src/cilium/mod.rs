//! `cilium.io/v2` `CiliumNetworkPolicy` and `CiliumClusterwideNetworkPolicy` to the policy model:
//! what they say of addresses and ports (layers 3 and 4).
//!
//! The semantics are those of Cilium's source (`pkg/policy/api`, `pkg/k8s/apis/cilium.io/utils` and
//! `pkg/policy/rule.go`, 1.14 to 1.19), in points that its documentation leaves open:
//!
//! - A direction is in default denial if one of its two lists has a rule, be it one that denies,
//!   unless `enableDefaultDeny` says otherwise (`Rule.Sanitize`). An empty list says nothing.
//! - A missing list of peers means every peer, if ports are named; an empty one means no peer
//!   (`mergeEndpointSelectors`); `[{}]` means all pods in scope. A rule that names neither peers nor
//!   ports allows nothing, and only turns default denial on (`mergeIngress`, later `mergeL4Filter`).
//!   It is easily misread, and later versions may read it otherwise, so a [`Warning`] says so, and a
//!   denying rule like it is refused.
//! - A peer is in the policy's own namespace unless its selector speaks of
//!   `io.kubernetes.pod.namespace` or of a namespace's labels (`getEndpointSelector`).
//! - A network that contains all addresses is the entity `world`. Any other one differs: Cilium
//!   matches what is outside of the cluster alone, [`Peer::Cidr`] the addresses of pods and nodes
//!   too. A [`Warning`] says so.
//!
//! Each of `specs` becomes a policy of its own, called `name#1`, `name#2` and so on.
//!
//! Not here: names, services, groups, layer 7, authentication. Invariant: a field
//! that can't be honoured is an error. Tested by `tests/cilium.rs`.
//!
//! [`Peer::Cidr`]: flowgate_policy::model::Peer::Cidr

mod labels;
mod rule;

use std::sync::Arc;

use flowgate_policy::model::{
    Directions, NamespaceSelector, Policy, PolicyKind, PolicyRef, Rule, RuleAction, Subject,
};

use crate::{
    Reason, Warning,
    field::{Field, Read},
    network_policy::METADATA,
    object::Metadata,
};

/// The API version of the kinds.
pub(crate) const VERSION: &str = "cilium.io/v2";

/// Whose peers a policy speaks of where it names no namespace.
enum Scope {
    Namespace(Arc<str>),
    Cluster,
}

/// What distinguishes the two directions of a policy.
struct Direction {
    allow: &'static str,
    deny: &'static str,
    directions: Directions,
    peers: rule::PeerFields,
}

const INGRESS: Direction = Direction {
    allow: "ingress",
    deny: "ingressDeny",
    directions: Directions::INGRESS,
    peers: rule::FROM,
};
const EGRESS: Direction = Direction {
    allow: "egress",
    deny: "egressDeny",
    directions: Directions::EGRESS,
    peers: rule::TO,
};

/// Refuses a field that is neither `known` nor null; one of `refused` by saying so.
fn check(field: &Field<'_>, known: &[&str], refused: &[&str]) -> Read<()> {
    for name in refused {
        if let Some(unsupported) = field.get(name)? {
            return Err(unsupported.error(Reason::UnsupportedField));
        }
    }
    field.deny_unknown(&[known, refused].concat())
}

pub(crate) fn read(object: &Field<'_>, metadata: &Metadata, kind: PolicyKind) -> Read<Vec<Policy>> {
    object.deny_unknown(&["apiVersion", "kind", "metadata", "spec", "specs", "status"])?;
    let scope = scope(&object.require("metadata")?, metadata, kind)?;
    let namespace = match &scope {
        Scope::Namespace(namespace) => Arc::clone(namespace),
        Scope::Cluster => "".into(),
    };
    let policy = |(name, spec): (Arc<str>, Field<'_>)| {
        let id = PolicyRef { kind, namespace: Arc::clone(&namespace), name };
        policy(&spec, id, &scope)
    };
    specs(object, &metadata.name)?.into_iter().map(policy).collect()
}

/// An object of the cluster may name no namespace.
fn scope(field: &Field<'_>, metadata: &Metadata, kind: PolicyKind) -> Read<Scope> {
    if kind == PolicyKind::CiliumNetworkPolicy {
        field.deny_unknown(&METADATA)?;
        return Ok(Scope::Namespace(Arc::clone(&metadata.namespace)));
    }
    let known: Vec<&str> = METADATA.into_iter().filter(|name| *name != "namespace").collect();
    field.deny_unknown(&known)?;
    Ok(Scope::Cluster)
}

/// `spec`, and each of `specs`, with the names of their policies.
fn specs<'a>(object: &Field<'a>, name: &Arc<str>) -> Read<Vec<(Arc<str>, Field<'a>)>> {
    let items = object.list("specs")?;
    let spec = match items.is_empty() {
        true => Some(object.require("spec")?),
        false => object.get("spec")?,
    };
    let spec = spec.map(|spec| (Arc::clone(name), spec));
    let numbered = (1..).zip(items).map(|(number, spec)| (format!("{name}#{number}").into(), spec));
    Ok(spec.into_iter().chain(numbered).collect())
}

const ENDPOINTS: &str = "endpointSelector";

const SPEC: [&str; 9] = [
    "description",
    "egress",
    "egressDeny",
    "enableDefaultDeny",
    ENDPOINTS,
    "ingress",
    "ingressDeny",
    "labels",
    "log",
];

fn policy(spec: &Field<'_>, id: PolicyRef, scope: &Scope) -> Read<Policy> {
    let subject = subject(spec, scope)?;
    let mut policy = Policy { log: log(spec)?, ..Policy::new(id, subject) };
    policy.ingress = rules(spec, &INGRESS, scope)?;
    policy.egress = rules(spec, &EGRESS, scope)?;
    if policy.ingress.is_none() && policy.egress.is_none() {
        return Err(spec.error(Reason::NoRules));
    }
    for (direction, says) in
        [(INGRESS, policy.ingress.is_some()), (EGRESS, policy.egress.is_some())]
    {
        let isolates = isolates(spec, &direction, says)?;
        policy.default_deny.set(direction.directions, isolates);
    }
    Ok(policy)
}

/// The subject of a policy of a namespace is always in that namespace; one of the cluster may speak of
/// nodes instead.
fn subject(spec: &Field<'_>, scope: &Scope) -> Read<Subject> {
    const NODES: &str = "nodeSelector";
    match scope {
        Scope::Namespace(_) => check(spec, &SPEC, &[NODES])?,
        Scope::Cluster => check(spec, &[&SPEC[..], &[NODES]].concat(), &[])?,
    }
    match (spec.get(ENDPOINTS)?, spec.get(NODES)?) {
        (Some(_), Some(_)) => {
            Err(spec.error(Reason::Exclusive { first: ENDPOINTS, second: NODES }))
        }
        (None, Some(nodes)) => labels::nodes(&nodes).map(Subject::Nodes),
        _ => endpoints(&spec.require(ENDPOINTS)?, scope),
    }
}

fn endpoints(field: &Field<'_>, scope: &Scope) -> Read<Subject> {
    let selected = labels::endpoints(field)?;
    match scope {
        Scope::Cluster => Ok(selected.workloads(NamespaceSelector::Matching).into()),
        Scope::Namespace(namespace) if selected.admits(namespace) => {
            Ok(selected.in_namespace(namespace).into())
        }
        Scope::Namespace(namespace) => {
            Err(field.error(Reason::ForeignSubject { namespace: Arc::clone(namespace) }))
        }
    }
}

fn log(spec: &Field<'_>) -> Read<Option<Arc<str>>> {
    let Some(log) = spec.get("log")? else { return Ok(None) };
    log.deny_unknown(&["value"])?;
    log.get("value")?.map(|value| value.string().cloned()).transpose()
}

/// The rules of a direction; none if both lists are missing or empty.
fn rules(spec: &Field<'_>, direction: &Direction, scope: &Scope) -> Read<Option<Vec<Rule>>> {
    let (mut says, mut rules) = (false, Vec::new());
    let sections = [(direction.allow, RuleAction::Allow), (direction.deny, RuleAction::Deny)];
    for (section, action) in sections {
        let Some(list) = spec.get(section)? else { continue };
        let items = list.items()?;
        if items.is_empty() {
            list.warn(Warning::EmptySection { at: list.location() });
        }
        for item in &items {
            says = true;
            rules.extend(rule::read(item, &direction.peers, action, scope)?);
        }
    }
    Ok(says.then_some(rules))
}

fn isolates(spec: &Field<'_>, direction: &Direction, says: bool) -> Read<bool> {
    let Some(field) = spec.get("enableDefaultDeny")? else { return Ok(says) };
    field.deny_unknown(&[INGRESS.allow, EGRESS.allow])?;
    let Some(given) = field.get(direction.allow)? else { return Ok(says) };
    let isolates = given.boolean()?;
    if isolates && !says {
        given.warn(Warning::DefaultDenyWithoutRules { at: given.location() });
    }
    Ok(isolates && says)
}

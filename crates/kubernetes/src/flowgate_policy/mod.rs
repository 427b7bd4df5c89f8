//! flowgate's own policy kinds: `policy.flowgate.dev/v1alpha1` `FlowgatePolicy` and `FlowgateNodePolicy`.
//!
//! A policy of a namespace about its own pods, and one of the cluster about its nodes: who may write
//! policies in a namespace doesn't govern nodes by that. Either says what a NetworkPolicy says, and beside it: a
//! rule may deny; a peer may be a node or an entity; a service may be an ICMP type or an IP protocol;
//! a policy may isolate nobody, be on trial, tell whom it denies, or name a value for the log.
//! `docs/policies.md` lists the fields. `crd/flowgatepolicies.yaml` is what [`custom_resource_definition`]
//! returns, and `crd/flowgatenodepolicies.yaml` what [`node_custom_resource_definition`] does.
//!
//! Invariant: the reader and the schemas have their fields from one description, `description.rs`.
//! Tested by tables over the semantics and the errors, and by a walk over the description.
//!
//! ```
//! let definition = flowgate_kubernetes::flowgate_policy::custom_resource_definition();
//! assert!(definition.contains("name: \"flowgatepolicies.policy.flowgate.dev\""));
//! ```

mod description;

use std::sync::Arc;

use flowgate_identity::Selector;
use flowgate_policy::model::{
    Directions, Mode, NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Port, Ports,
    Response, Rule, RuleAction, Service, Subject, WorkloadSelector,
};
use serde_json::json;

use self::description::{
    ACTIONS, DEFAULT_DENY, EGRESS_RULE, ICMP, INGRESS_RULE, LOG_LIMIT, MODES, NAME_LIMIT,
    NODE_SPEC, PEER, RESPONSES, SERVICE, SPEC,
};
use crate::{
    Reason,
    entity::entity,
    field::{Field, Read},
    network_policy::{METADATA, ip_block, optional_selector, port_match, protocol},
    object::Metadata,
    schema::{Object, to_yaml},
    selector::selector,
};

/// The API version of the kinds.
pub(crate) const VERSION: &str = "policy.flowgate.dev/v1alpha1";

/// The `CustomResourceDefinition` of `FlowgatePolicy`, for `kubectl apply`, as YAML.
#[must_use]
pub fn custom_resource_definition() -> String {
    definition(&Kind {
        names: ["FlowgatePolicy", "flowgatepolicy", "flowgatepolicies", "fgp"],
        scope: "Namespaced",
        description: "What the pods of a namespace may open, and what may be opened to them.",
        spec: &SPEC,
    })
}

/// The `CustomResourceDefinition` of `FlowgateNodePolicy`, for `kubectl apply`, as YAML.
#[must_use]
pub fn node_custom_resource_definition() -> String {
    definition(&Kind {
        names: ["FlowgateNodePolicy", "flowgatenodepolicy", "flowgatenodepolicies", "fgnp"],
        scope: "Cluster",
        description: "What nodes may open, and what may be opened to them.",
        spec: &NODE_SPEC,
    })
}

/// What distinguishes the kinds.
struct Kind {
    /// The kind, its name in singular and plural, and a short one.
    names: [&'static str; 4],
    scope: &'static str,
    description: &'static str,
    spec: &'static Object,
}

fn definition(Kind { names, scope, description, spec }: &Kind) -> String {
    let [kind, singular, plural, short] = names;
    let schema = json!({
        "description": description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec.to_json(),
        },
    });
    to_yaml(&json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.policy.flowgate.dev")},
        "spec": {
            "group": "policy.flowgate.dev",
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "shortNames": [short],
                "singular": singular,
            },
            "scope": scope,
            "versions": [{
                "name": "v1alpha1",
                "schema": {"openAPIV3Schema": schema},
                "served": true,
                "storage": true,
            }],
        },
    }))
}

/// What distinguishes the two directions of a policy.
struct Direction {
    field: &'static str,
    peers: &'static str,
    rule: &'static Object,
    directions: Directions,
}

const INGRESS: Direction = Direction {
    field: "ingress",
    peers: "from",
    rule: &INGRESS_RULE,
    directions: Directions::INGRESS,
};
const EGRESS: Direction =
    Direction { field: "egress", peers: "to", rule: &EGRESS_RULE, directions: Directions::EGRESS };

pub(crate) fn read(object: &Field<'_>, metadata: &Metadata) -> Read<Policy> {
    let spec = spec(object, &SPEC)?;
    let id = PolicyRef {
        kind: PolicyKind::FlowgatePolicy,
        namespace: Arc::clone(&metadata.namespace),
        name: Arc::clone(&metadata.name),
    };
    let namespaces = NamespaceSelector::Named(Arc::clone(&metadata.namespace));
    let labels = optional_selector(&spec, "podSelector")?.unwrap_or_default();
    let subject = WorkloadSelector { namespaces: namespaces.clone(), labels };
    with_rules(&spec, Policy::new(id, subject), &namespaces)
}

pub(crate) fn read_of_nodes(object: &Field<'_>, metadata: &Metadata) -> Read<Policy> {
    let spec = spec(object, &NODE_SPEC)?;
    let id = PolicyRef {
        kind: PolicyKind::FlowgateNodePolicy,
        namespace: "".into(),
        name: Arc::clone(&metadata.name),
    };
    let everywhere = NamespaceSelector::Matching(Selector::everything());
    let all = Policy::new(id, Subject::Nodes(Selector::everything()));
    let policy = with_rules(&spec, all, &everywhere)?;
    let nodes = selector(&spec.require("nodeSelector")?)?;
    Ok(Policy { subject: Subject::Nodes(nodes), ..policy })
}

fn spec<'a>(object: &Field<'a>, known: &Object) -> Read<Field<'a>> {
    object.deny_unknown(&["apiVersion", "kind", "metadata", "spec"])?;
    object.require("metadata")?.deny_unknown(&METADATA)?;
    let spec = object.require("spec")?;
    known.check(&spec)?;
    Ok(spec)
}

/// What both kinds say. Pods whose namespaces a rule doesn't name are in `own`.
fn with_rules(spec: &Field<'_>, policy: Policy, own: &NamespaceSelector) -> Read<Policy> {
    let mut policy =
        Policy { mode: mode(spec)?, log: log(spec)?, response: response(spec)?, ..policy };
    policy.default_deny = Directions::empty();
    policy.ingress = read_direction(spec, &INGRESS, own, &mut policy.default_deny)?;
    policy.egress = read_direction(spec, &EGRESS, own, &mut policy.default_deny)?;
    Ok(policy)
}

fn mode(spec: &Field<'_>) -> Read<Mode> {
    let Some(field) = spec.get("mode")? else { return Ok(Mode::Enforce) };
    let modes = [Mode::Enforce, Mode::Audit, Mode::Staged];
    Ok(modes[field.choice(&MODES)?])
}

fn response(spec: &Field<'_>) -> Read<Option<Response>> {
    let responses = [Response::Silence, Response::Icmp, Response::Reset];
    spec.get("response")?.map(|field| Ok(responses[field.choice(&RESPONSES)?])).transpose()
}

fn log(spec: &Field<'_>) -> Read<Option<Arc<str>>> {
    spec.get("log")?.map(|field| text(&field, LOG_LIMIT)).transpose()
}

fn text(field: &Field<'_>, limit: usize) -> Read<Arc<str>> {
    let text = field.string()?;
    let length = text.chars().count();
    if length == 0 || length > limit {
        return Err(field.error(Reason::WrongLength { length, limit }));
    }
    Ok(Arc::clone(text))
}

/// The rules of a direction; adds it to `default_deny` if the policy isolates there.
fn read_direction(
    spec: &Field<'_>,
    direction: &Direction,
    own: &NamespaceSelector,
    default_deny: &mut Directions,
) -> Read<Option<Vec<Rule>>> {
    let rules = match spec.get(direction.field)? {
        Some(list) => {
            let items = list.items()?;
            let rules = items.iter().map(|field| rule(field, direction, own));
            Some(rules.collect::<Read<Vec<Rule>>>()?)
        }
        None => None,
    };
    let isolates = isolates(spec, direction)?.unwrap_or(rules.is_some());
    default_deny.set(direction.directions, isolates);
    Ok(rules.or_else(|| isolates.then(Vec::new)))
}

fn isolates(spec: &Field<'_>, direction: &Direction) -> Read<Option<bool>> {
    let Some(field) = spec.get("defaultDeny")? else { return Ok(None) };
    DEFAULT_DENY.check(&field)?;
    field.get(direction.field)?.map(|field| field.boolean()).transpose()
}

fn rule(field: &Field<'_>, direction: &Direction, own: &NamespaceSelector) -> Read<Rule> {
    direction.rule.check(field)?;
    if let Some(name) = field.get("name")? {
        text(&name, NAME_LIMIT)?;
    }
    let peers = match field.get(direction.peers)? {
        Some(list) => {
            let items = list.some_items()?;
            Peers::OneOf(items.iter().map(|item| peer(item, own)).collect::<Read<_>>()?)
        }
        None => Peers::Any,
    };
    let ports = match field.get("ports")? {
        Some(list) => Ports::OneOf(list.some_items()?.iter().map(service).collect::<Read<_>>()?),
        None => Ports::Any,
    };
    Ok(Rule { action: action(field)?, peers, ports })
}

fn action(rule: &Field<'_>) -> Read<RuleAction> {
    let Some(field) = rule.get("action")? else { return Ok(RuleAction::Allow) };
    Ok([RuleAction::Allow, RuleAction::Deny][field.choice(&ACTIONS)?])
}

fn peer(field: &Field<'_>, own: &NamespaceSelector) -> Read<Peer> {
    PEER.check(field)?;
    if let Some(block) = field.get("ipBlock")? {
        return ip_block(&block);
    }
    if let Some(nodes) = field.get("nodeSelector")? {
        return Ok(Peer::Nodes(selector(&nodes)?));
    }
    if let Some(name) = field.get("entity")? {
        return entity(&name).map(Peer::Entity);
    }
    let namespaces = optional_selector(field, "namespaceSelector")?;
    Ok(Peer::Workloads(WorkloadSelector {
        namespaces: namespaces.map_or_else(|| own.clone(), NamespaceSelector::Matching),
        labels: optional_selector(field, "podSelector")?.unwrap_or_default(),
    }))
}

fn service(field: &Field<'_>) -> Read<Service> {
    SERVICE.check(field)?;
    if let Some(icmp) = field.get("icmp")? {
        return Ok(Service::Icmp(icmp_type(&icmp)?));
    }
    if let Some(icmp) = field.get("icmpv6")? {
        return Ok(Service::Icmp6(icmp_type(&icmp)?));
    }
    if let Some(number) = field.get("protocolNumber")? {
        return Ok(Service::Protocol(number.byte()?));
    }
    Ok(Service::Port(Port { protocol: protocol(field)?, port: port_match(field)? }))
}

fn icmp_type(field: &Field<'_>) -> Read<Option<u8>> {
    ICMP.check(field)?;
    field.get("type")?.map(|field| field.byte()).transpose()
}

#[cfg(test)]
mod tests {
    use super::description::{IP_BLOCK, REQUIREMENT, SELECTOR};
    use super::*;
    use crate::{Manifests, network_policy, schema::Shape, selector};

    /// The path of a field, and how a document says it, with `@` for the value.
    struct Site {
        document: String,
        path: String,
        object: &'static Object,
    }

    /// Every object of the description, the first item of a list standing for all.
    fn sites(site: Site, found: &mut Vec<Site>) {
        for property in site.object.properties {
            let (mut shape, mut open, mut close) = (&property.shape, String::new(), String::new());
            let mut path = format!("{}.{}", site.path, property.name);
            while let Shape::List(item, _) = shape {
                (shape, open, close) = (item, open + "[", close + "]");
                path += "[0]";
            }
            if let Shape::Object(object) = shape {
                let value = format!("{}: {open}{{@}}{close}", property.name);
                let document = site.document.replace('@', &value);
                sites(Site { document, path, object }, found);
            }
        }
        found.push(site);
    }

    fn all_sites() -> Vec<Site> {
        let mut found = Vec::new();
        for (kind, object) in [("FlowgatePolicy", &SPEC), ("FlowgateNodePolicy", &NODE_SPEC)] {
            let document = format!(
                "{{apiVersion: policy.flowgate.dev/v1alpha1, kind: {kind}, metadata: {{name: p}}, \
                 spec: {{@}}}}"
            );
            sites(Site { document, path: "spec".into(), object }, &mut found);
        }
        found
    }

    fn refusal(site: &Site, field: &str) -> String {
        let text = site.document.replace('@', field);
        match Manifests::default().read("p.yaml", &text) {
            Ok(()) => panic!("was accepted: {text}"),
            Err(error) => error.to_string(),
        }
    }

    /// Fields on which others depend, with a value that is right.
    fn beside(site: &Site, name: &str) -> String {
        let required = site.object.properties.iter().filter(|other| other.required);
        let value = |name| match name {
            "nodeSelector" => "nodeSelector: {}, ",
            "cidr" => "cidr: 192.0.2.0/24, ",
            "operator" => "operator: In, ",
            _ => "key: a, ",
        };
        let mut text: String =
            required.filter(|other| other.name != name).map(|other| value(other.name)).collect();
        if name == "endPort" {
            text += "port: 1, ";
        }
        text
    }

    /// A value of a wrong type is noticed, so no field is known and then ignored.
    #[test]
    fn the_reader_looks_at_every_field_of_the_schema() {
        let sites = all_sites();
        assert_eq!(sites.len(), 2 * 28);
        for site in &sites {
            for property in site.object.properties {
                let wrong = match property.shape {
                    Shape::List(..) | Shape::Boolean | Shape::Integer(..) => "wrong",
                    _ => "[[]]",
                };
                let name = property.name;
                let error = refusal(site, &format!("{}{name}: {wrong}", beside(site, name)));
                assert!(error.contains(&format!("{}.{name}: expected", site.path)), "{error}");
            }
        }
    }

    #[test]
    fn the_reader_knows_no_field_beside_the_schema() {
        for site in all_sites() {
            let error = refusal(&site, "other: 1");
            assert!(error.contains(&format!("{}.other: unknown field", site.path)), "{error}");
        }
        let names = |object: &Object| -> Vec<&str> {
            object.properties.iter().map(|property| property.name).collect()
        };
        assert_eq!(names(&SELECTOR), selector::SELECTOR);
        assert_eq!(names(&REQUIREMENT), selector::REQUIREMENT);
        assert_eq!(names(&IP_BLOCK), network_policy::IP_BLOCK);
    }
}

//! Documents to objects: lists are opened, kinds told apart, metadata read.

use std::{cell::RefCell, sync::Arc};

use flowgate_identity::Labels;
use flowgate_policy::{
    inventory::{Node, Workload},
    model::{Policy, PolicyKind},
};

use crate::{
    Location, ManifestError, NameRule, Reason, Warning, cilium, cluster_policy,
    field::{Context, Field, FieldError, Read},
    flowgate_policy as own_policy,
    index::Claim,
    location::ObjectName,
    network_policy, node,
    places::RulePlaces,
    pod, selector, tree,
    tree::{Document, Value},
};

const NETWORK_POLICY_VERSION: &str = "networking.k8s.io/v1";

/// The API groups of policies, and the parents of such groups.
const POLICY_GROUPS: [&str; 8] = [
    "antrea.io",
    "antrea.tanzu.vmware.com",
    "cilium.io",
    "flowgate.dev",
    "isovalent.com",
    "k8s.ovn.org",
    "policy.networking.k8s.io",
    "projectcalico.org",
];

/// An object, where it is, and the addresses that it claims.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) at: Location,
    pub(crate) name: ObjectName,
    pub(crate) claims: Vec<Claim>,
    /// Where its rules are, if it is a policy of the usual shape.
    pub(crate) rules: RulePlaces,
    pub(crate) object: Object,
}

#[derive(Debug)]
pub(crate) enum Object {
    Namespace {
        name: Arc<str>,
        labels: Labels,
    },
    Node(Node),
    Pod(Workload),
    /// A pod that runs no more.
    FinishedPod,
    Policy(Policy),
    /// What one object says in several parts.
    Policies(Vec<Policy>),
}

/// What is read of `meta/v1` `ObjectMeta`.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) name: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) labels: Labels,
}

/// What the documents of one text hold.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) objects: Vec<Parsed>,
    pub(crate) warnings: Vec<Warning>,
}

impl Batch {
    /// Adds the objects of `document`.
    pub(crate) fn read(
        &mut self,
        source: &Arc<str>,
        document: &Document,
    ) -> Result<(), ManifestError> {
        let at = Location { document: Some(document.number), ..Location::of_source(source) };
        self.read_node(at, &document.root, None)
    }

    fn read_node(
        &mut self,
        at: Location,
        node: &tree::Node,
        inherited: Option<&TypeMeta>,
    ) -> Result<(), ManifestError> {
        let object = identify(node, inherited);
        let at = Location { line: node.line, object, ..at };
        let context = Context { at, warnings: RefCell::default() };
        let opened = open(&Field::new(&context, node), inherited)
            .map_err(|error| refused(&context.at, *error))?;
        self.warnings.append(&mut context.warnings.borrow_mut());
        match opened {
            Opened::Ignored => {}
            Opened::Object { object, claims } => {
                let name = context.at.object.clone();
                self.objects.extend(name.map(|name| Parsed {
                    at: context.at.clone(),
                    name,
                    claims,
                    rules: RulePlaces::of(&context.at, node),
                    object,
                }));
            }
            Opened::List { items, item_type } => {
                for item in items {
                    let at = Location { path: item.path().to_owned(), ..context.at.clone() };
                    self.read_node(at, item.node(), item_type.as_ref())?;
                }
            }
        }
        Ok(())
    }
}

fn refused(at: &Location, error: FieldError) -> ManifestError {
    let FieldError { path, line, reason } = error;
    ManifestError::new(Location { path, line, ..at.clone() }, reason)
}

/// Kind and API version; the items of a typed list may leave them out.
#[derive(Clone, Debug)]
struct TypeMeta {
    kind: Arc<str>,
    api_version: Arc<str>,
}

enum Opened<'a> {
    List { items: Vec<Field<'a>>, item_type: Option<TypeMeta> },
    Object { object: Object, claims: Vec<Claim> },
    Ignored,
}

enum Kind {
    List { item_type: Option<TypeMeta> },
    Namespace,
    Node,
    Pod,
    NetworkPolicy,
    FlowgatePolicy,
    FlowgateNodePolicy,
    Cilium(PolicyKind),
    ClusterPolicy(&'static cluster_policy::Api),
    Other,
}

fn open<'a>(field: &Field<'a>, inherited: Option<&TypeMeta>) -> Read<Opened<'a>> {
    let meta = type_meta(field, inherited)?;
    let object = match kind(field, &meta)? {
        Kind::List { item_type } => {
            return Ok(Opened::List { items: field.list("items")?, item_type });
        }
        Kind::Namespace => read_namespace(field)?,
        Kind::Node => return read_node(field),
        Kind::Pod => return read_pod(field),
        Kind::NetworkPolicy => {
            let metadata = metadata(field, NameRule::DnsSubdomain)?;
            Object::Policy(network_policy::read(field, &metadata)?)
        }
        Kind::FlowgatePolicy => {
            let metadata = metadata(field, NameRule::DnsSubdomain)?;
            Object::Policy(own_policy::read(field, &metadata)?)
        }
        Kind::FlowgateNodePolicy => {
            let metadata = cluster_metadata(field, "FlowgateNodePolicy")?;
            Object::Policy(own_policy::read_of_nodes(field, &metadata)?)
        }
        Kind::Cilium(kind) => {
            let metadata = metadata(field, NameRule::DnsSubdomain)?;
            Object::Policies(cilium::read(field, &metadata, kind)?)
        }
        Kind::ClusterPolicy(api) => {
            let metadata = cluster_metadata(field, api.name)?;
            Object::Policy(cluster_policy::read(field, api, &metadata)?)
        }
        Kind::Other => {
            field.warn(Warning::IgnoredKind { at: field.location() });
            return Ok(Opened::Ignored);
        }
    };
    Ok(Opened::Object { object, claims: Vec::new() })
}

fn read_namespace(field: &Field<'_>) -> Read<Object> {
    let metadata = metadata(field, NameRule::DnsLabel)?;
    let labels = node::namespace_labels(field, &metadata)?;
    Ok(Object::Namespace { name: metadata.name, labels })
}

fn read_node<'a>(field: &Field<'a>) -> Read<Opened<'a>> {
    let metadata = metadata(field, NameRule::DnsSubdomain)?;
    let (node, claims) = node::read(field, &metadata)?;
    Ok(Opened::Object { object: Object::Node(node), claims })
}

fn read_pod<'a>(field: &Field<'a>) -> Read<Opened<'a>> {
    let metadata = metadata(field, NameRule::DnsSubdomain)?;
    let name = object_name("Pod".into(), Some(&metadata.namespace), Some(&metadata.name));
    let pod = pod::read(field, &metadata, &name)?;
    let object = if pod.finished { Object::FinishedPod } else { Object::Pod(pod.workload) };
    Ok(Opened::Object { object, claims: pod.claims })
}

fn type_meta(field: &Field<'_>, inherited: Option<&TypeMeta>) -> Read<TypeMeta> {
    let read = |key, inherited: Option<&Arc<str>>| match (field.get(key)?, inherited) {
        (Some(given), _) if given.string()?.is_empty() => Err(given.error(Reason::MissingField)),
        (Some(given), _) => given.string().cloned(),
        (None, Some(inherited)) => Ok(Arc::clone(inherited)),
        (None, None) => field.require(key)?.string().cloned(),
    };
    Ok(TypeMeta {
        kind: read("kind", inherited.map(|meta| &meta.kind))?,
        api_version: read("apiVersion", inherited.map(|meta| &meta.api_version))?,
    })
}

fn kind(field: &Field<'_>, TypeMeta { kind, api_version }: &TypeMeta) -> Read<Kind> {
    let (group, _) = api_version.split_once('/').unwrap_or(("", api_version));
    let unsupported_version = |supported| {
        let (kind, api_version) = (Arc::clone(kind), Arc::clone(api_version));
        Err(field.error(Reason::UnsupportedVersion { kind, api_version, supported }))
    };
    if let Some(list) = list_kind(field, kind, api_version)? {
        return Ok(list);
    }
    match kind.as_ref() {
        "Namespace" | "Node" | "Pod" if group.is_empty() && api_version.as_ref() != "v1" => {
            unsupported_version("v1")
        }
        "Namespace" if group.is_empty() => Ok(Kind::Namespace),
        "Node" if group.is_empty() => Ok(Kind::Node),
        "Pod" if group.is_empty() => Ok(Kind::Pod),
        "NetworkPolicy" if api_version.as_ref() == NETWORK_POLICY_VERSION => {
            Ok(Kind::NetworkPolicy)
        }
        "FlowgatePolicy" if api_version.as_ref() == own_policy::VERSION => Ok(Kind::FlowgatePolicy),
        "FlowgateNodePolicy" if api_version.as_ref() == own_policy::VERSION => {
            Ok(Kind::FlowgateNodePolicy)
        }
        "CiliumNetworkPolicy" if api_version.as_ref() == cilium::VERSION => {
            Ok(Kind::Cilium(PolicyKind::CiliumNetworkPolicy))
        }
        "CiliumClusterwideNetworkPolicy" if api_version.as_ref() == cilium::VERSION => {
            Ok(Kind::Cilium(PolicyKind::CiliumClusterwideNetworkPolicy))
        }
        known if let Some(api) = cluster_api(group, known) => match api.version {
            version if version == api_version.as_ref() => Ok(Kind::ClusterPolicy(api)),
            version => unsupported_version(version),
        },
        "NetworkPolicy" if !is_policy_group(group) => unsupported_version(NETWORK_POLICY_VERSION),
        other if ends_with_policy(other) || is_policy_group(group) => {
            let (kind, api_version) = (Arc::clone(kind), Arc::clone(api_version));
            Err(field.error(Reason::UnsupportedPolicy { kind, api_version }))
        }
        _ => Ok(Kind::Other),
    }
}

/// In whatever case it is written: a policy whose kind has a slip must not be left out.
fn ends_with_policy(kind: &str) -> bool {
    kind.to_ascii_lowercase().ends_with("networkpolicy")
}

fn cluster_api(group: &str, kind: &str) -> Option<&'static cluster_policy::Api> {
    let of_group = group == cluster_policy::GROUP;
    cluster_policy::Api::ALL.into_iter().find(|api| of_group && api.name == kind)
}

fn list_kind(field: &Field<'_>, kind: &str, api_version: &Arc<str>) -> Read<Option<Kind>> {
    let Some(item_kind) = kind.strip_suffix("List") else { return Ok(None) };
    if item_kind.is_empty() {
        field.require("items")?;
        return Ok(Some(Kind::List { item_type: None }));
    }
    let has_items = field.entries()?.iter().any(|(key, _)| key.as_ref() == "items");
    let item_type = TypeMeta { kind: item_kind.into(), api_version: Arc::clone(api_version) };
    Ok(has_items.then_some(Kind::List { item_type: Some(item_type) }))
}

fn is_policy_group(group: &str) -> bool {
    POLICY_GROUPS.iter().any(|parent| {
        let below = group.strip_suffix(parent);
        below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
    })
}

fn metadata(object: &Field<'_>, rule: NameRule) -> Read<Metadata> {
    let field = object.require("metadata")?;
    let namespace = match field.get("namespace")? {
        Some(namespace) if !namespace.string()?.is_empty() => {
            Arc::clone(namespace.name(NameRule::DnsLabel)?)
        }
        _ => "default".into(),
    };
    Ok(Metadata {
        name: Arc::clone(field.require("name")?.name(rule)?),
        namespace,
        labels: selector::labels(&field, "labels")?,
    })
}

/// Of an object of the cluster: its namespace is empty.
fn cluster_metadata(object: &Field<'_>, kind: &str) -> Read<Metadata> {
    let field = object.require("metadata")?;
    if let Some(namespace) = field.get("namespace")?
        && !namespace.string()?.is_empty()
    {
        return Err(namespace.error(Reason::NamespaceForbidden { kind: kind.into() }));
    }
    Ok(Metadata {
        name: Arc::clone(field.require("name")?.name(NameRule::DnsSubdomain)?),
        namespace: "".into(),
        labels: selector::labels(&field, "labels")?,
    })
}

/// What an object calls itself, as far as that can be told without reading it.
fn identify(node: &tree::Node, inherited: Option<&TypeMeta>) -> Option<ObjectName> {
    let kind = text(node, "kind").or_else(|| inherited.map(|meta| &meta.kind))?;
    let metadata = value(node, "metadata");
    let named = |key| metadata.and_then(|metadata| text(metadata, key));
    let default: Arc<str> = "default".into();
    let namespace = match kind.as_ref() {
        "Namespace" | "Node" => None,
        "Pod" | "NetworkPolicy" | "FlowgatePolicy" | "CiliumNetworkPolicy" => {
            Some(named("namespace").unwrap_or(&default))
        }
        _ => named("namespace"),
    };
    Some(object_name(Arc::clone(kind), namespace, named("name")))
}

fn object_name(
    kind: Arc<str>,
    namespace: Option<&Arc<str>>,
    name: Option<&Arc<str>>,
) -> ObjectName {
    ObjectName { kind, namespace: namespace.cloned(), name: name.cloned() }
}

pub(crate) fn value<'a>(node: &'a tree::Node, key: &str) -> Option<&'a tree::Node> {
    let Value::Mapping(entries) = &node.value else { return None };
    entries.iter().find(|(known, _)| known.as_ref() == key).map(|(_, node)| node.as_ref())
}

/// The text of a field, if it is a string and not empty.
fn text<'a>(node: &'a tree::Node, key: &str) -> Option<&'a Arc<str>> {
    match &value(node, key)?.value {
        Value::String { text, .. } if !text.is_empty() => Some(text),
        _ => None,
    }
}

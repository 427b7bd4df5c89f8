//! Why manifests were refused.

use std::{fmt, io, net::IpAddr, sync::Arc};

use flowgate_policy::model::Protocol;
use ipnet::IpNet;
use thiserror::Error;

use crate::{Location, NameRule, ObjectName};

/// Manifests were refused: where, and why.
///
/// Displays as `pods.yaml: document 3 (NetworkPolicy/prod/web): spec.ingress[0].ports[0].endPort:
/// 79 is less than port 80 (line 17)`.
#[derive(Debug)]
pub struct ManifestError {
    at: Box<Location>,
    reason: Box<Reason>,
}

impl ManifestError {
    pub(crate) fn new(at: Location, reason: Reason) -> Self {
        Self { at: Box::new(at), reason: Box::new(reason) }
    }

    /// Where it is.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.at
    }

    /// Why it was refused.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        &self.reason
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.reason)?;
        match self.at.line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ManifestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.reason.as_ref() {
            Reason::Unreadable { error } => Some(error),
            _ => None,
        }
    }
}

/// Why manifests were refused.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum Reason {
    /// The file or directory can't be read.
    #[error("can't be read: {error}")]
    Unreadable {
        /// What the system says.
        error: io::Error,
    },
    /// The directory holds no manifests.
    #[error("no *.yaml, *.yml or *.json in this directory")]
    NoManifests,
    /// It is neither YAML nor JSON.
    #[error("{message}")]
    Syntax {
        /// What the parser says.
        message: Box<str>,
    },
    /// It is nested too deeply.
    #[error("nested more than {limit} levels deep")]
    TooDeep {
        /// How many levels are allowed.
        limit: usize,
    },
    /// Its aliases stand for too much.
    #[error("the aliases of this document stand for more than {limit} values")]
    TooManyAliases {
        /// How many values are allowed.
        limit: usize,
    },
    /// A key occurs twice in one mapping.
    #[error("this key occurs twice")]
    DuplicateKey,
    /// A YAML merge key.
    #[error("merge keys (<<) are not supported: write the fields out")]
    MergeKey,
    /// A key that isn't a string.
    #[error("a key must be a string, and {found} isn't one: put it in quotes")]
    KeyNotString {
        /// What it is.
        found: Box<str>,
    },
    /// A YAML tag.
    #[error("the tag {tag} is not supported")]
    UnsupportedTag {
        /// The tag.
        tag: Box<str>,
    },
    /// A value of the wrong type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: Box<str>,
    },
    /// A number or boolean where there should be a string.
    #[error("expected a string, found {found}: put it in quotes")]
    Unquoted {
        /// What it is.
        found: Box<str>,
    },
    /// A required field is missing.
    #[error("missing")]
    MissingField,
    /// A field that doesn't exist.
    #[error("unknown field")]
    UnknownField,
    /// An API version of a kind that isn't supported.
    #[error("{kind} of {api_version} is not supported, only that of {supported}")]
    UnsupportedVersion {
        /// The kind.
        kind: Arc<str>,
        /// The version that it has.
        api_version: Arc<str>,
        /// The version that is supported.
        supported: &'static str,
    },
    /// A kind of policy that isn't supported.
    #[error("{kind} of {api_version} is a policy that is not supported, and can't be left out")]
    UnsupportedPolicy {
        /// The kind.
        kind: Arc<str>,
        /// Its API version.
        api_version: Arc<str>,
    },
    /// Two objects of the same kind have the same name.
    #[error("already defined in {first}")]
    DuplicateObject {
        /// Where the first one is.
        first: Box<Location>,
    },
    /// Two objects have the same address.
    #[error("{address} is already the address of {owner}{}", Defined(.first.as_deref()))]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// Who has it.
        owner: ObjectName,
        /// Where that one is defined, if it has a manifest.
        first: Option<Box<Location>>,
    },
    /// A name, label key, label value or port name that breaks Kubernetes' rules.
    #[error("{value:?} is not {rule}")]
    InvalidName {
        /// The rule.
        rule: NameRule,
        /// What breaks it.
        value: Box<str>,
    },
    /// A namespace carries another namespace's name as its label.
    #[error("is {value:?}, but must be the namespace's own name, {name:?}")]
    ForeignNameLabel {
        /// The label's value.
        value: Box<str>,
        /// The namespace's name.
        name: Arc<str>,
    },
    /// Not one of the values that the API allows.
    #[error("{value:?} is not one of {allowed}")]
    NotOneOf {
        /// What it is.
        value: Box<str>,
        /// What it may be.
        allowed: &'static str,
    },
    /// Not one of the values that a field may have.
    #[error("{value:?} is not one of {}", And(.allowed))]
    UnknownChoice {
        /// What it is.
        value: Box<str>,
        /// What it may be.
        allowed: &'static [&'static str],
    },
    /// Two fields that exclude each other.
    #[error("{first} and {second} exclude each other: write them apart")]
    Exclusive {
        /// One of them.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// None of several fields of which one is needed.
    #[error("one of {} is needed", And(.fields))]
    NeedsOneOf {
        /// The fields.
        fields: Box<[&'static str]>,
    },
    /// A text of the wrong length.
    #[error("must have between 1 and {limit} characters, and has {length}")]
    WrongLength {
        /// How long it is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A field of another project's API that flowgate knows and can't honour.
    #[error("flowgate can't do what this field says, and it can't be left out")]
    UnsupportedField,
    /// A label of Cilium's that flowgate's workloads or nodes don't have.
    #[error("flowgate knows no label {label:?}")]
    UnsupportedLabel {
        /// The label's key, with its source.
        label: Box<str>,
    },
    /// A subject in another namespace than the policy's own.
    #[error("selects another namespace, but the policy is about its own, {namespace:?}")]
    ForeignSubject {
        /// The policy's namespace.
        namespace: Arc<str>,
    },
    /// A Cilium policy without a rule.
    #[error("says nothing: no rule in ingress, ingressDeny, egress or egressDeny")]
    NoRules,
    /// A denying rule of Cilium's that names nothing.
    #[error("a rule that denies must name peers, ports or ICMP types")]
    EmptyDenial,
    /// An operator that needs values has none.
    #[error("operator {operator} needs values")]
    ValuesRequired {
        /// The operator.
        operator: &'static str,
    },
    /// An operator that takes no values has some.
    #[error("operator {operator} takes no values")]
    ValuesForbidden {
        /// The operator.
        operator: &'static str,
    },
    /// Not an address.
    #[error("{value:?} is not an IP address")]
    InvalidAddress {
        /// What it is.
        value: Box<str>,
    },
    /// Not a network.
    #[error("{value:?} is not a network in CIDR notation")]
    InvalidCidr {
        /// What it is.
        value: Box<str>,
    },
    /// An exception that isn't strictly inside its network.
    #[error("{except} is not strictly inside {cidr}")]
    ExceptOutside {
        /// The exception.
        except: IpNet,
        /// The network.
        cidr: IpNet,
    },
    /// A peer that names nobody.
    #[error("a peer needs an ipBlock, a podSelector or a namespaceSelector")]
    EmptyPeer,
    /// A peer with an ipBlock and a selector.
    #[error("a peer with an ipBlock can't have a podSelector or a namespaceSelector")]
    MixedPeer,
    /// Not a port number.
    #[error("{value} is not a port number between 1 and 65535")]
    PortOutOfRange {
        /// The number.
        value: i64,
    },
    /// Not an ICMP type or protocol number.
    #[error("{value} is not a number between 0 and 255")]
    NotAByte {
        /// The number.
        value: i64,
    },
    /// A range of ports without a number to start from.
    #[error("endPort needs a port that is a number")]
    EndPortWithoutNumber,
    /// A range of ports that ends before it starts.
    #[error("{end_port} is less than port {port}")]
    EndPortBelowPort {
        /// The first port.
        port: u16,
        /// The last port.
        end_port: u16,
    },
    /// A namespace of an object that belongs to the cluster.
    #[error("{kind} belongs to the cluster and has no namespace")]
    NamespaceForbidden {
        /// The kind.
        kind: Arc<str>,
    },
    /// A value where the API allows another one alone.
    #[error("is {value:?}, but must be {expected:?}")]
    NotTheOnly {
        /// What it is.
        value: Box<str>,
        /// What it must be.
        expected: &'static str,
    },
    /// A field of an older version of the API.
    #[error("this field of an older version of the API is not supported")]
    OlderField,
    /// A mapping that must have one field of several has none of them, or more than one.
    #[error("needs exactly one of {}", .allowed.join(", "))]
    NotExactlyOne {
        /// The fields.
        allowed: &'static [&'static str],
    },
    /// A list that needs an item has none.
    #[error("needs at least one item")]
    EmptyList,
    /// A list with too many items.
    #[error("has {count} items, and may have {limit}")]
    TooMany {
        /// How many it has.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// An item occurs twice in a list where each may occur once.
    #[error("this item occurs twice")]
    DuplicateItem,
    /// A text that is too long.
    #[error("has {length} characters, and may have {limit}")]
    TooLong {
        /// How long it is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A number out of its range.
    #[error("{value} is not between {first} and {last}")]
    NumberOutOfRange {
        /// The number.
        value: i64,
        /// The least that it may be.
        first: i64,
        /// The most that it may be.
        last: i64,
    },
    /// A range of ports whose end isn't above its start.
    #[error("{end} is not more than start {start}")]
    EndNotAboveStart {
        /// The first port.
        start: u16,
        /// The last port.
        end: u16,
    },
    /// A named port in a rule with peers that declare no ports.
    #[error("a named port can't go with nodes, networks or domainNames, which declare none")]
    NamedPortOfAddresses,
    /// Domain names in a rule that doesn't allow.
    #[error("domain names need the action {allow}")]
    DomainsWithoutAllow {
        /// The word for that action.
        allow: &'static str,
    },
    /// A protocol without ports, or an unknown one.
    #[error("{value:?} is not one of {}, {} and {}", Protocol::Tcp, Protocol::Udp, Protocol::Sctp)]
    InvalidProtocol {
        /// The protocol.
        value: Box<str>,
    },
}

/// Names as a sentence lists them: `a, b and c`.
struct And<'a>(&'a [&'static str]);

impl fmt::Display for And<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            [only] => f.write_str(only),
            [others @ .., last] => write!(f, "{} and {last}", others.join(", ")),
        }
    }
}

struct Defined<'a>(Option<&'a Location>);

impl fmt::Display for Defined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(first) => write!(f, ", defined in {first}"),
            None => Ok(()),
        }
    }
}

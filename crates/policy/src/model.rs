//! The typed policy model: what a policy says, free of the API that it came from.
//!
//! The order of evaluation, for each end of a new flow that is an endpoint: the rules of the admin
//! tier that apply to it, by priority, policy and rule, until one allows or denies or passes on; the
//! namespace tier, where a denial beats an allowance, and whoever a policy isolates is denied what no
//! rule allows; the baseline tier, like the admin tier; and what nothing has decided is allowed.
//!
//! What a node opens to itself and to workloads on it isn't judged by the node's policies: it doesn't
//! leave the node, and a node that couldn't reach its workloads couldn't tend them. The workload's own
//! ingress decides, and by [`Options::allow_local_node`](crate::options::Options) it lets the node in.
//!
//! Not here: parsing (`flowgate-kubernetes`), and deciding ([`crate::compile`], [`crate::oracle`]).
//! Invariant: the namespace of a subject or peer is a field of its own, never a label, so no label
//! selector can widen it (CVE-2023-41333).

use std::{fmt, sync::Arc};

pub use flowgate_abi::policy::{Direction, Response};
use flowgate_identity::Selector;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The kinds of policy object that flowgate knows.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1` AdminNetworkPolicy.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1` BaselineAdminNetworkPolicy.
    BaselineAdminNetworkPolicy,
    /// flowgate's own, of a namespace about its pods.
    FlowgatePolicy,
    /// flowgate's own, of the cluster about its nodes.
    FlowgateNodePolicy,
    /// `cilium.io/v2` CiliumNetworkPolicy.
    CiliumNetworkPolicy,
    /// `cilium.io/v2` CiliumClusterwideNetworkPolicy.
    CiliumClusterwideNetworkPolicy,
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
            Self::FlowgatePolicy => "FlowgatePolicy",
            Self::FlowgateNodePolicy => "FlowgateNodePolicy",
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
        })
    }
}

/// Names one policy object; displays as `kind/namespace/name`, or `kind/name` for one of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyRef {
    /// The kind of object.
    pub kind: PolicyKind,
    /// Its namespace; empty for an object of the cluster.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{}/{}", self.kind, self.name),
            namespace => write!(f, "{}/{namespace}/{}", self.kind, self.name),
        }
    }
}

/// One policy: of whom it speaks, and what it says about what they open and what is opened to them.
///
/// ```
/// use flowgate_identity::Selector;
/// use flowgate_policy::model::{
///     Direction, NamespaceSelector, Policy, PolicyKind, PolicyRef, WorkloadSelector,
/// };
///
/// let id = PolicyRef {
///     kind: PolicyKind::NetworkPolicy,
///     namespace: "shop".into(),
///     name: "isolate".into(),
/// };
/// let everybody = WorkloadSelector {
///     namespaces: NamespaceSelector::Named("shop".into()),
///     labels: Selector::everything(),
/// };
/// let isolate = Policy::new(id, everybody).says(Direction::Ingress, []);
/// assert!(isolate.isolates(Direction::Ingress));
/// ```
///
/// It crosses serde as its fields are, in camel case; what is left out is as [`Policy::new`] has it, and a field that
/// isn't known is an error. Manifests of Kubernetes' kinds are read by `flowgate-kubernetes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Its name, for logs and explanations.
    pub id: PolicyRef,
    /// Where it stands in the order of evaluation.
    #[serde(default)]
    pub tier: Tier,
    /// What it does to packets.
    #[serde(default)]
    pub mode: Mode,
    /// The directions in which it isolates its subjects, if it is of the namespace tier and says
    /// anything about the direction.
    #[serde(default = "Directions::all")]
    pub default_deny: Directions,
    /// The ends of which it speaks.
    pub subject: Subject,
    /// What is opened to them. `None`: it says nothing. `Some(vec![])`: it isolates, allows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<Rule>>,
    /// What they open. `None`: it says nothing. `Some(vec![])`: it isolates, allows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<Rule>>,
    /// A value for the log of flows that it decides about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Arc<str>>,
    /// What the sender of a packet that it denies is told. `None`: it leaves that to other policies
    /// that deny the same; if none of them says anything, nothing is told ([`Policy::told_by`]).
    #[serde(default, skip_serializing_if = "Option::is_none", with = "told")]
    pub response: Option<Response>,
}

impl Policy {
    /// An enforced policy of the namespace tier that says nothing yet.
    #[must_use]
    pub fn new(id: PolicyRef, subject: impl Into<Subject>) -> Self {
        Self {
            id,
            tier: Tier::Namespace,
            mode: Mode::Enforce,
            default_deny: Directions::all(),
            subject: subject.into(),
            ingress: None,
            egress: None,
            log: None,
            response: None,
        }
    }

    /// The same in another place of the order of evaluation.
    #[must_use]
    pub fn tier(self, tier: Tier) -> Self {
        Self { tier, ..self }
    }

    /// The same with another effect.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The same, isolating in these directions alone, of those of which it says anything.
    #[must_use]
    pub fn default_deny(self, default_deny: Directions) -> Self {
        Self { default_deny, ..self }
    }

    /// The same with more rules about a direction. With none, and none before, it isolates and allows nothing.
    ///
    /// ```
    /// use flowgate_policy::model::{
    ///     Direction, Entity, Mode, Peer, Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch,
    ///     Ports, Protocol, Response, Rule, Subject,
    /// };
    ///
    /// let id = PolicyRef {
    ///     kind: PolicyKind::FlowgateNodePolicy,
    ///     namespace: "".into(),
    ///     name: "ssh".into(),
    /// };
    /// let ssh = Port { protocol: Protocol::Tcp, port: PortMatch::Range(22, 22) };
    /// let world = Peers::OneOf(vec![Peer::Entity(Entity::World)]);
    /// let policy = Policy::new(id, Subject::Nodes(Default::default()))
    ///     .says(Direction::Ingress, [Rule::deny(world, Ports::of([ssh]))])
    ///     .mode(Mode::Audit)
    ///     .log("ssh-from-outside")
    ///     .response(Response::Reset);
    /// assert_eq!(policy.rules(Direction::Ingress).map(Vec::len), Some(1));
    /// ```
    #[must_use]
    pub fn says(mut self, direction: Direction, rules: impl IntoIterator<Item = Rule>) -> Self {
        let said = match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        };
        said.get_or_insert_default().extend(rules);
        self
    }

    /// The same with a value for the log of flows that it decides about.
    #[must_use]
    pub fn log(self, value: impl Into<Arc<str>>) -> Self {
        Self { log: Some(value.into()), ..self }
    }

    /// The same, and whom it denies is told this.
    #[must_use]
    pub fn response(self, response: Response) -> Self {
        Self { response: Some(response), ..self }
    }

    /// Services that pass every node in both directions, whatever other policies of nodes say: the way
    /// back for an operator whom a policy would lock out. A policy of the admin tier with the first
    /// priority, to be compiled beside the others.
    ///
    /// ```
    /// use flowgate_policy::model::{Policy, Port, PortMatch, Ports, Protocol};
    ///
    /// let port = |protocol, number| Port { protocol, port: PortMatch::Range(number, number) };
    /// let ssh_and_api = Ports::of([port(Protocol::Tcp, 22), port(Protocol::Tcp, 6443)]);
    /// let failsafe = Policy::node_failsafe(ssh_and_api);
    /// assert_eq!(failsafe.id.to_string(), "FlowgateNodePolicy/failsafe");
    /// ```
    #[must_use]
    pub fn node_failsafe(services: Ports) -> Self {
        let id = PolicyRef {
            kind: PolicyKind::FlowgateNodePolicy,
            namespace: "".into(),
            name: "failsafe".into(),
        };
        let rules = vec![Rule::allow(Peers::Any, services)];
        Self {
            tier: Tier::Admin { priority: 0 },
            ingress: Some(rules.clone()),
            egress: Some(rules),
            ..Self::new(id, Subject::Nodes(Selector::everything()))
        }
    }

    /// What a sender is told whom policies that say these deny together: the quietest of what is said.
    #[must_use]
    pub fn told_by(said: impl IntoIterator<Item = Option<Response>>) -> Response {
        said.into_iter().flatten().min().unwrap_or_default()
    }

    /// What it says about a direction.
    #[must_use]
    pub const fn rules(&self, direction: Direction) -> Option<&Vec<Rule>> {
        match direction {
            Direction::Egress => self.egress.as_ref(),
            Direction::Ingress => self.ingress.as_ref(),
        }
    }

    /// It denies its subjects what no rule allows.
    #[must_use]
    pub const fn isolates(&self, direction: Direction) -> bool {
        let switched = self.default_deny.contains(Directions::of(direction));
        matches!(self.tier, Tier::Namespace) && switched && self.rules(direction).is_some()
    }
}

/// What is told, by its name.
mod told {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Response;

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Response", rename_all = "lowercase")]
    enum Named {
        Silence,
        Icmp,
        Reset,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Told(#[serde(with = "Named")] Response);

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(
        response: &Option<Response>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        response.map(Told).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Response>, D::Error> {
        Ok(Option::<Told>::deserialize(deserializer)?.map(|told| told.0))
    }
}

/// Where a policy stands in the order of evaluation; tiers compare in that order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Tier {
    /// Before what namespaces say. Lower priorities first; at one priority by name, where two
    /// policies contradict each other ([`Policy::contradicts`]) the specification leaves it open.
    Admin {
        /// 0 to 1000 in ClusterNetworkPolicy.
        priority: u16,
    },
    /// What namespaces say of themselves: NetworkPolicy among it. Order makes no difference.
    #[default]
    Namespace,
    /// Behind what namespaces say, for workloads that no policy there isolates.
    Baseline {
        /// 0 to 1000 in ClusterNetworkPolicy. BaselineAdminNetworkPolicy has none and comes last.
        priority: u16,
    },
}

/// What a policy does to packets.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// What it denies is dropped.
    #[default]
    Enforce,
    /// It takes part like any other policy, but what would pass without it passes, and is told as what
    /// would have been denied ([`SideVerdict::Audit`](crate::outcome::SideVerdict::Audit)).
    Audit,
    /// It changes nothing; told is where it would.
    Staged,
}

bitflags::bitflags! {
    /// The ways past an endpoint, seen from the endpoint.
    /// Cross serde by their names: `"EGRESS | INGRESS"`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct Directions: u8 {
        /// What it opens.
        const EGRESS = 1;
        /// What is opened to it.
        const INGRESS = 2;
    }
}

impl Directions {
    /// One of them.
    #[must_use]
    pub const fn of(direction: Direction) -> Self {
        match direction {
            Direction::Egress => Self::EGRESS,
            Direction::Ingress => Self::INGRESS,
        }
    }
}

/// What becomes of flows with these peers, on these ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What becomes of them.
    pub action: RuleAction,
    /// The other ends.
    pub peers: Peers,
    /// The destination's ports.
    pub ports: Ports,
}

impl Rule {
    /// A rule that allows.
    #[must_use]
    pub const fn allow(peers: Peers, ports: Ports) -> Self {
        Self { action: RuleAction::Allow, peers, ports }
    }

    /// A rule that denies.
    #[must_use]
    pub const fn deny(peers: Peers, ports: Ports) -> Self {
        Self { action: RuleAction::Deny, peers, ports }
    }

    /// A rule that leaves the decision to the next tier.
    #[must_use]
    pub const fn pass(peers: Peers, ports: Ports) -> Self {
        Self { action: RuleAction::Pass, peers, ports }
    }
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleAction {
    /// It allows.
    Allow,
    /// It denies.
    Deny,
    /// It ends its tier: the next one decides. In the namespace tier, which has no order, it says
    /// nothing.
    Pass,
}

/// The other ends that a rule names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Peers {
    /// Everything, known or not.
    Any,
    /// What one of these matches. An empty list matches nothing.
    OneOf(Vec<Peer>),
}

/// One kind of other end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Peer {
    /// Workloads by namespace and labels. Never matches a node or a host-network workload.
    Workloads(WorkloadSelector),
    /// Addresses: inside `cidr` and in none of `except`. Matches the addresses of workloads too.
    Cidr {
        /// The network.
        cidr: IpNet,
        /// Networks inside it that are left out.
        except: Vec<IpNet>,
    },
    /// The addresses of nodes, by the nodes' labels, and of the host-network workloads on them. Never
    /// matches a workload with an address of its own.
    Nodes(Selector),
    /// A class of ends that has a name.
    Entity(Entity),
    /// What a domain name resolves to. Nothing resolves names here, so it matches nothing.
    Domain(Arc<str>),
}

/// A class of ends that has a name. Displays as in a CiliumNetworkPolicy: `remote-node`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entity {
    /// Every end.
    All,
    /// What is neither workload nor node.
    World,
    /// World, of IPv4.
    WorldIpv4,
    /// World, of IPv6.
    WorldIpv6,
    /// Workloads and nodes.
    Cluster,
    /// The node for which the plan is made, and the host-network workloads on it.
    Host,
    /// Every other node.
    RemoteNode,
    /// No end.
    None,
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::All => "all",
            Self::World => "world",
            Self::WorldIpv4 => "world-ipv4",
            Self::WorldIpv6 => "world-ipv6",
            Self::Cluster => "cluster",
            Self::Host => "host",
            Self::RemoteNode => "remote-node",
            Self::None => "none",
        })
    }
}

/// The ends of which a policy speaks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// Workloads that have addresses of their own.
    Workloads(WorkloadSelector),
    /// Nodes, by their labels, with the host-network workloads on them. A node that no policy
    /// selects is no endpoint: nothing is judged at it.
    Nodes(Selector),
}

impl From<WorkloadSelector> for Subject {
    fn from(workloads: WorkloadSelector) -> Self {
        Self::Workloads(workloads)
    }
}

/// Selects workloads: namespace AND labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSelector {
    /// The namespaces.
    pub namespaces: NamespaceSelector,
    /// The workload's own labels.
    pub labels: Selector,
}

/// Selects namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NamespaceSelector {
    /// This one, by name.
    Named(Arc<str>),
    /// Those whose labels match; the empty selector matches all.
    Matching(Selector),
}

/// The destination ports that a rule names, and what other protocols have in their place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ports {
    /// Every protocol and every port.
    Any,
    /// What one of these matches. An empty list matches nothing.
    OneOf(Vec<Service>),
}

impl Ports {
    /// What one of these matches.
    #[must_use]
    pub fn of<S: Into<Service>>(services: impl IntoIterator<Item = S>) -> Self {
        Self::OneOf(services.into_iter().map(Into::into).collect())
    }
}

/// What a rule may name of a flow beside its ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Service {
    /// A port of a protocol that has ports.
    Port(Port),
    /// ICMP, of a type or of any.
    Icmp(Option<u8>),
    /// ICMPv6, of a type or of any.
    Icmp6(Option<u8>),
    /// A protocol by its IANA number, whatever its ports or types.
    Protocol(u8),
}

impl From<Port> for Service {
    fn from(port: Port) -> Self {
        Self::Port(port)
    }
}

/// A port of a protocol that has ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// The port or ports.
    pub port: PortMatch,
}

/// Which ports of a protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PortMatch {
    /// Every port of the protocol.
    All,
    /// From the first to the last, both included.
    Range(u16, u16),
    /// What the destination workload declares under this name for this protocol; if it declares
    /// none, nothing. Addresses without a workload have no named ports.
    Named(Arc<str>),
}

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// RFC 9293, protocol number 6.
    Tcp,
    /// RFC 768, protocol number 17.
    Udp,
    /// RFC 9260, protocol number 132.
    Sctp,
}

impl Protocol {
    /// The IANA protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

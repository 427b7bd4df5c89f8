//! The smallest world in which everything about connections can happen: two local pods, a client
//! and a server, somebody outside, and three sets of rules between them.
//!
//! Not here: what is done in it ([`crate::walk`], the fuzz targets). Everything is fixed: there is
//! no chance and no clock.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use flowgate_abi::endpoint::Endpoint;
use flowgate_identity::{Labels, LocalAllocator, Operator, Requirement, Selector};
use flowgate_policy::{
    compile::Compiler,
    host::HostTables,
    install::{EndpointAddress, Installer},
    inventory::{Inventory, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch, Ports,
        Protocol, Response, Rule, WorkloadSelector,
    },
    options::Options,
    oracle,
    outcome::Flow,
    plan::Plan,
};

const NAMESPACE: &str = "trio";
/// The half of the outside that [`Rules::OneWay`] lets in.
const OUTSIDE: [&str; 2] = ["203.0.113.0/25", "2001:db8:f::/64"];

/// Somebody who sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// A local pod.
    Client,
    /// Another local pod.
    Server,
    /// An address that is nobody's on this node.
    Outside,
}

impl Party {
    /// Its only address of a family.
    #[must_use]
    pub const fn address(self, v6: bool) -> IpAddr {
        match (self, v6) {
            (Self::Client, false) => IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)),
            (Self::Server, false) => IpAddr::V4(Ipv4Addr::new(198, 18, 0, 2)),
            (Self::Outside, false) => IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
            (Self::Client, true) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
            (Self::Server, true) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
            (Self::Outside, true) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 7)),
        }
    }

    /// The interface index of its host side, if it is local. It is the number of its slot, too.
    #[must_use]
    pub const fn ifindex(self) -> Option<u32> {
        match self {
            Self::Client => Some(1),
            Self::Server => Some(2),
            Self::Outside => None,
        }
    }

    /// Its Ethernet address. All frames come from the client's, and only the client has to own it.
    #[must_use]
    pub const fn mac(self) -> [u8; 6] {
        match self {
            Self::Client => [2, 0, 0, 0, 0, 1],
            Self::Server => [2, 0, 0, 0, 1, 2],
            Self::Outside => [2, 0, 0, 0, 1, 3],
        }
    }

    /// Whose address this is.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        [Self::Client, Self::Server]
            .into_iter()
            .find(|party| party.address(address.is_ipv6()) == address)
            .unwrap_or(Self::Outside)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Outside => "outside",
        }
    }
}

/// What whoever is denied by any of the rules is told.
pub const RESPONSE: Response = Response::Reset;

/// What holds between the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rules {
    /// Nobody is isolated.
    Open,
    /// The client opens to anybody, to port 80 of TCP and 53 of UDP of the server; the outside opens
    /// anything to the server; nobody opens to the client.
    OneWay,
    /// Both pods are isolated in both directions.
    Closed,
}

impl Rules {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::OneWay, Self::Closed];

    fn policies(self) -> Vec<Policy> {
        let into_server = || {
            let ports = [port(Protocol::Tcp, 80), port(Protocol::Udp, 53)];
            let ports = Ports::of(ports.iter().cloned());
            let client = Peers::OneOf(vec![Peer::Workloads(pod(Party::Client))]);
            vec![Rule::allow(client, ports), Rule::allow(outside(), Ports::Any)]
        };
        match self {
            Self::Open => Vec::new(),
            Self::OneWay => vec![
                policy(Party::Server, Some(into_server()), None),
                policy(Party::Client, Some(Vec::new()), None),
            ],
            Self::Closed => [Party::Client, Party::Server]
                .map(|party| policy(party, Some(Vec::new()), Some(Vec::new())))
                .to_vec(),
        }
    }
}

/// The world: who is there, and a plan for each set of rules.
#[derive(Debug)]
pub struct Trio {
    inventory: Inventory,
    plans: [Arc<Plan>; 3],
    /// The same, but for what they say of established connections.
    keeping: [Arc<Plan>; 3],
    /// A plan of more of everything, by which tables are sized: two generations share the peers.
    widest: Plan,
}

impl Default for Trio {
    fn default() -> Self {
        Self::new()
    }
}

impl Trio {
    /// The world.
    ///
    /// # Panics
    /// If the compiler refuses it.
    #[must_use]
    pub fn new() -> Self {
        let inventory = inventory(0);
        let compile = |inventory: &Inventory, policies: &[Policy], options: &Options| {
            Compiler::new(LocalAllocator::new())
                .compile(inventory, policies, options)
                .expect("a fixed and sound case")
        };
        let all = |keep_established| {
            let options = Options { keep_established, ..Options::default() };
            Rules::ALL.map(|rules| Arc::new(compile(&inventory, &rules.policies(), &options)))
        };
        let (plans, keeping) = (all(false), all(true));
        let all: Vec<Policy> = Rules::ALL.into_iter().flat_map(Rules::policies).collect();
        let widest = compile(&self::inventory(12), &distinct(all), &Options::default());
        Self { inventory, plans, keeping, widest }
    }

    /// The plan that holds these rules.
    #[must_use]
    pub const fn plan(&self, rules: Rules) -> &Arc<Plan> {
        &self.plans[rules as usize]
    }

    /// The plan that holds these rules and keeps what is established.
    #[must_use]
    pub const fn keeping_plan(&self, rules: Rules) -> &Arc<Plan> {
        &self.keeping[rules as usize]
    }

    /// A plan that needs more room than the change from any set of rules to any other.
    #[must_use]
    pub const fn widest(&self) -> &Plan {
        &self.widest
    }

    /// The oracle's word: this flow may be opened.
    #[must_use]
    pub fn allows(&self, rules: Rules, flow: &Flow) -> bool {
        oracle::decide(&self.inventory, &rules.policies(), &Options::default(), flow).allowed()
    }

    /// Both pods attached to these tables, under these rules.
    ///
    /// # Panics
    /// If there is no room.
    #[must_use]
    pub fn install(&self, tables: HostTables, rules: Rules) -> Installer<HostTables> {
        let Ok(mut installer) = Installer::adopt(tables);
        for party in [Party::Client, Party::Server] {
            let _ = self.attach(&mut installer, party);
        }
        let _ = installer.apply(self.plan(rules)).expect("the plan fits");
        installer
    }

    /// Attaches a pod, and returns its slot.
    ///
    /// # Panics
    /// If it isn't local, is attached already, or there is no room.
    pub fn attach(&self, installer: &mut Installer<HostTables>, party: Party) -> u32 {
        let ifindex = party.ifindex().expect("a local party");
        let (IpAddr::V4(v4), IpAddr::V6(v6)) = (party.address(false), party.address(true)) else {
            unreachable!("one of each family")
        };
        let address = EndpointAddress {
            ifindex,
            v4: Some(v4),
            v6: Some(v6),
            mac: party.mac(),
            router_mac: [2, 0, 0, 0, 0, ifindex as u8],
            flags: match party {
                Party::Client => Endpoint::REDIRECT | Endpoint::CHECK_MAC,
                _ => Endpoint::REDIRECT,
            },
        };
        let workload = WorkloadRef { namespace: NAMESPACE.into(), name: party.name().into() };
        let slot = installer.attach(workload, address).expect("there is room");
        assert_eq!(slot, ifindex, "an interface index chooses the slot by its low bits");
        slot
    }
}

fn inventory(more: u8) -> Inventory {
    let mut workloads = [Party::Client, Party::Server].map(workload).to_vec();
    for number in 0..more {
        let mut another = workload(Party::Client);
        another.id.name = format!("more-{number}").into();
        another.labels.insert("app", another.id.name.clone());
        another.addresses = vec![
            IpAddr::V4(Ipv4Addr::new(198, 18, 1 + number, 1)),
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number.into())),
        ];
        workloads.push(another);
    }
    Inventory { workloads, ..Inventory::default() }
}

fn workload(party: Party) -> Workload {
    Workload {
        id: WorkloadRef { namespace: NAMESPACE.into(), name: party.name().into() },
        labels: Labels::from_iter([("app", party.name())]),
        addresses: vec![party.address(false), party.address(true)],
        ports: Vec::new(),
        node: None,
        host_network: false,
    }
}

fn policy(subject: Party, ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> Policy {
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: NAMESPACE.into(),
        name: subject.name().into(),
    };
    Policy { ingress, egress, response: Some(RESPONSE), ..Policy::new(id, pod(subject)) }
}

fn pod(party: Party) -> WorkloadSelector {
    let values = [party.name().into()].into();
    let requirement = Requirement { key: "app".into(), operator: Operator::In(values) };
    WorkloadSelector {
        namespaces: NamespaceSelector::Named(NAMESPACE.into()),
        labels: Selector::from_iter([requirement]),
    }
}

fn outside() -> Peers {
    let networks = OUTSIDE.map(|network| Peer::Cidr {
        cidr: network.parse().expect("a network"),
        except: Vec::new(),
    });
    Peers::OneOf(networks.to_vec())
}

const fn port(protocol: Protocol, number: u16) -> Port {
    Port { protocol, port: PortMatch::Range(number, number) }
}

fn distinct(mut policies: Vec<Policy>) -> Vec<Policy> {
    for (number, policy) in policies.iter_mut().enumerate() {
        policy.id.name = format!("policy-{number}").into();
    }
    policies
}

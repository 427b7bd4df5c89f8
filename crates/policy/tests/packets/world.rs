//! A node with two pods. The server takes TCP 80, UDP 53 and pings, from the client and from
//! 203.0.113.0/24 and `2001:db8:ffff::/48`; the client takes nothing.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use flowgate_abi::{DropReason, Settings, endpoint::Endpoint, event::Hook};
use flowgate_conformance::frames::{Frame, tcp};
use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_pipeline::Verdict;
use flowgate_policy::{
    compile::Compiler,
    host::{HostRoom, HostTables},
    install::{Applied, EndpointAddress, InstallError, Installer},
    inventory::{Inventory, Node, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch, Ports,
        Protocol, Response, Rule, WorkloadSelector,
    },
    options::Options,
    outcome::{Flow, FlowProtocol},
    plan::Plan,
};

pub(crate) const CLIENT: u32 = 1;
pub(crate) const SERVER: u32 = 2;
/// The node's uplink.
pub(crate) const UPLINK: u32 = 3;
pub(crate) const NODE: [&str; 2] = ["198.51.100.1", "2001:db8:f::1"];
pub(crate) const OUTSIDE: [&str; 2] = ["203.0.113.7", "2001:db8:ffff::7"];

/// Ethernet address of the pod with this interface index.
pub(crate) fn mac(pod: u32) -> [u8; 6] {
    [2, 0, 0, 0, 0, pod as u8]
}

/// The pod's address of either family.
pub(crate) fn address(pod: u32, v6: bool) -> IpAddr {
    let text = if v6 { format!("2001:db8::{pod}") } else { format!("198.18.0.{pod}") };
    text.parse().unwrap()
}

pub(crate) struct World {
    pub(crate) installer: Installer<HostTables>,
    pub(crate) response: Response,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::answering(Response::Silence, u32::MAX)
    }

    /// A node whose pods tell whom they deny, so many a second.
    pub(crate) fn answering(response: Response, per_second: u32) -> Self {
        let Ok(mut installer) = Installer::adopt(tables(per_second));
        for pod in [CLIENT, SERVER] {
            installer.attach(workload(pod).id, place(pod)).unwrap();
        }
        let _ = installer.apply(&plan(&policies(response))).unwrap();
        Self { installer, response }
    }

    /// The pods on a node that is attached, too, with more policies.
    pub(crate) fn on_node(more: &[Policy]) -> Self {
        let Ok(mut installer) = Installer::adopt(tables(u32::MAX));
        for pod in [CLIENT, SERVER] {
            installer.attach(workload(pod).id, place(pod)).unwrap();
        }
        installer.attach(WorkloadRef::node("n1"), uplink()).unwrap();
        let mut world = Self { installer, response: Response::Silence };
        world.apply(more);
        world
    }

    /// Changes the policies of a world on a node.
    pub(crate) fn apply(&mut self, more: &[Policy]) {
        let _ = self.try_apply(more).unwrap();
    }

    pub(crate) fn try_apply(
        &mut self,
        more: &[Policy],
    ) -> Result<Applied, InstallError<Infallible>> {
        let node = Node {
            name: "n1".into(),
            labels: Labels::from_iter([("role", "edge")]),
            addresses: NODE.map(|address| address.parse().unwrap()).to_vec(),
        };
        let workloads = [CLIENT, SERVER].map(workload).to_vec();
        let inventory = Inventory { workloads, nodes: vec![node], ..Inventory::default() };
        let options = Options { local_node: Some("n1".into()), ..Options::default() };
        let policies = [policies(self.response), more.to_vec()].concat();
        let plan = Compiler::new(LocalAllocator::new()).compile(&inventory, &policies, &options);
        self.installer.apply(&Arc::new(plan.unwrap()))
    }

    /// What becomes of a frame at a pod.
    pub(crate) fn run(&self, pod: u32, hook: Hook, frame: &[u8]) -> Result<Verdict, DropReason> {
        match self.installer.store().run(frame, pod, hook).verdict {
            Verdict::Drop(reason) => Err(reason),
            verdict => Ok(verdict),
        }
    }

    /// Publishes a generation in which nobody opens anything to the server.
    pub(crate) fn close(&mut self) {
        let mut policies = policies(self.response);
        policies[0].ingress = Some(vec![]);
        let plan = plan(&policies);
        let _ = self.installer.apply(&plan).unwrap();
    }

    /// The answer to a frame that is dropped at a pod.
    pub(crate) fn answer(&self, pod: u32, hook: Hook, frame: &[u8]) -> Option<Vec<u8>> {
        let passed = self.installer.store().run(frame, pod, hook);
        assert!(matches!(passed.verdict, Verdict::Drop(_)), "{:?}", passed.verdict);
        assert_eq!(passed.frame, frame, "what is dropped stays as it is");
        passed.answer
    }

    /// What becomes of a frame that a pod sends.
    pub(crate) fn send(&self, pod: u32, frame: &[u8]) -> Result<(), DropReason> {
        self.run(pod, Hook::FromEndpoint, frame).map(|_| ())
    }

    /// What becomes of a frame that comes to a pod from elsewhere.
    pub(crate) fn receive(&self, pod: u32, frame: &[u8]) -> Result<(), DropReason> {
        self.run(pod, Hook::ToEndpoint, frame).map(|_| ())
    }
}

/// A packet from the client to the server.
pub(crate) fn request(protocol: FlowProtocol, v6: bool) -> Frame {
    between(address(CLIENT, v6), address(SERVER, v6), protocol)
}

pub(crate) fn between(source: IpAddr, destination: IpAddr, protocol: FlowProtocol) -> Frame {
    Frame::opening(Flow { source, destination, protocol }, 40_000).flags(tcp::SYN)
}

/// A packet's bytes, sent by the client's Ethernet address.
pub(crate) fn bytes(frame: Frame) -> Vec<u8> {
    let mut bytes = frame.bytes();
    bytes[6..12].copy_from_slice(&mac(CLIENT));
    bytes
}

fn plan(policies: &[Policy]) -> Arc<Plan> {
    let workloads = [CLIENT, SERVER].map(workload).to_vec();
    let inventory = Inventory { workloads, ..Inventory::default() };
    let mut compiler = Compiler::new(LocalAllocator::new());
    Arc::new(compiler.compile(&inventory, policies, &Options::default()).unwrap())
}

fn workload(pod: u32) -> Workload {
    let app = if pod == CLIENT { "client" } else { "server" };
    Workload {
        id: WorkloadRef { namespace: "default".into(), name: app.into() },
        labels: Labels::from_iter([("app", app)]),
        addresses: vec![address(pod, false), address(pod, true)],
        ports: vec![],
        node: None,
        host_network: false,
    }
}

fn place(pod: u32) -> EndpointAddress {
    let v4 = match address(pod, false) {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    };
    let v6 = match address(pod, true) {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    };
    EndpointAddress {
        ifindex: pod,
        v4,
        v6,
        mac: mac(pod),
        router_mac: [2, 0, 0, 0, 1, 0],
        flags: Endpoint::REDIRECT_PEER | Endpoint::CHECK_MAC,
    }
}

pub(crate) fn uplink() -> EndpointAddress {
    let [v4, v6] = NODE;
    EndpointAddress {
        ifindex: UPLINK,
        v4: v4.parse().ok(),
        v6: v6.parse().ok(),
        flags: Endpoint::NODE,
        ..EndpointAddress::default()
    }
}

fn policies(response: Response) -> Vec<Policy> {
    let select = |app: &str| WorkloadSelector {
        namespaces: NamespaceSelector::Named("default".into()),
        labels: Selector::match_label("app", app),
    };
    let id = |name: &str| PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: "default".into(),
        name: name.into(),
    };
    let port = |protocol, number: u16| Port { protocol, port: PortMatch::Range(number, number) };
    let outside = |text: &str| Peer::Cidr { cidr: text.parse().unwrap(), except: vec![] };
    let peers = Peers::OneOf(vec![
        Peer::Workloads(select("client")),
        outside("203.0.113.0/24"),
        outside("2001:db8:ffff::/48"),
    ]);
    let ports = Ports::of([port(Protocol::Tcp, 80), port(Protocol::Udp, 53)]);
    let server = Policy {
        ingress: Some(vec![Rule::allow(peers, ports)]),
        ..Policy::new(id("server"), select("server"))
    };
    let client = Policy { ingress: Some(vec![]), ..Policy::new(id("client"), select("client")) };
    [server, client].map(|policy| Policy { response: Some(response), ..policy }).into()
}

pub(crate) fn tables(answers_per_second: u32) -> HostTables {
    let settings = Settings {
        hash_seed: 7,
        flow4_mask: 63,
        flow6_mask: 63,
        endpoint_mask: 7,
        peers: 64,
        row_cells: 1024,
        decision_cells: 4096,
        decisions: 64,
        hz: 250,
        timeouts: flowgate_abi::Timeouts([60, 8000, 10, 60]),
        events_per_second: u32::MAX,
        fragment_timeout: 1250,
        mark: 1,
        flags: 0,
        fragment_mask: 0,
        answers_per_second,
        answer_mark: 2,
        reserved: 0,
    };
    let room = HostRoom { ipcache_nodes: 256, events: 64 };
    HostTables::new(settings, room)
}

//! A node as an end of its own: real sockets on the node, in its pods and outside, through the attached
//! programs.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.

#[allow(dead_code)] // shared with netns_restart.rs
mod pods;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use flowgate_datapath::{Datapath, EndpointSpec, HookKind};
use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_lab::{Answer, EchoServers, LabError, Node, Pod, probe};
use flowgate_policy::{
    compile::Compiler,
    inventory,
    model::{
        Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch, Ports, Protocol, Rule, Subject,
    },
    options::Options,
};

const PATIENCE: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_millis(400);
const NODE: [&str; 2] = ["198.51.100.1", "2001:db8:f::1"];
const OUTSIDE: [&str; 2] = ["203.0.113.7", "2001:db8:ffff::7"];

fn parsed(addresses: [&str; 2]) -> [IpAddr; 2] {
    addresses.map(|address| address.parse().expect("an address"))
}

fn of_nodes(ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> Policy {
    let kind = PolicyKind::FlowgateNodePolicy;
    let name = if ingress.is_some() { "ingress" } else { "egress" };
    let id = PolicyRef { kind, namespace: "".into(), name: name.into() };
    Policy { ingress, egress, ..Policy::new(id, Subject::Nodes(Selector::everything())) }
}

/// Who connects to a TCP port of whom is answered, by family.
type Way<'a> = (&'a str, &'a dyn Fn(SocketAddr, Duration) -> Result<Answer, LabError>);

fn reaches((who, connect): Way<'_>, to: [IpAddr; 2], port: u16, wanted: bool) {
    let patience = if wanted { PATIENCE } else { SILENCE };
    for address in to {
        let answer = connect(SocketAddr::new(address, port), patience).expect("a socket");
        assert_eq!(answer == Answer::Echoed, wanted, "{who} to {address} {port}: {answer:?}");
    }
}

/// A node with pods and a link to the outside.
struct Rig {
    datapath: Option<Datapath>,
    pods: Vec<Pod>,
    outside: Pod,
    _servers: [EchoServers; 3],
    _node: Node,
}

impl Rig {
    fn new(hook: HookKind) -> Option<Self> {
        if let Err(missing) = flowgate_lab::available() {
            println!("SKIPPED: {missing}");
            return None;
        }
        let mut node = Node::enter().expect("namespaces of its own");
        for address in parsed(NODE) {
            node.add_address(address).expect("an address");
        }
        let pods = pods::make(&mut node);
        let outside = node.add_pod("outside", &parsed(OUTSIDE)).expect("a link");
        let servers = [
            node.serve(&parsed(NODE), &[22, 23], &[]),
            pods[1].serve(&[80], &[]),
            outside.serve(&[80], &[]),
        ];
        let mut datapath = Datapath::builder().open().expect("opens");
        for (index, pod) in pods.iter().enumerate() {
            let spec = pods::endpoint(index, pod.host_interface(), pod.mac().0, hook);
            let _ = datapath.attach(&spec).expect("attaches");
        }
        let spec = EndpointSpec::node("n1", outside.host_interface()).hook(hook);
        let spec = parsed(NODE).into_iter().fold(spec, EndpointSpec::address);
        let _ = datapath.attach(&spec).expect("attaches");
        let _servers = servers.map(|servers| servers.expect("servers"));
        Some(Self { datapath: Some(datapath), pods, outside, _servers, _node: node })
    }

    fn apply(&mut self, policies: &[Policy]) {
        let node = inventory::Node {
            name: "n1".into(),
            labels: Labels::new(),
            addresses: parsed(NODE).to_vec(),
        };
        let inventory = inventory::Inventory { nodes: vec![node], ..pods::inventory() };
        let options = Options { local_node: Some("n1".into()), ..Options::default() };
        let plan = Compiler::new(LocalAllocator::new()).compile(&inventory, policies, &options);
        let plan = Arc::new(plan.expect("compiles"));
        let _ = self.datapath.as_mut().expect("open").apply(&plan).expect("fits");
    }

    /// What is opened to the node by its uplink and by a pod, and what the node opens outside: TCP 22,
    /// 23 and 80.
    fn node_is(&self, ssh: bool, telnet: bool, web: bool) {
        let node = parsed(NODE);
        let from_outside: Way<'_> = ("outside", &|to, patience| self.outside.tcp(to, patience));
        let from_pod: Way<'_> = ("pod", &|to, patience| self.pods[0].tcp(to, patience));
        for from in [from_outside, from_pod] {
            reaches(from, node, 22, ssh);
            reaches(from, node, 23, telnet);
        }
        reaches(("node", &probe::tcp), parsed(OUTSIDE), 80, web);
    }

    /// What isn't the node's, and what stays on it.
    fn others_pass(&self) {
        let server = pods::addresses(1);
        reaches(("outside", &|to, patience| self.outside.tcp(to, patience)), server, 80, true);
        let client: Way<'_> = ("pod", &|to, patience| self.pods[0].tcp(to, patience));
        reaches(client, parsed(OUTSIDE), 80, true);
        reaches(("node", &probe::tcp), server, 80, true);
    }
}

fn scene(hook: HookKind) {
    let Some(mut rig) = Rig::new(hook) else { return };
    let from_outside = |rig: &Rig, wanted| {
        reaches(("outside", &|to, wait| rig.outside.tcp(to, wait)), parsed(NODE), 22, wanted);
    };
    // Open before the first plan, and as long as no policy selects it.
    from_outside(&rig, true);
    rig.apply(&[]);
    rig.node_is(true, true, true);
    rig.others_pass();

    let ssh = Ports::of([Port { protocol: Protocol::Tcp, port: PortMatch::Range(22, 22) }]);
    let ssh_only = of_nodes(Some(vec![Rule::allow(Peers::Any, ssh)]), None);
    rig.apply(std::slice::from_ref(&ssh_only));
    rig.node_is(true, false, true);
    rig.others_pass();

    let silent = of_nodes(None, Some(vec![]));
    rig.apply(&[ssh_only, silent]);
    rig.node_is(true, false, false);
    rig.others_pass();

    // A connection that a new plan revokes ends.
    let to = SocketAddr::new(parsed(NODE)[0], 22);
    let mut talk = rig.outside.talk(to, PATIENCE).expect("connects");
    assert_eq!(talk.line("before", PATIENCE).expect("a socket"), Answer::Echoed);
    rig.apply(&[of_nodes(Some(vec![]), None)]);
    assert_ne!(talk.line("after", SILENCE).expect("a socket"), Answer::Echoed);
    rig.node_is(false, false, true);
    rig.others_pass();

    // Dropped: nothing is left in the way.
    rig.datapath = None;
    rig.node_is(true, true, true);
}

#[test]
fn a_node_is_judged_at_its_uplink_by_tcx() {
    scene(HookKind::Tcx);
}

#[test]
fn a_node_is_judged_at_its_uplink_by_clsact() {
    scene(HookKind::Clsact);
}

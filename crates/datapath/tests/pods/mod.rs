//! Three pods on a node, as a datapath sees them: who they are, and plans about them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use flowgate_datapath::{EndpointSpec, HookKind};
use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_lab::{Node, Pod};
use flowgate_policy::{
    compile::Compiler,
    inventory::{Inventory, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Ports, Response, Rule,
        WorkloadSelector,
    },
    options,
    plan::Plan,
};

/// The pods; each is labelled with its name.
pub(crate) const PODS: [&str; 3] = ["client", "server", "stranger"];

pub(crate) fn addresses(index: usize) -> [IpAddr; 2] {
    [format!("198.18.1.{}", index + 1), format!("2001:db8:1::{}", index + 1)]
        .map(|text| text.parse().expect("an address"))
}

pub(crate) fn name(pod: &str) -> WorkloadRef {
    WorkloadRef { namespace: "default".into(), name: pod.into() }
}

/// Adds the pods to a node.
pub(crate) fn make(node: &mut Node) -> Vec<Pod> {
    let pods = PODS.iter().enumerate();
    pods.map(|(index, pod)| node.add_pod(pod, &addresses(index)).expect("a pod")).collect()
}

/// The endpoint of a pod by its number.
pub(crate) fn endpoint(
    index: usize,
    interface: &str,
    mac: [u8; 6],
    hook: HookKind,
) -> EndpointSpec {
    let spec = EndpointSpec::new(name(PODS[index]), interface).mac(mac).hook(hook);
    addresses(index).into_iter().fold(spec, EndpointSpec::address)
}

/// A port of a pod.
pub(crate) fn socket(pod: &Pod, family: usize, port: u16) -> SocketAddr {
    SocketAddr::new(pod.addresses()[family], port)
}

pub(crate) fn inventory() -> Inventory {
    let workloads = PODS.iter().enumerate().map(|(index, pod)| Workload {
        id: name(pod),
        labels: Labels::from_iter([("app", *pod)]),
        addresses: addresses(index).to_vec(),
        ports: vec![],
        node: None,
        host_network: false,
    });
    Inventory { workloads: workloads.collect(), ..Inventory::default() }
}

fn select(app: &str) -> WorkloadSelector {
    WorkloadSelector {
        namespaces: NamespaceSelector::Named("default".into()),
        labels: Selector::match_label("app", app),
    }
}

fn policy(name: &str, subject: &str, from: Vec<Peer>) -> Policy {
    let namespace = "default".into();
    let id = PolicyRef { kind: PolicyKind::NetworkPolicy, namespace, name: name.into() };
    Policy {
        ingress: Some(vec![Rule::allow(Peers::OneOf(from), Ports::Any)]),
        ..Policy::new(id, select(subject))
    }
}

fn compile(compiler: &mut Compiler<LocalAllocator>, policies: &[Policy]) -> Arc<Plan> {
    let plan = compiler.compile(&inventory(), policies, &options::Options::default());
    Arc::new(plan.expect("compiles"))
}

/// Only pods labelled `app=allowed` reach the server.
pub(crate) fn plan(compiler: &mut Compiler<LocalAllocator>, allowed: &str) -> Arc<Plan> {
    compile(compiler, &[policy("who-may", "server", vec![Peer::Workloads(select(allowed))])])
}

/// Likewise, and what is established lives on.
pub(crate) fn keeping_plan(compiler: &mut Compiler<LocalAllocator>, allowed: &str) -> Arc<Plan> {
    let plan = plan(compiler, allowed);
    Arc::new(Plan { keep_established: true, ..Plan::clone(&plan) })
}

/// Everybody reaches everybody.
pub(crate) fn open(compiler: &mut Compiler<LocalAllocator>) -> Arc<Plan> {
    compile(compiler, &[])
}

/// Nobody reaches the server, and the client reaches nobody; whoever tries gets this.
pub(crate) fn closed(response: Response) -> Arc<Plan> {
    let told = |policy| Policy { response: Some(response), ..policy };
    let server = policy("takes-nothing", "server", vec![]);
    let mut client = policy("asks-nobody", "client", vec![]);
    client.egress = client.ingress.take();
    compile(&mut Compiler::new(LocalAllocator::new()), &[told(server), told(client)])
}

/// The client reaches the server by everything, the stranger by these ports.
pub(crate) fn open_to_both(stranger: &Ports) -> Arc<Plan> {
    let [client, other] = ["client", "stranger"].map(|app| Peer::Workloads(select(app)));
    let second = Rule::allow(Peers::OneOf(vec![other]), stranger.clone());
    let mut policy = policy("who-may", "server", vec![client]);
    policy.ingress.as_mut().expect("isolated").push(second);
    compile(&mut Compiler::new(LocalAllocator::new()), &[policy])
}

/// The client reaches the server and gets answers, nobody else reaches either: in every second
/// variant by other rules, which tell other peers apart.
pub(crate) fn variant(number: usize) -> Arc<Plan> {
    let mut policies = vec![
        policy("who-may", "server", vec![Peer::Workloads(select("client"))]),
        policy("answers-alone", "client", vec![]),
    ];
    if number % 2 == 1 {
        let text = |text: &str| text.parse().expect("a network");
        let cidr = Peer::Cidr { cidr: text("198.18.0.0/15"), except: vec![text("198.18.1.0/30")] };
        policies.push(policy("elsewhere", "server", vec![cidr]));
    }
    compile(&mut Compiler::new(LocalAllocator::new()), &policies)
}

//! Six pods on two nodes, and what policies say of flows between them and the world: the oracle and
//! a compiled plan are asked, and must agree.

use std::net::IpAddr;

use flowgate_identity::LocalAllocator;
use flowgate_kubernetes::Manifests;
use flowgate_policy::{
    compile::Compiler,
    options::Options,
    oracle,
    outcome::{Flow, FlowProtocol, Outcome, Side},
    plan::Plan,
};

const PODS: [(&str, &str, &str); 6] = [
    ("shop", "web", "198.18.0.1"),
    ("shop", "cart", "198.18.0.2"),
    ("shop", "db", "198.18.0.3"),
    ("ops", "web", "198.18.0.4"),
    ("ops", "cart", "198.18.0.5"),
    ("ops", "db", "198.18.0.6"),
];
const NODES: [(&str, &str, &str); 2] =
    [("node-a", "a", "198.18.255.1"), ("node-b", "b", "198.18.255.2")];

pub(crate) struct World {
    manifests: Manifests,
    options: Options,
    plan: Plan,
}

impl World {
    pub(crate) fn with(documents: &[String]) -> Self {
        let mut text = String::from(
            "---\n{apiVersion: v1, kind: Namespace, metadata: {name: ops, labels: {team: ops}}}\n",
        );
        for (namespace, name, address) in PODS {
            text += &format!(
                "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, \
                 labels: {{app: {name}}}}}, spec: {{nodeName: node-a, containers: [{{ports: \
                 [{{name: http, containerPort: 8080}}]}}]}}, status: {{podIP: {address}}}}}\n"
            );
        }
        for (name, rack, address) in NODES {
            text += &format!(
                "---\n{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {{rack: \
                 {rack}}}}}, status: {{addresses: [{{type: InternalIP, address: {address}}}]}}}}\n"
            );
        }
        for document in documents {
            text += &format!("---\n{document}");
        }
        let mut manifests = Manifests::default();
        manifests.read("world.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let options = Options { local_node: Some("node-a".into()), ..Options::default() };
        let mut compiler = Compiler::new(LocalAllocator::new());
        let plan = compiler.compile(&manifests.inventory, &manifests.policies, &options).unwrap();
        Self { manifests, options, plan }
    }

    /// What the one end that policies judge says of flows: `tcp 80` and `default-deny`, say.
    pub(crate) fn check(&self, ends: &str, expected: &[(&str, &str)]) {
        let (source, destination) = ends.split_once(" -> ").expect("an arrow");
        let (source, destination) = (address(source), address(destination));
        for (service, verdict) in expected {
            let flow = Flow { source, destination, protocol: protocol(service) };
            let Manifests { inventory, policies, .. } = &self.manifests;
            let outcome = oracle::decide(inventory, policies, &self.options, &flow);
            assert_eq!(self.plan.decide(&flow), outcome, "{ends} {service}");
            assert_eq!(&summary(&outcome), verdict, "{ends} {service}");
        }
    }
}

fn address(end: &str) -> IpAddr {
    let pod = PODS.iter().find(|(namespace, name, _)| end == format!("{namespace}/{name}"));
    let node = NODES.iter().find(|(name, ..)| end == *name);
    let known = pod.or(node).map(|(.., address)| *address);
    known.unwrap_or(end).parse().expect("a pod, a node or an address")
}

fn protocol(service: &str) -> FlowProtocol {
    let (protocol, number) = service.split_once(' ').expect("protocol and number");
    let number: u16 = number.parse().unwrap();
    let byte = u8::try_from(number).unwrap_or_default();
    match protocol {
        "tcp" => FlowProtocol::Tcp(number),
        "udp" => FlowProtocol::Udp(number),
        "sctp" => FlowProtocol::Sctp(number),
        "icmp" => FlowProtocol::Icmp { icmp_type: byte },
        "icmp6" => FlowProtocol::Icmp6 { icmp_type: byte },
        _ => FlowProtocol::Other(byte),
    }
}

/// The end with an opinion; a default allowance is none if the other end has one.
fn summary(outcome: &Outcome) -> String {
    let sides = [&outcome.egress, &outcome.ingress].map(side);
    let quiet = |side: &String| side.is_empty() || side == "default-allow";
    let loud = sides.iter().find(|side| !quiet(side));
    loud.cloned().unwrap_or_else(|| "default-allow".into())
}

fn side(side: &Side) -> String {
    let verdict = side.verdict().map(|verdict| verdict.to_string()).unwrap_or_default();
    match side.staged() {
        Some(staged) => format!("{verdict}, staged {staged}"),
        None => verdict,
    }
}

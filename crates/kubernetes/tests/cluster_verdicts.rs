//! What policies of the cluster come to where pods meet nodes and the world: manifests and a flow,
//! asked of the oracle and of a compiled plan. Between pods the scenarios of flowgate-conformance ask.

use flowgate_identity::LocalAllocator;
use flowgate_kubernetes::Manifests;
use flowgate_policy::{
    compile::Compiler,
    options::Options,
    oracle,
    outcome::{Flow, FlowProtocol, Outcome, Side, SideVerdict},
};

/// A pod on a node, a host-network pod on another one, and that other node.
const WORLD: &str = "
{kind: Pod, apiVersion: v1, metadata: {name: web, namespace: shop},
 spec: {nodeName: near, containers: [{ports: [{name: http, containerPort: 80}]}]},
 status: {podIP: 198.18.0.1}}
---
{kind: Pod, apiVersion: v1, metadata: {name: agent, namespace: shop},
 spec: {nodeName: far, hostNetwork: true}, status: {podIP: 198.51.100.2}}
---
{kind: Node, apiVersion: v1, metadata: {name: near, labels: {zone: a}},
 status: {addresses: [{type: InternalIP, address: 198.51.100.1}]}}
---
{kind: Node, apiVersion: v1, metadata: {name: far, labels: {zone: b}},
 status: {addresses: [{type: InternalIP, address: 198.51.100.2}]}}
---
";

const WEB: &str = "198.18.0.1";
const NEAR: &str = "198.51.100.1";
const FAR: &str = "198.51.100.2";
const OUTSIDE: &str = "203.0.113.1";

const EVERYBODY: &str = "subject: {namespaces: {}}";

fn cluster(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, \
         metadata: {{name: {name}}}, spec: {{{spec}}}}}\n---\n"
    )
}

fn outcome(policies: &str, source: &str, destination: &str, protocol: FlowProtocol) -> Outcome {
    let mut manifests = Manifests::default();
    manifests.read("f.yaml", &format!("{WORLD}{policies}")).unwrap();
    let Manifests { inventory, policies, .. } = manifests;
    let flow = Flow {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol,
    };
    let options = Options::default();
    let expected = oracle::decide(&inventory, &policies, &options, &flow);
    let mut compiler = Compiler::new(LocalAllocator::new());
    let plan = compiler.compile(&inventory, &policies, &options).unwrap();
    assert_eq!(plan.decide(&flow), expected, "{flow}");
    expected
}

/// What the pod says of a TCP flow to port 80 that it opens.
fn egress(policies: &str, destination: &str) -> SideVerdict {
    outcome(policies, WEB, destination, FlowProtocol::Tcp(80)).egress.verdict().unwrap()
}

/// What the pod says of a TCP flow to port 80 that is opened to it.
fn ingress(policies: &str, source: &str) -> SideVerdict {
    outcome(policies, source, WEB, FlowProtocol::Tcp(80)).ingress.verdict().unwrap()
}

#[test]
fn nodes_are_found_by_their_labels() {
    let rule = "egress: [{action: Deny, to: [{nodes: {matchLabels: {zone: b}}}]}]";
    let policy = cluster("a", &format!("tier: Admin, priority: 1, {EVERYBODY}, {rule}"));
    assert_eq!(egress(&policy, FAR), SideVerdict::Deny);
    assert_eq!(egress(&policy, NEAR), SideVerdict::DefaultAllow);
    assert_eq!(egress(&policy, OUTSIDE), SideVerdict::DefaultAllow);
}

#[test]
fn the_older_kinds_know_nodes_and_networks() {
    let policy = "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: BaselineAdminNetworkPolicy, \
                  metadata: {name: default}, spec: {subject: {namespaces: {}}, egress: [\
                  {action: Allow, to: [{nodes: {}}]}, \
                  {action: Deny, to: [{networks: [0.0.0.0/0]}]}]}}\n---\n";
    assert_eq!(egress(policy, FAR), SideVerdict::Allow);
    assert_eq!(egress(policy, OUTSIDE), SideVerdict::Deny);
    let admin = policy.replace("BaselineAdmin", "Admin").replace("spec: {", "spec: {priority: 3, ");
    assert_eq!(egress(&admin, FAR), SideVerdict::Allow);
    assert_eq!(egress(&admin, OUTSIDE), SideVerdict::Deny);
}

/// As a subject and as a peer; what a host-network pod opens comes from its node.
#[test]
fn host_network_pods_are_never_selected() {
    let rule = "ingress: [{action: Deny, from: [{namespaces: {}}]}]";
    let policy = cluster("a", &format!("tier: Admin, priority: 1, {EVERYBODY}, {rule}"));
    assert_eq!(ingress(&policy, FAR), SideVerdict::DefaultAllow);
    assert_eq!(ingress(&policy, WEB), SideVerdict::Deny);
    let to_agent = outcome(&policy, WEB, FAR, FlowProtocol::Tcp(80));
    assert_eq!(to_agent.ingress, Side::NotAnEndpoint);
}

#[test]
fn a_node_reaches_its_pods_even_past_the_admin_tier() {
    let rule = "ingress: [{action: Deny, from: [{namespaces: {}}]}]";
    let policy = cluster("a", &format!("tier: Admin, priority: 1, {EVERYBODY}, {rule}"));
    assert_eq!(ingress(&policy, NEAR), SideVerdict::Allow);
}

#[test]
fn networks_match_the_world_and_every_protocol() {
    let rule = "egress: [{action: Deny, to: [{networks: [203.0.113.0/24]}]}]";
    let policy = cluster("a", &format!("tier: Admin, priority: 1, {EVERYBODY}, {rule}"));
    let ping = FlowProtocol::Icmp { icmp_type: 8 };
    for protocol in [FlowProtocol::Tcp(80), FlowProtocol::Udp(53), ping, FlowProtocol::Other(47)] {
        let verdict = outcome(&policy, WEB, OUTSIDE, protocol).egress.verdict();
        assert_eq!(verdict, Some(SideVerdict::Deny), "{protocol}");
    }
    assert_eq!(egress(&policy, "203.0.112.1"), SideVerdict::DefaultAllow);
}

/// So an accept opens nothing, and what is behind it decides.
#[test]
fn domain_names_match_nothing() {
    let rules = "egress: [{action: Accept, to: [{domainNames: ['*.example.com']}]}, \
                 {action: Deny, to: [{networks: [0.0.0.0/0]}]}]";
    let policy = cluster("a", &format!("tier: Admin, priority: 1, {EVERYBODY}, {rules}"));
    assert_eq!(egress(&policy, OUTSIDE), SideVerdict::Deny);
}

#[test]
fn a_name_that_nobody_declares_matches_nothing() {
    let rule = |name| {
        format!(
            "ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], \
             protocols: [{{destinationNamedPort: {name}}}]}}]"
        )
    };
    let policy =
        |name| cluster("a", &format!("tier: Admin, priority: 1, {EVERYBODY}, {}", rule(name)));
    assert_eq!(ingress(&policy("http"), WEB), SideVerdict::Deny);
    assert_eq!(ingress(&policy("https"), WEB), SideVerdict::DefaultAllow);
}

#[test]
fn at_one_priority_the_first_by_kind_and_name_counts() {
    let of = |name, action| {
        let rule = format!("egress: [{{action: {action}, to: [{{networks: [0.0.0.0/0]}}]}}]");
        cluster(name, &format!("tier: Admin, priority: 9, {EVERYBODY}, {rule}"))
    };
    let deny_first = of("b", "Accept") + &of("a", "Deny");
    let accept_first = of("b", "Deny") + &of("a", "Accept");
    assert_eq!(egress(&deny_first, OUTSIDE), SideVerdict::Deny);
    assert_eq!(egress(&accept_first, OUTSIDE), SideVerdict::Allow);
}

#[test]
fn a_flow_to_oneself_is_judged() {
    let rule = "egress: [{action: Deny, to: [{namespaces: {}}]}]";
    let policy = cluster("a", &format!("tier: Admin, priority: 1, {EVERYBODY}, {rule}"));
    assert_eq!(egress(&policy, WEB), SideVerdict::Deny);
}

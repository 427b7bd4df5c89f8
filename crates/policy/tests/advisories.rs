//! One case for each advisory of another policy engine that a compiler could repeat. Every verdict
//! is the plan's and the oracle's. Which advisories there are, and what holds for the others,
//! `docs/advisories.md` says.

use std::net::IpAddr;

use flowgate_identity::{Labels, LocalAllocator, Operator, Requirement, Selector};
use flowgate_policy::{
    compile::Compiler,
    inventory::{DeclaredPort, Inventory, NAMESPACE_NAME_LABEL, Node, Workload, WorkloadRef},
    model::{
        Entity, NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch,
        Ports, Protocol, Rule, Tier, WorkloadSelector,
    },
    options::Options,
    oracle,
    outcome::{Flow, FlowProtocol, SideVerdict},
};

const SERVER: &str = "198.18.0.1";
const NEIGHBOUR: &str = "198.18.0.2";
const STRANGER: &str = "198.18.1.1";
const CRAFTED: &str = "198.18.1.2";
const NODE: &str = "198.51.100.1";
const WORLD: &str = "203.0.113.7";
const HTTP: FlowProtocol = FlowProtocol::Tcp(80);

fn pod(namespace: &str, name: &str, labels: &[(&str, &str)], address: &str) -> Workload {
    Workload {
        id: WorkloadRef { namespace: namespace.into(), name: name.into() },
        labels: labels.iter().copied().collect(),
        addresses: vec![address.parse().unwrap()],
        ports: vec![DeclaredPort { name: None, protocol: Protocol::Tcp, port: 80 }],
        node: None,
        host_network: false,
    }
}

/// Namespace `prod` (team blue) with a server and its neighbour, namespace `dev` (team red) with a
/// stranger and a pod whose labels imitate namespace `prod`, and a node labelled like the server.
fn inventory() -> Inventory {
    let imitation = [("app", "server"), ("team", "blue"), (NAMESPACE_NAME_LABEL, "prod")];
    Inventory {
        namespaces: [
            ("prod".into(), Labels::from_iter([("team", "blue")])),
            ("dev".into(), Labels::from_iter([("team", "red")])),
        ]
        .into(),
        workloads: vec![
            pod("prod", "server", &[("app", "server")], SERVER),
            pod("prod", "neighbour", &[("app", "client")], NEIGHBOUR),
            pod("dev", "stranger", &[("app", "client")], STRANGER),
            pod("dev", "crafted", &imitation, CRAFTED),
        ],
        nodes: vec![Node {
            name: "node".into(),
            labels: imitation.into_iter().collect(),
            addresses: vec![NODE.parse().unwrap()],
        }],
    }
}

/// A policy of namespace `prod` for its server.
fn policy(ingress: Vec<Rule>) -> Policy {
    policy_for(Selector::match_label("app", "server"), ingress)
}

fn policy_for(labels: Selector, ingress: Vec<Rule>) -> Policy {
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: "prod".into(),
        name: "policy".into(),
    };
    let namespaces = NamespaceSelector::Named("prod".into());
    let subject = WorkloadSelector { namespaces, labels };
    Policy { ingress: Some(ingress), ..Policy::new(id, subject) }
}

fn from(peers: Vec<Peer>) -> Rule {
    Rule::allow(Peers::OneOf(peers), Ports::Any)
}

fn to_ports(ports: Vec<(Protocol, PortMatch)>) -> Rule {
    let ports = ports.into_iter().map(|(protocol, port)| Port { protocol, port });
    Rule::allow(Peers::Any, Ports::of(ports))
}

fn pods(namespaces: NamespaceSelector, labels: Selector) -> Peer {
    Peer::Workloads(WorkloadSelector { namespaces, labels })
}

fn own_pods(labels: Selector) -> Peer {
    pods(NamespaceSelector::Named("prod".into()), labels)
}

fn cidr(cidr: &str, except: &[&str]) -> Peer {
    let except = except.iter().map(|except| except.parse().unwrap()).collect();
    Peer::Cidr { cidr: cidr.parse().unwrap(), except }
}

/// What the destination says.
fn verdict(
    inventory: &Inventory,
    policies: &[Policy],
    (source, destination): (&str, &str),
    protocol: FlowProtocol,
) -> SideVerdict {
    let parse = |address: &str| address.parse::<IpAddr>().unwrap();
    let flow = Flow { source: parse(source), destination: parse(destination), protocol };
    let options = Options::default();
    let plan = Compiler::new(LocalAllocator::new()).compile(inventory, policies, &options).unwrap();
    let outcome = plan.decide(&flow);
    assert_eq!(outcome, oracle::decide(inventory, policies, &options, &flow), "{flow}");
    outcome.ingress.verdict().unwrap()
}

/// Who reaches the server by HTTP.
fn reach(policies: &[Policy]) -> Vec<&'static str> {
    let sources = [NEIGHBOUR, STRANGER, CRAFTED, NODE, WORLD];
    let allowed = |source: &&str| {
        verdict(&inventory(), policies, (source, SERVER), HTTP) == SideVerdict::Allow
    };
    sources.into_iter().filter(allowed).collect()
}

#[test]
fn ghsa_c66w_hq56_4q97_icmp_never_matches_a_port_rule() {
    use Protocol::{Sctp, Tcp, Udp};
    let whole = [Tcp, Udp, Sctp].map(|protocol| (protocol, PortMatch::All));
    let zero = [Tcp, Udp, Sctp].map(|protocol| (protocol, PortMatch::Range(0, 0)));
    // The ICMP types and protocol numbers below, as if they were ports.
    let alike = [Tcp, Udp, Sctp].map(|protocol| (protocol, PortMatch::Range(0, 0x2ff)));
    let portless = [
        FlowProtocol::Icmp { icmp_type: 8 },
        FlowProtocol::Icmp { icmp_type: 0 },
        FlowProtocol::Icmp6 { icmp_type: 128 },
        FlowProtocol::Other(47),
        FlowProtocol::Other(0),
    ];
    for ports in [whole, zero, alike] {
        let policies = [policy(vec![to_ports(ports.to_vec())])];
        for protocol in portless {
            let verdict = verdict(&inventory(), &policies, (WORLD, SERVER), protocol);
            assert_eq!(verdict, SideVerdict::DefaultDeny, "{protocol} on {ports:?}");
        }
    }
    let any = [policy(vec![Rule::allow(Peers::Any, Ports::Any)])];
    for protocol in portless {
        assert_eq!(verdict(&inventory(), &any, (WORLD, SERVER), protocol), SideVerdict::Allow);
    }
}

#[test]
fn ghsa_pfhr_pccp_hwmh_a_pod_labelled_like_a_namespace_stays_outside() {
    for (key, value) in [("team", "blue"), (NAMESPACE_NAME_LABEL, "prod")] {
        let namespaces = NamespaceSelector::Matching(Selector::match_label(key, value));
        let rule = from(vec![pods(namespaces, Selector::everything())]);
        assert_eq!(reach(&[policy(vec![rule])]), [NEIGHBOUR], "{key}={value}");
    }
    let labels = Selector::match_label("team", "blue");
    let every = NamespaceSelector::Matching(Selector::everything());
    assert_eq!(reach(&[policy(vec![from(vec![pods(every, labels)])])]), [CRAFTED]);
}

#[test]
fn cve_2023_39347_a_pod_cannot_label_itself_out_of_its_policy() {
    let mut inventory = inventory();
    let server = &mut inventory.workloads[0];
    server.labels.insert(NAMESPACE_NAME_LABEL, "dev");
    server.labels.insert("namespace", "dev");
    let policies = [policy_for(Selector::everything(), vec![])];
    let verdict = verdict(&inventory, &policies, (NEIGHBOUR, SERVER), HTTP);
    assert_eq!(verdict, SideVerdict::DefaultDeny);
}

#[test]
fn cve_2023_41333_does_not_exist_never_widens_the_namespace() {
    for key in [NAMESPACE_NAME_LABEL, "namespace", "io.kubernetes.pod.namespace", "team"] {
        let lacking =
            Selector::new(vec![Requirement { key: key.into(), operator: Operator::DoesNotExist }]);
        let policies = [policy_for(lacking.clone(), vec![from(vec![own_pods(lacking)])])];
        assert_eq!(reach(&policies), [NEIGHBOUR], "{key}");
        let elsewhere = verdict(&inventory(), &policies, (NEIGHBOUR, STRANGER), HTTP);
        assert_eq!(elsewhere, SideVerdict::DefaultAllow, "{key}");
    }
}

#[test]
fn cve_2024_52529_a_range_beside_an_exact_port_shadows_nothing() {
    let exact = from(vec![own_pods(Selector::everything())]);
    let exact =
        Rule { ports: to_ports(vec![(Protocol::Tcp, PortMatch::Range(80, 80))]).ports, ..exact };
    let range = from(vec![cidr("203.0.113.0/24", &[])]);
    let range =
        Rule { ports: to_ports(vec![(Protocol::Tcp, PortMatch::Range(79, 8080))]).ports, ..range };
    for rules in [vec![exact.clone(), range.clone()], vec![range, exact]] {
        let policies = [policy(rules)];
        let at = |source, port| {
            verdict(&inventory(), &policies, (source, SERVER), FlowProtocol::Tcp(port)).allowed()
        };
        assert_eq!([79, 80, 81].map(|port| at(NEIGHBOUR, port)), [false, true, false]);
        assert_eq!(
            [78, 79, 80, 8080, 8081].map(|p| at(WORLD, p)),
            [false, true, true, true, false]
        );
    }
}

#[test]
fn cve_2024_47825_a_longer_prefix_never_overrides_what_a_shorter_one_says() {
    let wide = || cidr("203.0.113.0/24", &["203.0.113.0/28"]);
    let within_exception = || cidr("203.0.113.7/32", &[]);
    assert_eq!(reach(&[policy(vec![from(vec![wide()])])]), [] as [&str; 0]);
    // Rules are a union: another item that allows the address allows it, in either order.
    assert_eq!(reach(&[policy(vec![from(vec![wide(), within_exception()])])]), [WORLD]);
    assert_eq!(reach(&[policy(vec![from(vec![within_exception(), wide()])])]), [WORLD]);
    // Naming the address elsewhere doesn't.
    let mut elsewhere =
        policy_for(Selector::match_label("app", "client"), vec![from(vec![within_exception()])]);
    elsewhere.id.name = "elsewhere".into();
    assert_eq!(reach(&[policy(vec![from(vec![wide()])]), elsewhere]), [] as [&str; 0]);
}

#[test]
fn cve_2024_47825_an_exception_holds_for_every_longer_network_inside_it() {
    let rule = from(vec![cidr("0.0.0.0/0", &["203.0.113.0/24"]), cidr("198.18.1.0/24", &[])]);
    let nested = from(vec![cidr("203.0.113.0/29", &["203.0.113.7/32"])]);
    assert_eq!(reach(&[policy(vec![rule.clone()])]), [NEIGHBOUR, STRANGER, CRAFTED, NODE]);
    assert_eq!(reach(&[policy(vec![nested, rule])]), [NEIGHBOUR, STRANGER, CRAFTED, NODE]);
}

fn to_tcp(peer: Peer, ports: PortMatch) -> (Peers, Ports) {
    (Peers::OneOf(vec![peer]), Ports::of([Port { protocol: Protocol::Tcp, port: ports }]))
}

#[test]
fn cve_2024_47825_a_wide_denial_holds_beside_a_narrow_allowance() {
    let wide = Rule::deny(Peers::OneOf(vec![cidr("203.0.113.0/24", &[])]), Ports::Any);
    let narrow = from(vec![cidr("203.0.113.7/32", &[])]);
    for rules in [vec![wide.clone(), narrow.clone()], vec![narrow.clone(), wide.clone()]] {
        assert_eq!(reach(&[policy(rules)]), [] as [&str; 0]);
    }
    // In policies of their own, whichever is named first.
    for (first, second) in [("a", "b"), ("b", "a")] {
        let mut policies = [policy(vec![wide.clone()]), policy(vec![narrow.clone()])];
        policies[0].id.name = first.into();
        policies[1].id.name = second.into();
        assert_eq!(reach(&policies), [] as [&str; 0]);
    }
}

#[test]
fn cve_2023_30851_a_wildcard_and_an_exact_rule_both_count() {
    let (peers, exact) = to_tcp(cidr("203.0.113.0/24", &[]), PortMatch::Range(80, 80));
    let everything = Rule::allow(Peers::Any, Ports::Any);
    let denied = Rule::deny(peers.clone(), exact.clone());
    for rules in [vec![everything.clone(), denied.clone()], vec![denied, everything]] {
        let policies = [policy(rules)];
        let at = |port| verdict(&inventory(), &policies, (WORLD, SERVER), FlowProtocol::Tcp(port));
        assert_eq!([79, 80, 81].map(|port| at(port).allowed()), [true, false, true]);
    }
    let nothing = Rule::deny(Peers::Any, Ports::Any);
    let allowed = Rule::allow(peers, exact);
    for rules in [vec![nothing.clone(), allowed.clone()], vec![allowed, nothing]] {
        assert_eq!(reach(&[policy(rules)]), [] as [&str; 0]);
    }
}

#[test]
fn cve_2026_25804_priorities_at_both_ends_of_their_range_keep_their_order() {
    let tiered = |priority: u16, rule: Rule| {
        let mut policy = policy(vec![rule]);
        // The names sort the other way round.
        policy.id.name = format!("{}", u16::MAX - priority).into();
        policy.id.kind = PolicyKind::ClusterNetworkPolicy;
        Policy { tier: Tier::Admin { priority }, ..policy }
    };
    let priorities = [0, 1, 255, 256, 999, 1000, 32_767, 32_768, u16::MAX];
    for pair in priorities.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        let (allow, deny) =
            (from(vec![cidr("203.0.113.0/24", &[])]), Rule::deny(Peers::Any, Ports::Any));
        let open = [tiered(second, deny.clone()), tiered(first, allow.clone())];
        assert_eq!(reach(&open), [WORLD], "{pair:?}");
        let closed = [tiered(first, deny), tiered(second, allow)];
        assert_eq!(reach(&closed), [] as [&str; 0], "{pair:?}");
    }
}

#[test]
fn cve_2023_27594_an_identity_is_the_addresss_whatever_its_family() {
    let mut inventory = inventory();
    let (node6, world6, server6) = ("2001:db8:ffff::1", "2001:db8:f::7", "2001:db8:1::1");
    inventory.nodes[0].addresses.push(node6.parse().unwrap());
    inventory.workloads[0].addresses.push(server6.parse().unwrap());
    for entity in [Entity::Host, Entity::RemoteNode, Entity::Cluster] {
        let policies = [policy(vec![from(vec![Peer::Entity(entity)])])];
        for (world, server) in [(WORLD, SERVER), (world6, server6)] {
            let verdict = verdict(&inventory, &policies, (world, server), HTTP);
            assert_eq!(verdict, SideVerdict::DefaultDeny, "{entity}");
        }
    }
    let policies = [policy(vec![from(vec![Peer::Entity(Entity::RemoteNode)])])];
    for (node, server) in [(NODE, SERVER), (node6, server6)] {
        assert!(verdict(&inventory, &policies, (node, server), HTTP).allowed());
    }
}

#[test]
fn cve_2024_42488_the_order_of_arrival_makes_no_difference() {
    let mut inventory = inventory();
    let mut second = policy(vec![from(vec![own_pods(Selector::everything())])]);
    second.id.name = "second".into();
    let mut policies = vec![policy(vec![]), second];
    for _ in 0..inventory.workloads.len() {
        inventory.workloads.rotate_left(1);
        policies.rotate_left(1);
        for (source, expected) in
            [(NEIGHBOUR, SideVerdict::Allow), (STRANGER, SideVerdict::DefaultDeny)]
        {
            assert_eq!(verdict(&inventory, &policies, (source, SERVER), HTTP), expected);
        }
    }
}

#[test]
fn cve_2025_30163_a_pod_selector_never_matches_a_node() {
    let every = || NamespaceSelector::Matching(Selector::everything());
    for labels in [Selector::everything(), Selector::match_label("app", "server")] {
        let rule = from(vec![pods(every(), labels), own_pods(Selector::everything())]);
        assert!(!reach(&[policy(vec![rule])]).contains(&NODE));
    }
    let mut inventory = inventory();
    inventory.workloads.push(Workload {
        host_network: true,
        node: Some("node".into()),
        ..pod("prod", "host", &[("app", "client")], NODE)
    });
    let policies = [policy(vec![from(vec![pods(every(), Selector::everything())])])];
    let verdict = verdict(&inventory, &policies, (NODE, SERVER), HTTP);
    assert_eq!(verdict, SideVerdict::DefaultDeny);
}

#[test]
fn cve_2025_30163_a_node_selector_never_matches_a_pod() {
    for labels in [Selector::everything(), Selector::match_label("app", "server")] {
        assert_eq!(reach(&[policy(vec![from(vec![Peer::Nodes(labels)])])]), [NODE]);
    }
}

#[test]
fn cve_2025_64715_an_empty_set_matches_nothing() {
    let nobody = || own_pods(Selector::match_label("app", "nobody"));
    let nowhere = NamespaceSelector::Matching(Selector::match_label("team", "nobody"));
    let unresolved = PortMatch::Named("unresolved".into());
    let empty_in = Operator::In([].into());
    let none = Selector::new(vec![Requirement { key: "app".into(), operator: empty_in }]);
    let rules = [
        from(vec![]),
        from(vec![nobody()]),
        from(vec![pods(nowhere, Selector::everything())]),
        from(vec![own_pods(none)]),
        from(vec![cidr("203.0.113.0/24", &["203.0.113.0/24"])]),
        to_ports(vec![]),
        to_ports(vec![(Protocol::Tcp, unresolved)]),
        to_ports(vec![(Protocol::Tcp, PortMatch::Range(81, 79))]),
    ];
    for rule in rules {
        assert_eq!(reach(&[policy(vec![rule.clone()])]), [] as [&str; 0], "{rule:?}");
    }
    assert_eq!(reach(&[policy(vec![])]), [] as [&str; 0]);
}

#[test]
fn cve_2026_56743_a_network_alone_selects_no_pod_by_label() {
    let rule = from(vec![cidr("203.0.113.0/24", &[])]);
    assert_eq!(reach(&[policy(vec![rule])]), [WORLD]);
}

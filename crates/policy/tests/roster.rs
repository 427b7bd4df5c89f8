//! A workload that joins between two compilations is decided about as in a plan compiled with it,
//! and costs the same number of writes whatever else there is.

use std::{net::IpAddr, slice, sync::Arc};

use flowgate_conformance::{
    generate::{Case, Generator},
    links::links_of_plan,
    mortal::Mortal,
};
use flowgate_identity::{Labels, LocalAllocator, Selector};
use flowgate_policy::{
    compile::Compiler,
    host::HostTables,
    install::{InstallError, Installer},
    inventory::{Inventory, Node, Workload, WorkloadRef},
    model::{
        NamespaceSelector, Peer, Peers, Policy, PolicyKind, PolicyRef, Ports, Rule, Subject,
        WorkloadSelector,
    },
    options::{EndpointScope, Options},
    outcome::{Flow, FlowProtocol},
    plan::Plan,
    roster::{Novelty, PlaceError, Roster},
    simulate::simulate,
};

fn compile(inventory: &Inventory, policies: &[Policy], options: &Options) -> Arc<Plan> {
    let mut compiler = Compiler::new(LocalAllocator::new());
    Arc::new(compiler.compile(inventory, policies, options).expect("a sound case"))
}

/// Tables with room for `widest`, in which all of its workloads are attached.
fn tables(widest: &Plan) -> Installer<Mortal<HostTables>> {
    let store = Mortal::new(HostTables::for_plan(widest));
    let mut installer = Installer::adopt(store).expect("host tables");
    for (workload, address) in links_of_plan(widest) {
        installer.attach(workload, address).expect("a free slot");
    }
    installer
}

/// A workload like one of the case's, near it; now and then with labels of its own.
fn twin(generator: &mut Generator, case: &Case) -> Option<Workload> {
    let own: Vec<&Workload> = case.inventory.workloads.iter().filter(|w| !w.host_network).collect();
    let model = own.get(usize::try_from(generator.below(own.len().max(1) as u64)).ok()?)?;
    let step = [1, 2, 7, 64, 129][usize::try_from(generator.below(5)).ok()?];
    let addresses = model.addresses.iter().map(|address| beside(*address, step)).collect();
    let id = WorkloadRef { namespace: model.id.namespace.clone(), name: "twin".into() };
    let mut twin = Workload { id, addresses, ..(*model).clone() };
    if generator.below(8) == 0 {
        twin.labels = Labels::from_iter([("app", "unheard-of")]);
    }
    let taken = |address: &IpAddr| {
        let nodes = case.inventory.nodes.iter().flat_map(|node| &node.addresses);
        let workloads = case.inventory.workloads.iter().flat_map(|one| &one.addresses);
        nodes.chain(workloads).any(|other| other == address)
    };
    (!twin.addresses.is_empty() && !twin.addresses.iter().any(taken)).then_some(twin)
}

fn beside(address: IpAddr, step: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => (u32::from(v4) ^ u32::from(step)).to_be_bytes().into(),
        IpAddr::V6(v6) => (u128::from(v6) ^ u128::from(step)).to_be_bytes().into(),
    }
}

#[test]
fn who_joins_is_decided_about_as_if_it_had_been_there() {
    let mut generator = Generator::new(77);
    let (mut joined, mut elsewhere, mut unknown, mut network) = (0, 0, 0, 0);
    for _ in 0..1000 {
        let mut case = generator.case();
        let options = generator.options(&case);
        let Some(last) = twin(&mut generator, &case) else { continue };
        let before = case.inventory.clone();
        case.inventory.workloads.push(last.clone());
        let with = compile(&case.inventory, &case.policies, &options);
        let plan = compile(&before, &case.policies, &options);
        let mut roster = Roster::new(&plan);
        let labels = case.inventory.namespace_labels(&last.id.namespace);
        let placement = match roster.add(&last, &labels) {
            Ok(placement) => placement,
            Err(PlaceError::Unknown { what: Novelty::Combination, .. }) => {
                unknown += 1;
                continue;
            }
            Err(PlaceError::Unknown { what: Novelty::Network(_), .. }) => {
                network += 1;
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        joined += 1;
        elsewhere += usize::from(placement.endpoint().egress == 0);
        let mut installer = tables(&with);
        let _ = installer.apply(&plan).expect("it fits");
        installer.add(&placement).expect("it fits");
        installer.settle().expect("host tables");
        let decided = |flow: &Flow| {
            simulate(installer.store().tables(), &plan, flow).expect("complete tables")
        };
        for _ in 0..100 {
            let flow = generator.flow(&case);
            // The hooks go by the link; the running plan can't tell on which node who has joined is.
            let source = with.endpoint(flow.source);
            let from_node = source.is_some_and(|source| source.workload.as_node().is_some());
            if !(from_node && last.addresses.contains(&flow.destination)) {
                assert_eq!(decided(&flow), with.decide(&flow), "{flow}\n{case:#?}");
            }
        }
        leave(&mut installer, &last, &plan, &mut generator, &case);
    }
    println!("{joined} joined, {elsewhere} of them elsewhere");
    println!("{unknown} of a new combination, {network} in a new network");
    assert!(joined > 100 && elsewhere > 20 && unknown > 50 && network > 10);
}

/// Afterwards it is as if nobody had been there.
fn leave(
    installer: &mut Installer<Mortal<HostTables>>,
    last: &Workload,
    plan: &Arc<Plan>,
    generator: &mut Generator,
    case: &Case,
) {
    let left = installer.remove(&last.id, &last.addresses).expect("host tables");
    assert_eq!(left, last.addresses.len());
    for _ in 0..20 {
        let flow = generator.flow(case);
        if [flow.source, flow.destination].iter().any(|end| last.addresses.contains(end)) {
            continue;
        }
        let decided = simulate(installer.store().tables(), plan, &flow).expect("complete tables");
        assert_eq!(decided, plan.decide(&flow), "{flow}");
    }
}

/// The subject of `policy(0)` on the plan's node, and its peer on another one.
fn on_two_nodes() -> [Workload; 2] {
    let on = |number: usize, node: &str| Workload { node: Some(node.into()), ..pod(number) };
    [on(1, "here"), on(7, "there")]
}

fn plan_for_here(workloads: &[Workload]) -> Arc<Plan> {
    let options = Options {
        local_node: Some("here".into()),
        endpoints: EndpointScope::LocalNode,
        ..Options::default()
    };
    let inventory = Inventory { workloads: workloads.to_vec(), ..Inventory::default() };
    compile(&inventory, &[policy(0)], &options)
}

#[test]
fn who_is_on_another_node_leaves_and_joins_as_a_peer() {
    let [subject, peer] = on_two_nodes();
    let plan = plan_for_here(&[subject.clone(), peer.clone()]);
    let mut installer = tables(&plan);
    let _ = installer.apply(&plan).expect("it fits");
    let flow = |from: &Workload| Flow {
        source: from.addresses[0],
        destination: subject.addresses[0],
        protocol: FlowProtocol::Tcp(80),
    };
    let decided = |installer: &Installer<Mortal<HostTables>>, from: &Workload| {
        simulate(installer.store().tables(), &plan, &flow(from)).expect("complete tables")
    };
    assert!(decided(&installer, &peer).allowed());
    let (mut roster, labels) =
        (Roster::new(&plan), Inventory::default().namespace_labels(&NAMESPACE.into()));
    let next = Workload { node: peer.node.clone(), ..pod(14) };
    let taken = Workload { addresses: peer.addresses.clone(), ..next.clone() };
    assert!(matches!(roster.add(&taken, &labels), Err(PlaceError::SharedAddress { .. })));

    assert!(roster.remove(&peer.id, &peer.addresses), "it is one of the plan's");
    assert!(!roster.remove(&peer.id, &peer.addresses), "it is gone");
    assert!(!roster.remove(&peer.id, &subject.addresses), "another's addresses");
    assert_eq!(installer.remove(&peer.id, &peer.addresses).expect("host tables"), 2);
    let without = plan_for_here(slice::from_ref(&subject)).decide(&flow(&peer));
    assert_eq!(decided(&installer, &peer), without);
    assert!(!without.allowed());

    let placement = roster.add(&next, &labels).expect("like the one that left");
    installer.add(&placement).expect("it fits");
    assert!(decided(&installer, &next).allowed());
}

#[test]
fn a_nodes_address_stays_the_nodes_also_if_policies_speak_of_it() {
    let node = Node {
        name: "here".into(),
        labels: Labels::new(),
        addresses: vec!["198.51.100.1".parse().expect("an address")],
    };
    let of_node = Policy {
        subject: Subject::Nodes(Selector::everything()),
        ..Policy::new(
            PolicyRef {
                kind: PolicyKind::FlowgateNodePolicy,
                namespace: "".into(),
                name: "node".into(),
            },
            select(0),
        )
    };
    let inventory = Inventory { nodes: vec![node.clone()], ..Inventory::default() };
    let plan = compile(&inventory, &[of_node], &Options::default());
    assert_eq!(plan.endpoints.len(), 1, "the node");
    let mut roster = Roster::new(&plan);
    roster.remove(&WorkloadRef::node("here"), &node.addresses);
    let labels = inventory.namespace_labels(&NAMESPACE.into());
    let taken = Workload { addresses: node.addresses, ..pod(1) };
    assert!(matches!(roster.add(&taken, &labels), Err(PlaceError::SharedAddress { .. })));
}

const NAMESPACE: &str = "shop";

fn pod(number: usize) -> Workload {
    let [.., high, low] = u32::try_from(number).expect("few").to_be_bytes();
    let address = IpAddr::from([198, 18, high, low]);
    let last = u16::try_from(number).expect("few");
    Workload {
        id: WorkloadRef { namespace: NAMESPACE.into(), name: format!("pod-{number}").into() },
        labels: Labels::from_iter([("app", format!("app-{}", number % 7).as_str())]),
        addresses: vec![address, IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last])],
        ports: vec![],
        node: None,
        host_network: false,
    }
}

fn policy(number: usize) -> Policy {
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: NAMESPACE.into(),
        name: format!("policy-{number}").into(),
    };
    let from = Peers::OneOf(vec![Peer::Workloads(select(number % 7))]);
    Policy {
        ingress: Some(vec![Rule::allow(from, Ports::Any)]),
        ..Policy::new(id, select((number + 1) % 7))
    }
}

fn select(app: usize) -> WorkloadSelector {
    WorkloadSelector {
        namespaces: NamespaceSelector::Named(NAMESPACE.into()),
        labels: Selector::match_label("app", format!("app-{app}")),
    }
}

/// Writes that a pod more costs beside others.
fn writes(pods: usize, policies: usize, local: bool) -> usize {
    let workloads = (1..=pods).map(pod).collect();
    let inventory = Inventory { workloads, ..Inventory::default() };
    let policies: Vec<Policy> = (0..policies).map(policy).collect();
    let plan = compile(&inventory, &policies, &Options::default());
    let with = {
        let mut more = inventory.clone();
        more.workloads.push(pod(pods + 1));
        compile(&more, &policies, &Options::default())
    };
    let mut installer = tables(if local { &with } else { &plan });
    let _ = installer.apply(&plan).expect("it fits");
    let labels = inventory.namespace_labels(&NAMESPACE.into());
    let placement = Roster::new(&plan).add(&pod(pods + 1), &labels).expect("known");
    let before = installer.store().writes();
    installer.add(&placement).expect("it fits");
    installer.store().writes() - before
}

#[test]
fn a_pod_more_costs_the_same_writes_beside_ten_and_beside_a_thousand() {
    for local in [false, true] {
        let (few, many) = (writes(20, 7, local), writes(1000, 700, local));
        println!("local {local}: {few} writes beside 20 pods, {many} beside 1000");
        assert_eq!(few, many);
        assert!(few < 20);
    }
}

#[test]
fn who_cant_be_placed_is_told_why() {
    let inventory = Inventory { workloads: vec![pod(1), pod(2)], ..Inventory::default() };
    let plan = compile(&inventory, &[], &Options::default());
    let mut roster = Roster::new(&plan);
    let labels = inventory.namespace_labels(&NAMESPACE.into());
    let same = Workload { addresses: vec!["198.18.9.9".parse().unwrap()], ..pod(1) };
    assert!(matches!(roster.add(&same, &labels), Err(PlaceError::Duplicate { .. })));
    let id = WorkloadRef { namespace: NAMESPACE.into(), name: "other".into() };
    let taken = Workload { id: id.clone(), ..pod(1) };
    assert!(matches!(roster.add(&taken, &labels), Err(PlaceError::SharedAddress { .. })));
    let nowhere = Workload { id: id.clone(), addresses: vec![], ..pod(1) };
    assert!(matches!(roster.add(&nowhere, &labels), Err(PlaceError::NoAddress { .. })));
    let other = Workload { id, labels: Labels::from_iter([("app", "new")]), ..same.clone() };
    let error = roster.add(&other, &labels).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the plan knows no workload like shop/other: its labels, its namespace, its named ports or \
         its node are new; compile a plan with it"
    );
    let relabelled = Labels::from_iter([("team", "red")]);
    let third = Workload { addresses: same.addresses.clone(), ..pod(3) };
    let third = Workload { labels: pod(1).labels, ..third };
    assert!(matches!(roster.add(&third, &relabelled), Err(PlaceError::Unknown { .. })));
    let placement = roster.add(&third, &labels).expect("like the first");
    // Gone again, its name and addresses are free.
    assert!(roster.remove(&third.id, &third.addresses));
    assert!(!roster.remove(&third.id, &third.addresses));
    roster.add(&third, &labels).expect("free again");
    // A placement is worth nothing beside another plan.
    let mut installer = tables(&plan);
    assert!(matches!(installer.add(&placement), Err(InstallError::OtherPlan)));
}

//! Workloads that join and leave the running generation, of combinations that it knows and of new ones.

use std::sync::Arc;

use flowgate_conformance::{
    frames::{Frame, tcp},
    generate::Case,
};
use flowgate_datapath::FlowEvent;
use flowgate_identity::{Labels, LocalAllocator};
use flowgate_policy::{
    compile::Compiler,
    extension::Extension,
    inventory::{Inventory, Workload, WorkloadRef},
    model::{Peer, Peers, Policy, PolicyRef, Ports, Rule},
    plan::Plan,
    roster::{Placement, Roster},
};

use crate::rig::{Rig, compile, connect, on_both, only_clients, passes, select, talk, to_endpoint};

fn id(name: &str) -> WorkloadRef {
    WorkloadRef { namespace: "default".into(), name: name.into() }
}

/// A workload like the client, with addresses of its own.
fn late(inventory: &Inventory) -> Workload {
    Workload {
        id: id("late"),
        addresses: ["198.18.0.3", "2001:db8::3"].map(|at| at.parse().expect("one")).to_vec(),
        ..inventory.workloads[0].clone()
    }
}

fn place(plan: &Arc<Plan>, inventory: &Inventory, workload: &Workload) -> Placement {
    let labels = inventory.namespace_labels(&workload.id.namespace);
    Roster::new(plan).add(workload, &labels).expect("like the client")
}

fn syn(source: &str, destination: &str, port: u16) -> Frame {
    Frame { source_port: port, ..talk(source, destination) }.flags(tcp::SYN)
}

#[test]
fn a_pod_elsewhere_joins_and_leaves_without_a_generation() {
    on_both(|mut rig, case, names| {
        let plan = compile(&mut Compiler::new(LocalAllocator::new()), &case);
        rig.apply(&plan);
        let late = late(&case.inventory);
        let ends = [("198.18.0.3", "198.18.0.2"), ("2001:db8::3", "2001:db8::2")];
        for (from, to) in ends {
            assert!(!to_endpoint(&mut rig, &names[1], syn(from, to, 1)), "{from} isn't known");
        }
        let generation = rig.datapath.generation();
        rig.datapath.add(&place(&plan, &case.inventory, &late)).expect("room");
        for (from, to) in ends {
            assert!(to_endpoint(&mut rig, &names[1], syn(from, to, 2)), "{from} is a client");
            assert!(passes(&mut rig, &names[1], syn(from, to, 2).answer()));
        }
        rig.datapath.sweep().expect("the program runs");
        for (from, to) in ends {
            assert!(to_endpoint(&mut rig, &names[1], syn(from, to, 2).flags(tcp::ACK)));
        }
        let left = rig.datapath.remove(&late.id, &late.addresses).expect("the tables");
        assert_eq!(left, 2);
        for (from, to) in ends {
            assert!(!to_endpoint(&mut rig, &names[1], syn(from, to, 3)), "{from} has left");
            let old = syn(from, to, 2).flags(tcp::ACK);
            assert!(!to_endpoint(&mut rig, &names[1], old), "its connection has ended");
        }
        rig.datapath.sweep().expect("the program runs");
        assert_eq!(rig.datapath.generation(), generation);
    });
}

#[test]
fn a_local_pod_is_closed_until_it_joins() {
    on_both(|mut rig, case, names| {
        let plan = compile(&mut Compiler::new(LocalAllocator::new()), &case);
        rig.apply(&plan);
        let late = late(&case.inventory);
        rig.attach(&late.id, &late.addresses);
        let hello = syn("198.18.0.3", "198.18.0.2", 7);
        assert!(!passes(&mut rig, &late.id, hello));
        rig.datapath.add(&place(&plan, &case.inventory, &late)).expect("room");
        assert!(passes(&mut rig, &late.id, hello));
        assert!(passes(&mut rig, &names[1], hello.answer()));
        rig.datapath.remove(&late.id, &late.addresses).expect("the tables");
        assert!(!passes(&mut rig, &late.id, syn("198.18.0.3", "198.18.0.2", 8)));
    });
}

/// The case with an admin whom nobody has met, and who alone may be reached by the client.
fn with_admin(case: &Case) -> (Case, Workload) {
    let mut after = case.clone();
    let admin = Workload {
        labels: Labels::from_iter([("app", "admin")]),
        ..Workload { id: id("admin"), ..late(&case.inventory) }
    };
    after.inventory.workloads.push(admin.clone());
    (after, admin)
}

/// The server may be reached by clients and admins, and an admin by clients.
fn policies() -> Vec<Policy> {
    let reach = |name: &str, from: &str, to: &str| {
        let rule = Rule::allow(Peers::OneOf(vec![Peer::Workloads(select(from))]), Ports::Any);
        let id = PolicyRef { name: name.into(), ..only_clients().id };
        Policy { ingress: Some(vec![rule]), ..Policy::new(id, select(to)) }
    };
    vec![only_clients(), reach("admins", "admin", "server"), reach("clients", "client", "admin")]
}

/// What becomes of new flows between all of these, in both families.
fn verdicts(rig: &mut Rig, ends: &[&Workload], port: u16) -> Vec<bool> {
    let pairs = ends.iter().flat_map(|from| ends.iter().map(move |to| (from, to)));
    let pairs = pairs.filter(|(from, to)| from.id != to.id);
    let flows = pairs.flat_map(|(from, to)| {
        let both = from.addresses.iter().zip(&to.addresses);
        both.map(|(source, destination)| {
            (from.id.clone(), source.to_string(), destination.to_string())
        })
    });
    flows.map(|(who, from, to)| passes(rig, &who, syn(&from, &to, port))).collect()
}

#[test]
fn a_pod_of_a_new_combination_joins_without_a_generation() {
    on_both(|mut rig, mut case, names| {
        case.policies = policies();
        let (after, admin) = with_admin(&case);
        let mut compiler = Compiler::new(LocalAllocator::new());
        let plan = compile(&mut compiler, &case);
        let next = compile(&mut compiler, &after);
        rig.apply(&plan);
        rig.attach(&admin.id, &admin.addresses);
        let old = talk("198.18.0.1", "198.18.0.2");
        connect(&mut rig, &names, old);
        let generation = rig.datapath.generation();
        let judged = rig.take_events().len();
        assert!(judged > 0, "the connection's beginning is told");

        let extension = Extension::of(&plan, &next).expect("nothing else differs");
        rig.datapath.extend(&extension).expect("room");
        rig.datapath.sweep().expect("the program runs");
        assert_eq!(rig.datapath.generation(), generation, "no flip");
        for (who, frame) in [(0, old), (1, old.answer())] {
            assert!(passes(&mut rig, &names[who], frame.flags(tcp::ACK)));
        }
        assert!(rig.take_events().is_empty(), "it isn't judged again");

        let [client, server] = [0, 1].map(|at| &case.inventory.workloads[at]);
        let ends = [client, server, &admin];
        let seen = verdicts(&mut rig, &ends, 5000);
        let events = told(&mut rig);
        rig.apply(&next);
        assert_eq!(seen, verdicts(&mut rig, &ends, 5001), "as of a generation of its own");
        assert_eq!(events, told(&mut rig), "and it is told alike");
        assert!(seen.contains(&true) && seen.contains(&false));
    });
}

/// What is told since, but for the numbers of ports and generation.
fn told(rig: &mut Rig) -> Vec<FlowEvent> {
    let mut events = rig.take_events();
    for event in &mut events {
        (event.generation, event.source.port) = (0, 0);
    }
    events
}

#[test]
fn a_pod_leaves_and_another_comes_by_one_extension() {
    on_both(|mut rig, mut case, names| {
        case.policies = policies();
        let (mut after, admin) = with_admin(&case);
        let client = after.inventory.workloads.remove(0);
        let mut compiler = Compiler::new(LocalAllocator::new());
        let plan = compile(&mut compiler, &case);
        let next = compile(&mut compiler, &after);
        rig.apply(&plan);
        connect(&mut rig, &names, talk("198.18.0.1", "198.18.0.2"));
        rig.attach(&admin.id, &admin.addresses);
        let extension = Extension::of(&plan, &next).expect("nothing else differs");
        rig.datapath.extend(&extension).expect("room");
        rig.datapath.sweep().expect("the program runs");
        let old = talk("198.18.0.1", "198.18.0.2").flags(tcp::ACK);
        assert!(!passes(&mut rig, &client.id, old), "it is closed");
        assert!(!to_endpoint(&mut rig, &names[1], old), "its connection has ended");
        assert!(passes(&mut rig, &admin.id, syn("198.18.0.3", "198.18.0.2", 9)));
        let again = Extension::of(&plan, &next).expect("as before");
        assert!(rig.datapath.extend(&again).is_err(), "another plan runs");
    });
}

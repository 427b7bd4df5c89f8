//! Workloads that join and leave the running generation.

use std::sync::Arc;

use flowgate_conformance::frames::{Frame, tcp};
use flowgate_identity::LocalAllocator;
use flowgate_policy::{
    compile::Compiler,
    inventory::{Inventory, Workload, WorkloadRef},
    plan::Plan,
    roster::{Placement, Roster},
};

use crate::rig::{compile, on_both, passes, talk, to_endpoint};

/// A workload like the client, with addresses of its own.
fn late(inventory: &Inventory) -> Workload {
    Workload {
        id: WorkloadRef { namespace: "default".into(), name: "late".into() },
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

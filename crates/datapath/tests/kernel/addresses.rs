//! Who may send from which address, and what speaks for an address.

use flowgate_conformance::{
    envelope,
    frames::{Frame, tcp},
};
use flowgate_datapath::{EndpointSpec, Stage};
use flowgate_identity::LocalAllocator;
use flowgate_policy::{
    compile::Compiler,
    inventory::WorkloadRef,
    outcome::{Flow, FlowProtocol},
};

use crate::rig::{compile, connect, on_both, passes, talk, to_endpoint};

#[test]
fn a_spoofed_source_is_dropped() {
    on_both(|mut rig, case, names| {
        rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), &case));
        for spoofed in ["198.18.0.2", "198.18.0.9"] {
            assert!(!passes(&mut rig, &names[0], talk(spoofed, "203.0.113.1")));
        }
        let reason = flowgate_abi::DropReason::InvalidSourceAddress;
        assert_eq!(rig.datapath.counters().expect("readable").dropped(reason), 2);
    });
}

#[test]
fn an_address_has_one_endpoint() {
    on_both(|mut rig, case, names| {
        let thief = WorkloadRef { namespace: "default".into(), name: "thief".into() };
        let address = case.inventory.workloads[0].addresses[0];
        let spec = EndpointSpec::unlinked(thief).address(address);
        let error = rig.datapath.attach(&spec).expect_err("it has an owner").to_string();
        assert!(error.contains("198.18.0.1") && error.contains(&names[0].to_string()), "{error}");
    });
}

#[test]
fn a_query_is_no_reply_to_the_other_ends_query() {
    on_both(|mut rig, mut case, names| {
        // Nobody may open anything to the server; the server may ping the client.
        case.policies[0].ingress = Some(vec![]);
        rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), &case));
        let ping = |source: &str, destination: &str| {
            let flow = Flow {
                source: source.parse().expect("an address"),
                destination: destination.parse().expect("an address"),
                protocol: FlowProtocol::Icmp { icmp_type: 8 },
            };
            Frame::opening(flow, 77)
        };
        assert!(!passes(&mut rig, &names[0], ping("198.18.0.1", "198.18.0.2")));
        let allowed = ping("198.18.0.2", "198.18.0.1");
        assert!(passes(&mut rig, &names[1], allowed));
        assert!(!passes(&mut rig, &names[0], ping("198.18.0.1", "198.18.0.2")));
        assert!(passes(&mut rig, &names[0], allowed.answer()));
        // And a reply in the direction of the query is none.
        let backwards = Frame { flow: ping("198.18.0.1", "198.18.0.2").flow, ..allowed }.answer();
        assert!(!passes(&mut rig, &names[1], backwards));
    });
}

#[test]
fn neighbour_discovery_that_has_crossed_a_router_is_none() {
    on_both(|mut rig, case, names| {
        rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), &case));
        let advertise = |source: &str, target: &str, hops: u8| {
            let flow = Flow {
                source: source.parse().expect("an address"),
                destination: "2001:db8::1".parse().expect("an address"),
                protocol: FlowProtocol::Icmp6 { icmp_type: 136 },
            };
            let frame = Frame { hops, ..Frame::opening(flow, 0) };
            envelope::with_target(frame.bytes(), target.parse().expect("an address"))
        };
        let mut sends = |source, target, hops| {
            let frame = advertise(source, target, hops);
            rig.replay(&names[1], Stage::FromEndpoint, &frame).0.passes()
        };
        assert!(sends("2001:db8::2", "2001:db8::2", 255));
        assert!(sends("fe80::2", "fe80::2", 255));
        assert!(sends("fe80::2", "2001:db8::2", 255));
        assert!(!sends("2001:db8::2", "2001:db8::2", 64));
        assert!(!sends("2001:db8::77", "2001:db8::2", 255), "not its own");
        assert!(!sends("fe80::2", "2001:db8::1", 255), "another's");
        let crossed = advertise("2001:db8::2", "2001:db8::2", 254);
        assert!(!rig.replay(&names[0], Stage::ToEndpoint, &crossed).0.passes());
    });
}

#[test]
fn a_local_address_from_elsewhere_is_spoofed() {
    on_both(|mut rig, case, names| {
        rig.apply(&compile(&mut Compiler::new(LocalAllocator::new()), &case));
        let frame = talk("198.18.0.1", "198.18.0.2");
        assert!(!to_endpoint(&mut rig, &names[1], frame));
        connect(&mut rig, &names, frame);
        assert!(!to_endpoint(&mut rig, &names[1], frame.flags(tcp::ACK)));
        let reason = flowgate_abi::DropReason::InvalidSourceAddress;
        assert_eq!(rig.datapath.counters().expect("readable").dropped(reason), 2);
    });
}

//! What policy calls a packet's service: a port, an ICMP type, or a protocol.

use flowgate_abi::DropReason;
use flowgate_conformance::frames::{Frame, error_about};
use flowgate_identity::Selector;
use flowgate_policy::{
    model::{
        NamespaceSelector, Peers, Policy, PolicyKind, PolicyRef, Ports, Rule, Service,
        WorkloadSelector,
    },
    outcome::FlowProtocol,
};

use crate::world::{CLIENT, SERVER, World, address, bytes, request};

/// Lets anybody open one thing more to the server.
fn admits(service: Service) -> Policy {
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: "default".into(),
        name: "more".into(),
    };
    let server = WorkloadSelector {
        namespaces: NamespaceSelector::Named("default".into()),
        labels: Selector::match_label("app", "server"),
    };
    let rule = Rule::allow(Peers::Any, Ports::OneOf(vec![service]));
    Policy { ingress: Some(vec![rule]), ..Policy::new(id, server) }
}

#[test]
fn a_service_is_what_the_protocol_makes_of_it() {
    let protocols = [
        (FlowProtocol::Sctp(9), Service::Protocol(132)),
        (FlowProtocol::Icmp { icmp_type: 8 }, Service::Icmp(Some(8))),
        (FlowProtocol::Icmp { icmp_type: 13 }, Service::Icmp(Some(13))),
        (FlowProtocol::Icmp6 { icmp_type: 128 }, Service::Icmp6(Some(128))),
        (FlowProtocol::Other(8), Service::Protocol(8)),
        (FlowProtocol::Other(47), Service::Protocol(47)),
    ];
    for (_, admitted) in &protocols {
        let world = World::on_node(&[admits(admitted.clone())]);
        for (protocol, service) in &protocols {
            let v6 = matches!(protocol, FlowProtocol::Icmp6 { .. });
            let sent = world.send(CLIENT, &bytes(request(*protocol, v6)));
            let expected = match service == admitted {
                true => Ok(()),
                false => Err(DropReason::PolicyDefaultDeny),
            };
            assert_eq!(sent, expected, "{protocol:?} where {admitted:?} may pass");
        }
    }
}

/// An error and an answer without what they belong to are dropped, each for its own reason.
#[test]
fn what_means_nothing_without_a_flow_says_which_it_is() {
    for v6 in [false, true] {
        let (unreachable, echo) = match v6 {
            false => (3, FlowProtocol::Icmp { icmp_type: 8 }),
            true => (1, FlowProtocol::Icmp6 { icmp_type: 128 }),
        };
        let world = World::new();
        let quoted = request(FlowProtocol::Udp(53), v6);
        let error = error_about(&quoted, address(SERVER, v6), unreachable);
        assert_eq!(world.receive(CLIENT, &error), Err(DropReason::UnrelatedIcmpError));
        let reply = Frame { reply: true, ..request(echo, v6) };
        assert_eq!(world.receive(CLIENT, &reply.bytes()), Err(DropReason::InvalidForFlow));
    }
}

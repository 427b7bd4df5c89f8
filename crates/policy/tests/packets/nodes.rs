//! A node as an end of its own: at its uplink, and at the links of its pods.

use flowgate_abi::{DropReason, event::Hook};
use flowgate_conformance::{
    envelope::fragments,
    frames::{Frame, tcp},
};
use flowgate_identity::Selector;
use flowgate_pipeline::Verdict;
use flowgate_policy::{
    install::{InstallError, Installer},
    inventory::WorkloadRef,
    model::{
        Peers, Policy, PolicyKind, PolicyRef, Port, PortMatch, Ports, Protocol, Response, Rule,
        Subject,
    },
    outcome::FlowProtocol,
};

use crate::world::{
    CLIENT, NODE, OUTSIDE, SERVER, UPLINK, World, address, between, bytes, tables, uplink,
};

fn port(protocol: Protocol, number: u16) -> Port {
    Port { protocol, port: PortMatch::Range(number, number) }
}

fn of_nodes(ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> Policy {
    let kind = PolicyKind::FlowgateNodePolicy;
    let name = if ingress.is_some() { "ingress" } else { "egress" };
    let id = PolicyRef { kind, namespace: "".into(), name: name.into() };
    let subject = Subject::Nodes(Selector::match_label("role", "edge"));
    Policy { ingress, egress, ..Policy::new(id, subject) }
}

/// Of what is opened to it a node takes SSH alone.
fn ssh_only() -> Policy {
    of_nodes(Some(vec![Rule::allow(Peers::Any, Ports::of([port(Protocol::Tcp, 22)]))]), None)
}

/// A node opens nothing.
fn silent() -> Policy {
    of_nodes(None, Some(vec![]))
}

fn outside(v6: bool) -> std::net::IpAddr {
    OUTSIDE[usize::from(v6)].parse().unwrap()
}

fn node(v6: bool) -> std::net::IpAddr {
    NODE[usize::from(v6)].parse().unwrap()
}

const DENIED: Result<(), DropReason> = Err(DropReason::PolicyDefaultDeny);

/// What becomes of a frame that comes to the node by its uplink.
fn arrive(world: &World, frame: Frame) -> Result<(), DropReason> {
    world.receive(UPLINK, &bytes(frame))
}

/// What becomes of a frame that leaves the node by its uplink.
fn leave(world: &World, frame: Frame) -> Result<(), DropReason> {
    world.send(UPLINK, &bytes(frame))
}

#[test]
fn what_has_the_nodes_address_is_judged_at_its_uplink() {
    for v6 in [false, true] {
        let world = World::on_node(&[ssh_only(), silent()]);
        let ssh = between(outside(v6), node(v6), FlowProtocol::Tcp(22));
        assert_eq!(arrive(&world, ssh), Ok(()));
        assert_eq!(leave(&world, ssh.answer()), Ok(()), "an answer isn't what a node opens");
        assert_eq!(arrive(&world, between(outside(v6), node(v6), FlowProtocol::Tcp(23))), DENIED);
        assert_eq!(leave(&world, between(node(v6), outside(v6), FlowProtocol::Tcp(443))), DENIED);
        let flows = world.installer.store().counters()[0];
        assert_eq!(flows, 1);
    }
}

#[test]
fn what_is_forwarded_passes_a_node_unjudged() {
    let closed = of_nodes(Some(vec![]), Some(vec![]));
    for v6 in [false, true] {
        let world = World::on_node(std::slice::from_ref(&closed));
        for protocol in [FlowProtocol::Tcp(81), FlowProtocol::Udp(9), FlowProtocol::Other(47)] {
            let to_pod = between(outside(v6), address(SERVER, v6), protocol);
            assert_eq!(arrive(&world, to_pod), Ok(()));
            let from_pod = between(address(SERVER, v6), outside(v6), protocol);
            assert_eq!(leave(&world, from_pod), Ok(()));
            // Nothing is known of the first one.
            let pieces = fragments(&bytes(Frame { payload: 60, ..to_pod }), 1, 24);
            assert_eq!(world.receive(UPLINK, &pieces[1]), Ok(()));
        }
        assert!(world.installer.store().counters().iter().all(|&count| count == 0));
        let to_node = between(outside(v6), node(v6), FlowProtocol::Udp(9));
        let pieces = fragments(&bytes(Frame { payload: 60, ..to_node }), 1, 24);
        assert_eq!(world.receive(UPLINK, &pieces[1]), Err(DropReason::FragmentNotFound));
    }
}

#[test]
fn a_pod_meets_its_nodes_ingress_at_its_own_link() {
    for v6 in [false, true] {
        let world = World::on_node(&[ssh_only()]);
        let ssh = between(address(CLIENT, v6), node(v6), FlowProtocol::Tcp(22));
        let passed = world.run(CLIENT, Hook::FromEndpoint, &bytes(ssh));
        assert!(matches!(passed, Ok(Verdict::Stack(_))), "{passed:?}");
        assert_eq!(world.receive(CLIENT, &bytes(ssh.answer())), Ok(()));
        let other = between(address(CLIENT, v6), node(v6), FlowProtocol::Tcp(23));
        assert_eq!(world.send(CLIENT, &bytes(other)), DENIED);
    }
}

/// The answer is judged in the direction in which the connection was opened.
#[test]
fn a_connection_to_the_node_that_is_no_longer_allowed_ends_with_its_next_answer() {
    for v6 in [false, true] {
        let mut world = World::on_node(&[ssh_only()]);
        let ssh = between(address(CLIENT, v6), node(v6), FlowProtocol::Tcp(22));
        assert_eq!(world.send(CLIENT, &bytes(ssh)), Ok(()));
        world.apply(&[of_nodes(Some(vec![]), None)]);
        assert_eq!(world.receive(CLIENT, &bytes(ssh.answer())), DENIED);
        assert_eq!(world.send(CLIENT, &bytes(ssh.flags(tcp::ACK))), Err(DropReason::Revoked));
    }
}

#[test]
fn a_node_reaches_its_pods_past_its_own_egress() {
    for v6 in [false, true] {
        let mut world = World::on_node(&[silent()]);
        let probe = between(node(v6), address(SERVER, v6), FlowProtocol::Tcp(81));
        assert_eq!(world.receive(SERVER, &bytes(probe)), Ok(()));
        let answer = |world: &World| {
            let mut frame = bytes(probe.answer());
            frame[6..12].copy_from_slice(&crate::world::mac(SERVER));
            world.send(SERVER, &frame)
        };
        assert_eq!(answer(&world), Ok(()));
        world.apply(&[silent(), ssh_only()]);
        assert_eq!(answer(&world), Ok(()), "judged again from the other side");
        assert_eq!(world.receive(SERVER, &bytes(probe.flags(tcp::ACK))), Ok(()));
        assert_eq!(leave(&world, between(node(v6), outside(v6), FlowProtocol::Tcp(81))), DENIED);
    }
}

#[test]
fn a_node_is_open_until_a_policy_selects_it() {
    for v6 in [false, true] {
        let Ok(mut installer) = Installer::adopt(tables(u32::MAX));
        installer.attach(WorkloadRef::node("n1"), uplink()).unwrap();
        let fresh = World { installer, response: Response::Silence };
        let telnet = between(outside(v6), node(v6), FlowProtocol::Tcp(23));
        assert_eq!(arrive(&fresh, telnet), Ok(()), "before the first plan");
        let mut world = World::on_node(&[]);
        assert_eq!(arrive(&world, telnet), Ok(()));
        let from_pod = between(address(CLIENT, v6), node(v6), FlowProtocol::Tcp(23));
        assert_eq!(world.send(CLIENT, &bytes(from_pod)), Ok(()));
        world.apply(&[ssh_only()]);
        assert_eq!(arrive(&world, telnet.flags(tcp::ACK)), DENIED, "and judged from then on");
        world.apply(&[]);
        assert_eq!(arrive(&world, telnet), Ok(()));
    }
}

#[test]
fn a_plan_for_a_node_without_an_uplink_is_refused() {
    let Ok(installer) = Installer::adopt(tables(u32::MAX));
    let mut world = World { installer, response: Response::Silence };
    let refused = world.try_apply(&[ssh_only()]);
    let Err(InstallError::NodeNotAttached { node }) = refused else { panic!("{refused:?}") };
    assert_eq!((&*node, world.installer.generation()), ("n1", 0));
}

#[test]
fn the_failsafe_passes_whatever_policies_say() {
    let closed = of_nodes(Some(vec![]), Some(vec![]));
    let failsafe = Policy::node_failsafe(Ports::of([port(Protocol::Tcp, 22)]));
    for v6 in [false, true] {
        let world = World::on_node(&[closed.clone(), failsafe.clone()]);
        for protocol in [FlowProtocol::Tcp(22), FlowProtocol::Tcp(23)] {
            let passes = if protocol == FlowProtocol::Tcp(22) { Ok(()) } else { DENIED };
            assert_eq!(arrive(&world, between(outside(v6), node(v6), protocol)), passes);
            assert_eq!(leave(&world, between(node(v6), outside(v6), protocol)), passes);
        }
    }
}

#[test]
fn nobody_else_has_the_nodes_address_or_a_pods_behind_the_node() {
    for v6 in [false, true] {
        let world = World::on_node(&[ssh_only()]);
        let forged = Err(DropReason::InvalidSourceAddress);
        let as_node = between(node(v6), address(SERVER, v6), FlowProtocol::Tcp(80));
        assert_eq!(world.send(CLIENT, &bytes(as_node)), forged);
        let as_pod = between(address(CLIENT, v6), node(v6), FlowProtocol::Tcp(22));
        assert_eq!(arrive(&world, as_pod), forged);
    }
}

/// Whatever its neighbours say to each other, ARP and other protocols of the link included.
#[test]
fn a_nodes_link_is_its_own_business() {
    let world = World::on_node(&[of_nodes(Some(vec![]), Some(vec![]))]);
    for ether_type in [0x0806, 0x88cc, 0x8863_u16] {
        let mut frame = vec![0xff; 60];
        frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
        for hook in [Hook::FromEndpoint, Hook::ToEndpoint] {
            assert_eq!(world.run(UPLINK, hook, &frame), Ok(Verdict::Pass), "{ether_type:#x}");
        }
    }
}

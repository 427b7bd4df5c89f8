//! A balancer's own checks on a wire: through the backend's tunnel to the service's address, and what they find.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use flowgate_datapath::{
    decap::{Decapsulator, Hook},
    health::{Check, CheckError, Checks, Tunnels},
    lb::XdpAttach,
};
use flowgate_lab::{EchoServers, Node, Pod};
use flowgate_services::{
    Uplink,
    model::{Backend, Forwarding, Service},
};
use socket2::{Domain, Protocol, Socket, Type};

const PORT: u16 = 80;
const GUE: u16 = 6080;
/// Nobody listens there.
const CLOSED: u16 = 81;
/// How long something may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(10);
/// For answers that never come.
const BRIEFLY: Duration = Duration::from_millis(200);
const FORWARDINGS: [Forwarding; 2] = [Forwarding::Tunnel, Forwarding::Gue { port: GUE }];
const HOOKS: [Hook; 3] = [Hook::Xdp(XdpAttach::Native), Hook::Xdp(XdpAttach::Generic), Hook::Tc];

fn addresses(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|text| text.parse().expect("an address"))
}

/// The service's addresses.
fn vips() -> [IpAddr; 2] {
    addresses(["198.51.100.1", "2001:db8:1::1"])
}

/// A balancer, which is the node, and a backend that answers at its own addresses and at the service's.
struct Rig {
    tunnels: Tunnels,
    /// As checks have it.
    uplink: Uplink,
    backend: Pod,
    _servers: EchoServers,
    _node: Node,
}

impl Rig {
    /// `None`: it can't be had here, which is said.
    fn new() -> Option<Self> {
        if let Err(missing) = flowgate_lab::available() {
            println!("SKIPPED: {missing}");
            return None;
        }
        let mut node = Node::enter().expect("namespaces of its own");
        for address in addresses(["198.18.5.1", "2001:db8:5::1"]) {
            node.add_address(address).expect("an address");
        }
        let own = addresses(["198.18.5.11", "2001:db8:5::11"]);
        let backend = node.add_pod("backend", &own).expect("a pod");
        for vip in vips() {
            backend.add_silent_address(vip).expect("an address");
            // So that nothing finds the service but in a tunnel: the balancer's own, too, is at home here.
            node.add_address(vip).expect("an address");
        }
        let all = [own, vips()].concat();
        let servers = backend.serve_at(&all, &[PORT], &[PORT]).expect("listens");
        let tunnels = Tunnels::open().expect("opens");
        Some(Self { tunnels, uplink: Uplink::default(), backend, _servers: servers, _node: node })
    }

    fn attach(&mut self) {
        self.tunnels.attach(self.backend.host_interface()).expect("attaches");
    }

    /// A decapsulator on the backend, which takes the service's packets.
    fn decapsulator(&self, services: &[IpAddr], hook: Hook) -> Decapsulator {
        let own = self.backend.addresses().iter().copied();
        let builder = own
            .fold(Decapsulator::builder().gue(GUE), flowgate_datapath::decap::Builder::tunnel_end);
        let builder =
            services.iter().copied().fold(builder, flowgate_datapath::decap::Builder::service);
        let opened = self.backend.run(|| {
            let mut decapsulator = builder.open().expect("opens");
            let _ = decapsulator.attach(self.backend.interface(), hook).expect("attaches");
            decapsulator
        });
        opened.expect("a thread there")
    }

    /// Asks through a tunnel; whether packets went there.
    fn ask(&self, form: (Forwarding, usize), kind: Type, patience: Duration) -> io::Result<bool> {
        self.ask_at(PORT, form, kind, patience)
    }

    fn ask_at(
        &self,
        port: u16,
        (forwarding, family): (Forwarding, usize),
        kind: Type,
        patience: Duration,
    ) -> io::Result<bool> {
        let service = Service::tcp("web", port).forwarding(forwarding);
        let backend = Backend::new(self.backend.addresses()[family]);
        let destination = SocketAddr::new(vips()[family], port);
        let uplink = &self.uplink;
        let check = Check { service: &service, backend: &backend, destination, uplink };
        through(&self.tunnels.checks(), &check, (kind, patience))
    }
}

/// A question that is sent back, through a tunnel.
fn through(
    checks: &Checks,
    check: &Check<'_>,
    (kind, patience): (Type, Duration),
) -> io::Result<bool> {
    let own = SocketAddr::new(check.backend.address, check.destination.port());
    let is_udp = kind == Type::DGRAM;
    let protocol = if is_udp { Protocol::UDP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(own), kind, Some(protocol))?;
    let any = if own.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    socket.bind(&any.parse::<SocketAddr>().expect("an address").into())?;
    let port = socket.local_addr()?.as_socket().expect("of IP").port();
    let under_way = checks.begin(check, port, is_udp).expect("begins");
    let echoed = exchange(&socket, own, patience);
    drop(socket);
    echoed.map(|()| under_way.sent().expect("it is there"))
}

fn exchange(socket: &Socket, to: SocketAddr, patience: Duration) -> io::Result<()> {
    socket.connect_timeout(&to.into(), patience)?;
    socket.set_read_timeout(Some(patience))?;
    let mut socket = socket;
    socket.write_all(b"are you there?\n")?;
    let mut answer = [0; 15];
    socket.read_exact(&mut answer)?;
    assert_eq!(&answer, b"are you there?\n");
    Ok(())
}

/// With the service's addresses being the balancer's own as well, over every tunnel, of either family, into
/// every kind of decapsulator.
#[test]
fn checks_go_through_the_tunnel() {
    let Some(mut rig) = Rig::new() else { return };
    rig.attach();
    for hook in HOOKS {
        let decapsulator = rig.decapsulator(&vips(), hook);
        for form in FORWARDINGS.into_iter().flat_map(|f| [(f, 0), (f, 1)]) {
            for kind in [Type::STREAM, Type::DGRAM] {
                println!("{hook:?} {form:?} {kind:?}");
                assert!(rig.ask(form, kind, PATIENCE).expect("answers"), "it went into the tunnel");
            }
        }
        let stats = decapsulator.stats().expect("read");
        assert!(stats.drops.is_empty(), "{:?}", stats.drops);
        // All four forms, in their own family.
        assert_eq!(stats.counters.len(), 4, "{:?}", stats.counters);
    }
    let errors = rig.backend.stack_counters().expect("read");
    assert!(errors.checksum_errors().iter().all(|(_, count)| *count == 0), "{errors:?}");
}

/// The backend's ICMP error quotes the service's address, which the checking socket doesn't know of.
#[test]
fn a_closed_port_is_told_at_once() {
    let Some(mut rig) = Rig::new() else { return };
    rig.attach();
    for hook in HOOKS {
        let _decapsulator = rig.decapsulator(&vips(), hook);
        for form in FORWARDINGS.into_iter().flat_map(|f| [(f, 0), (f, 1)]) {
            println!("{hook:?} {form:?}");
            let refused = rig.ask_at(CLOSED, form, Type::DGRAM, PATIENCE);
            let refused = refused.expect_err("nobody listens");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
        }
    }
}

/// The backend's ICMP error is about the tunnel, and comes to the outer source: here an address of the balancer's. Of UDP without
/// a checksum over IPv6 Linux takes no notice where it knows no tunnel, so GUE has no such error there.
#[test]
fn who_knows_no_tunnels_is_told_of_at_once() {
    let Some(mut rig) = Rig::new() else { return };
    rig.attach();
    rig.uplink.source4 = "198.18.5.1/32".parse().expect("a prefix");
    rig.uplink.source6 = "2001:db8:5::1/128".parse().expect("a prefix");
    let [ip, gue] = FORWARDINGS;
    for form in [(ip, 0), (ip, 1), (gue, 0)] {
        for kind in [Type::STREAM, Type::DGRAM] {
            let told = rig.ask(form, kind, PATIENCE).expect_err("no tunnel ends there");
            println!("{form:?} {kind:?}: {told}");
            let waited = matches!(told.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock);
            assert!(!waited, "{form:?} {kind:?}");
        }
    }
}

/// It answers at its own address, and at the service's if asked there directly.
#[test]
fn who_does_not_take_packets_out_of_tunnels_fails() {
    let Some(mut rig) = Rig::new() else { return };
    rig.attach();
    let own = SocketAddr::new(rig.backend.addresses()[0], PORT);
    let answer = flowgate_lab::probe::tcp(own, PATIENCE).expect("asked");
    assert!(answer.reached(), "directly: {answer:?}");
    for form in FORWARDINGS.into_iter().flat_map(|f| [(f, 0), (f, 1)]) {
        let _ = rig.ask(form, Type::STREAM, BRIEFLY).expect_err("no tunnel ends there");
    }
    let _other = rig.decapsulator(&addresses(["198.51.100.9", "2001:db8:1::9"]), Hook::Tc);
    let failed = rig.ask((Forwarding::Tunnel, 0), Type::STREAM, BRIEFLY);
    let _ = failed.expect_err("the service's address is none of its own");
}

#[test]
fn what_leaves_elsewhere_is_told() {
    let Some(mut rig) = Rig::new() else { return };
    let form = (Forwarding::Tunnel, 0);
    let _decapsulator = rig.decapsulator(&vips(), Hook::Tc);
    let sent = rig.ask(form, Type::STREAM, PATIENCE).expect("the backend itself answers");
    assert!(!sent, "no interface takes it into a tunnel");
    rig.attach();
    rig.attach();
    assert!(rig.ask(form, Type::STREAM, PATIENCE).expect("answers"));
    rig.tunnels.detach(rig.backend.host_interface());
    assert!(!rig.ask(form, Type::STREAM, PATIENCE).expect("answers"));
}

#[test]
fn what_can_go_through_no_tunnel_is_refused() {
    let Some(rig) = Rig::new() else { return };
    let uplink = Uplink::default();
    let [backend, other] = [0, 1].map(|family| Backend::new(rig.backend.addresses()[family]));
    let destination = SocketAddr::new(vips()[0], PORT);
    let neighbour = Service::tcp("web", PORT).forwarding(Forwarding::Layer2);
    let check = Check { service: &neighbour, backend: &backend, destination, uplink: &uplink };
    let checks = rig.tunnels.checks();
    let refused = checks.begin(&check, 40_000, false).expect_err("no tunnel");
    assert!(matches!(refused, CheckError::NoTunnel { .. }), "{refused}");
    let service = Service::tcp("web", PORT);
    let check = Check { service: &service, backend: &other, destination, uplink: &uplink };
    let refused = checks.begin(&check, 40_000, false).expect_err("two families");
    assert!(matches!(refused, CheckError::Mixed { .. }), "{refused}");
}

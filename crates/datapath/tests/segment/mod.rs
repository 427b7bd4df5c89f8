//! A client, a balancer with one arm, and two backends in one Ethernet segment: a bridge on the lab's node.
//!
//! The balancer's interface is the node's, one end of a veth pair whose other end is a port of the bridge.
//! Backends have the service's addresses on their loopback and answer the client directly, or have nothing of
//! the service and answer the balancer, at its sources.
#![allow(dead_code, reason = "each test needs a part of it")]

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

use flowgate_datapath::decap::Decapsulator;
use flowgate_lab::{Answer, Node, Pod, Talk};
use flowgate_services::{
    Services,
    model::{Backend, Forwarding, NextHop, Service},
};

/// The balancer's interface.
pub(crate) const ARM: &str = "balancer";
const ARM_MAC: &str = "02:00:00:00:ba:01";
pub(crate) const PORT: u16 = 80;
/// How long something may take that is bound to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The service's addresses.
pub(crate) fn vips() -> [IpAddr; 2] {
    ["198.51.100.1", "2001:db8:1::1"].map(|text| text.parse().expect("an address"))
}

pub(crate) struct Segment {
    pub(crate) client: Pod,
    pub(crate) backends: Vec<Pod>,
    pub(crate) node: Node,
}

/// Where the balancer's packets come from, with full NAT.
pub(crate) fn sources() -> [IpAddr; 2] {
    ["198.18.9.1", "2001:db8:9::1"].map(|text| text.parse().expect("an address"))
}

/// All of them still are, and get their answers.
#[track_caller]
pub(crate) fn all_answer(talks: &mut [Talk]) {
    for talk in talks {
        let answer = talk.line("still there?", PATIENCE).expect("nothing else comes back");
        assert_eq!(answer, Answer::Echoed, "{:?} to {}", talk.source(), talk.destination());
    }
}

/// What came out of tunnels at a backend, with nothing dropped: packets and bytes.
pub(crate) fn came_out(decapsulator: &Decapsulator) -> (u64, u64) {
    let stats = decapsulator.stats().expect("read");
    assert!(stats.drops.is_empty(), "{:?}", stats.drops);
    let tallies = stats.counters.values();
    tallies.fold((0, 0), |(packets, bytes), tally| (packets + tally.packets, bytes + tally.bytes))
}

impl Segment {
    /// Connections from the client to a port of both addresses, so many each.
    pub(crate) fn talks(&self, port: u16, count: usize) -> Vec<Talk> {
        let open = |vip| self.client.talk(SocketAddr::new(vip, port), PATIENCE).expect("connects");
        vips().into_iter().flat_map(|vip| (0..count).map(move |_| open(vip))).collect()
    }

    /// With echo servers at the service's addresses. `None`: it can't be had here, which is said.
    #[allow(dead_code, reason = "only some tests have such backends")]
    pub(crate) fn new() -> Option<Self> {
        let segment = Self::plain()?;
        segment.backends.iter().for_each(serve);
        Some(segment)
    }

    /// With backends that know nothing of the service.
    pub(crate) fn plain() -> Option<Self> {
        if let Err(missing) = flowgate_lab::available() {
            println!("SKIPPED: {missing}");
            return None;
        }
        let mut node = Node::enter().expect("namespaces of its own");
        if let Err(missing) = ip("link add segment type bridge") {
            println!("SKIPPED: {missing}");
            return None;
        }
        let mut pod = |name: &str, last: u8| {
            let v6 = IpAddr::from([0x2001, 0xdb8, 5, 0, 0, 0, 0, u16::from(last)]);
            node.add_pod(name, &[IpAddr::from([198, 18, 5, last]), v6]).expect("a pod")
        };
        let client = pod("client", 1);
        let backends = vec![pod("one", 11), pod("two", 12)];
        let segment = Self { client, backends, node };
        segment.bridge();
        Some(segment)
    }

    fn bridge(&self) {
        must("link set segment up");
        must(&format!("link add {ARM} address {ARM_MAC} type veth peer name arm"));
        let ports = self.backends.iter().map(Pod::host_interface);
        for port in ports.chain([self.client.host_interface(), "arm"]) {
            must(&format!("link set {port} master segment up"));
        }
        must(&format!("link set {ARM} up"));
        for to in vips().into_iter().chain(sources()) {
            let family = if to.is_ipv4() { "-4" } else { "-6" };
            must(&format!("{family} route add {to} dev segment"));
            must(&format!("{family} neigh add {to} lladdr {ARM_MAC} dev segment nud permanent"));
        }
    }

    /// The backends, as the balancer knows them.
    #[allow(dead_code, reason = "as above")]
    pub(crate) fn listed(&self) -> Vec<Backend> {
        let listed =
            |pod: &Pod| Backend::new(pod.addresses()[0]).next_hop(NextHop::Mac(pod.mac().0));
        self.backends.iter().map(listed).collect()
    }
}

/// One service of each protocol, with these backends.
#[allow(dead_code, reason = "as above")]
pub(crate) fn services(backends: &[Backend]) -> Services {
    let with = |service: Service| {
        let service = vips().into_iter().fold(service, Service::address);
        let service = service.forwarding(Forwarding::Layer2);
        backends.iter().copied().fold(service, Service::backend)
    };
    let streams = with(Service::tcp("streams", PORT));
    Services::new([streams, with(Service::udp("datagrams", PORT))]).expect("good services")
}

/// Echo servers at the service's addresses.
pub(crate) fn serve(backend: &Pod) {
    let listen = || {
        for (vip, length) in vips().into_iter().zip([32, 128]) {
            must(&format!("addr add {vip}/{length} dev lo nodad"));
            let listener = TcpListener::bind((vip, PORT)).expect("listens");
            thread::spawn(move || listener.incoming().flatten().for_each(echo));
            let socket = UdpSocket::bind((vip, PORT)).expect("listens");
            thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            });
        }
    };
    backend.run(listen).expect("a thread there");
}

fn echo(mut stream: std::net::TcpStream) {
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    });
}

/// Runs `ip` in this thread's namespace.
fn ip(arguments: &str) -> Result<(), String> {
    let run = Command::new("ip").args(arguments.split(' ')).output();
    let output = run.map_err(|error| format!("no program `ip` (iproute2): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// As [`ip`]; it has to work.
pub(crate) fn must(arguments: &str) {
    ip(arguments).unwrap_or_else(|error| panic!("{error}"));
}

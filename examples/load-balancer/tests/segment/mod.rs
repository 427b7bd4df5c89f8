//! A client, a host for balancers, and a backend in one segment, and datagrams between them.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use flowgate_lab::{Node, Pod, Segment};

/// How long a datagram may be under way.
const BRIEFLY: Duration = Duration::from_millis(50);

/// The service's address.
fn service() -> IpAddr {
    [198, 18, 0, 100].into()
}

/// The hosts, and a directory for files.
pub(crate) struct Hosts {
    files: tempfile::TempDir,
    client: UdpSocket,
    pub(crate) backend: Pod,
    pub(crate) balancer: Pod,
    _segment: Segment,
    _node: Node,
}

impl Hosts {
    /// `None`: they can't be had here, which is said.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if let Err(missing) = flowgate_lab::available() {
            println!("SKIPPED {test}: {missing}");
            return None;
        }
        let mut node = Node::enter().expect("namespaces of its own");
        let segment = node.add_segment().expect("a bridge");
        let mut host = |name: &str, addresses: &[IpAddr]| {
            node.add_host(&segment, name, addresses).expect("a host")
        };
        let client = host("client", &[[198, 18, 0, 1].into()]);
        let balancer = host("balancer", &[[198, 18, 0, 2].into(), service()]);
        let backend = host("backend", &[[198, 18, 0, 11].into()]);
        backend.add_silent_address(service()).expect("an address that isn't announced");
        let client = bound(&client, ([198, 18, 0, 1], 0).into());
        let files = tempfile::tempdir().expect("a directory");
        Some(Self { files, client, backend, balancer, _segment: segment, _node: node })
    }

    /// A file or directory of the test's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// A socket of the backend's at the service's address.
    pub(crate) fn serve(&self, port: u16) -> UdpSocket {
        bound(&self.backend, (service(), port).into())
    }

    /// Whether a datagram to the service gets to such a socket.
    pub(crate) fn reach(&self, served: &UdpSocket) -> bool {
        let to = served.local_addr().expect("bound");
        self.client.send_to(b"some question", to).expect("sent");
        served.recv(&mut [0; 64]).is_ok()
    }

    /// A balancer's file: a service of this port in a segment, and these lines.
    pub(crate) fn file(&self, port: u16, (mode, more): (&str, &str)) -> String {
        format!(
            "{more}interfaces: [{{name: {}, mode: {mode}}}]\n\
             limits: {{slots: 16384, frontends: 64, backends: 64, services: 16}}\nservices:\n  \
             - {{name: dns, addresses: [{}], protocol: udp, port: {port}, forwarding: layer2, \
             backends: [{{address: {}, mac: \"{}\"}}]}}\n",
            self.balancer.interface(),
            service(),
            self.backend.addresses()[0],
            self.backend.mac(),
        )
    }
}

fn bound(pod: &Pod, to: SocketAddr) -> UdpSocket {
    let socket = pod.run(|| UdpSocket::bind(to)).expect("a thread there").expect("binds");
    socket.set_read_timeout(Some(BRIEFLY)).expect("a time");
    socket
}

//! A node with three pods and a datapath over them, for tests with real traffic.
//!
//! The server is isolated: the client reaches it by everything, the stranger by what a test says.
#![allow(dead_code, reason = "each test needs a part of it")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use flowgate_abi::{DropReason, event::Counter};
use flowgate_datapath::{Backend, Builder, Datapath, Delivery, HookKind, Options};
use flowgate_lab::{Node, Pod};
use flowgate_policy::model::{Port, PortMatch, Ports, Protocol};

#[path = "../pods/mod.rs"]
pub(crate) mod pods;

/// How long something may take that is bound to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;
pub(crate) const STRANGER: usize = 2;
/// The node itself, where it has addresses.
pub(crate) const NODE: usize = 253;

/// By which hook and delivery, and how large.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) hook: HookKind,
    pub(crate) delivery: Delivery,
    pub(crate) options: Options,
    /// What the server allows the stranger.
    pub(crate) stranger: Ports,
}

impl Setup {
    /// By TCX; the stranger reaches UDP port 53 and TCP port 80.
    pub(crate) fn by(delivery: Delivery) -> Self {
        let port = |protocol, port| Port { protocol, port: PortMatch::Range(port, port) };
        let stranger = Ports::of([port(Protocol::Udp, 53), port(Protocol::Tcp, 80)]);
        Self { hook: HookKind::Tcx, delivery, options: Options::default(), stranger }
    }
}

/// The node, its pods, and a datapath over them with a plan applied.
pub(crate) struct Rig {
    pub(crate) datapath: Datapath,
    pub(crate) pods: Vec<Pod>,
    pub(crate) node: Node,
}

impl Rig {
    /// `None`: it can't be had here, which is said.
    pub(crate) fn new(setup: &Setup) -> Option<Self> {
        if let Err(missing) = flowgate_lab::available() {
            println!("SKIPPED: {missing}");
            return None;
        }
        let mut node = Node::enter().expect("namespaces of its own");
        let pods = pods::make(&mut node);
        let builder = Datapath::builder().backend(Backend::Kernel).options(setup.options.clone());
        let mut datapath = with_object(builder).open().expect("opens");
        for (index, pod) in pods.iter().enumerate() {
            let spec = pods::endpoint(index, pod.host_interface(), pod.mac().0, setup.hook);
            datapath.attach(&spec.delivery(setup.delivery)).map(drop).expect("attaches");
        }
        let applied = datapath.apply(&pods::open_to_both(&setup.stranger)).expect("fits");
        assert_eq!(applied.ready.len(), pods.len());
        Some(Self { datapath, pods, node })
    }

    /// The server, by family (0: IPv4, 1: IPv6) and port.
    pub(crate) fn server(&self, family: usize, port: u16) -> SocketAddr {
        pods::socket(&self.pods[SERVER], family, port)
    }

    /// What was dropped so far, by reason.
    pub(crate) fn drops(&self) -> BTreeMap<DropReason, u64> {
        let mut drops = BTreeMap::new();
        for (key, tally) in self.datapath.counters().expect("readable").drops {
            *drops.entry(key.reason).or_default() += tally.packets;
        }
        drops
    }

    /// One of the datapath's counters.
    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.datapath.counters().expect("readable").get(counter)
    }
}

/// Asks again and again until something is so. Fails if it doesn't come to be.
#[track_caller]
pub(crate) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// `FLOWGATE_OBJECT` is another object than the one that ships.
fn with_object(builder: Builder) -> Builder {
    match std::env::var_os("FLOWGATE_OBJECT") {
        Some(path) => builder.object(std::fs::read(path).expect("the object is there")),
        None => builder,
    }
}

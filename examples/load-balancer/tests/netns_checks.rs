//! Checks of `flowgate-lb run` through tunnels: of two backends that have the service's address and answer whoever
//! asks them, one takes packets out of tunnels. In both modes of XDP: what generic XDP lets pass comes to the
//! programs behind it without its Ethernet header.
//!
//! Privileged: without the capabilities, or without a bridge, it says so in one line and is skipped.

mod process;

use std::{fs, net::IpAddr};

use flowgate_datapath::decap::{Decapsulator, Hook};
use flowgate_lab::{EchoServers, Node, Pod};
use flowgate_lb::{
    api::{Request, answer::Backend},
    health::Health,
};
use process::Running;

const PORT: u16 = 80;

fn service() -> IpAddr {
    [198, 18, 0, 100].into()
}

/// `BPF_PROG_TYPE_SCHED_CLS`, in what the kernel says of a file descriptor.
const CLASSIFIER: &str = "prog_type:\t3\n";

/// How many programs for TC it has loaded.
fn at_tc(running: &Running) -> usize {
    let all = fs::read_dir(format!("/proc/{}/fdinfo", running.id())).expect("it runs");
    let all = all.map(|one| fs::read_to_string(one.expect("listed").path()).unwrap_or_default());
    all.filter(|told| told.contains(CLASSIFIER)).count()
}

/// A balancer that has the service's address as well, and its backends.
struct Hosts {
    node: Node,
    balancer: Pod,
    backends: [Pod; 2],
    _answers: [EchoServers; 2],
    _decapsulator: Decapsulator,
}

impl Hosts {
    fn new() -> Self {
        let mut node = Node::enter().expect("namespaces of its own");
        let segment = node.add_segment().expect("a bridge");
        let mut host = |name: &str, addresses: &[IpAddr]| {
            node.add_host(&segment, name, addresses).expect("a host")
        };
        let balancer = host("balancer", &[[198, 18, 0, 2].into(), service()]);
        let backends = [11, 12].map(|last| host(&format!("b{last}"), &[[198, 18, 0, last].into()]));
        let answers = backends.each_ref().map(|backend| {
            backend.add_silent_address(service()).expect("an address that isn't announced");
            backend.serve_at(&[backend.addresses()[0], service()], &[PORT], &[]).expect("listens")
        });
        let decapsulator = Self::decapsulator(&backends[0]);
        Self { node, balancer, backends, _answers: answers, _decapsulator: decapsulator }
    }

    fn decapsulator(on: &Pod) -> Decapsulator {
        let builder = Decapsulator::builder().tunnel_end(on.addresses()[0]).service(service());
        let opened = on.run(|| {
            let mut decapsulator = builder.open().expect("opens");
            let _ = decapsulator.attach(on.interface(), Hook::Tc).expect("attaches");
            decapsulator
        });
        opened.expect("a thread there")
    }

    /// The balancer's file: `path` is a line of the check, or nothing.
    fn file(&self, directory: &str, mode: &str, path: &str) -> String {
        let backends = self
            .backends
            .each_ref()
            .map(|one| format!("{{address: {}, mac: '{}'}}", one.addresses()[0], one.mac()));
        format!(
            "directory: {directory}\npin: {}\ninterfaces: [{{name: {}, mode: {mode}}}]\n\
             limits: {{slots: 16384, frontends: 64, backends: 64, services: 16}}\nservices:\n  \
             - {{name: web, addresses: [{}], protocol: tcp, port: {PORT}, \
             check: {{probe: tcp, {path}interval: 200ms, timeout: 200ms}}, backends: [{}]}}\n",
            self.node.bpffs().join("lb").display(),
            self.balancer.interface(),
            service(),
            backends.join(", ")
        )
    }
}

fn health(running: &Running) -> Option<Vec<Option<Health>>> {
    let all = running.try_ask::<Vec<Backend>>(&Request::Backends { service: None })?;
    Some(all.into_iter().map(|one| one.health).collect())
}

fn who_takes_nothing_out_of_tunnels_fails(mode: &str) {
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED: {missing}");
        return;
    }
    let hosts = Hosts::new();
    let files = tempfile::tempdir().expect("a directory");
    let (file, directory) = (files.path().join("lb.yaml"), files.path().join("run"));
    let write = |path: &str| {
        let text = hosts.file(&directory.display().to_string(), mode, path);
        fs::write(&file, text).expect("written");
    };
    write("path: direct, ");
    let mut running = Running::start(&hosts.balancer, &file, directory.clone());
    let up = Some(vec![Some(Health::Up); 2]);
    running.wait("both answer directly", |running| health(running) == up);
    assert_eq!(at_tc(&running), 0, "the host's packets pay for no check");
    write("");
    let one = Some(vec![Some(Health::Up), Some(Health::Down)]);
    running.wait("the second fails through its tunnel", |running| health(running) == one);
    assert_eq!(at_tc(&running), 2);
}

#[test]
fn with_native_xdp_who_takes_nothing_out_of_tunnels_fails() {
    who_takes_nothing_out_of_tunnels_fails("native");
}

#[test]
fn with_generic_xdp_who_takes_nothing_out_of_tunnels_fails() {
    who_takes_nothing_out_of_tunnels_fails("generic");
}

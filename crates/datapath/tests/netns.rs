//! End to end: real sockets in network namespaces, through the attached programs.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.

#[allow(dead_code)] // shared with netns_restart.rs
mod pods;

use std::{net::SocketAddr, time::Duration};

use flowgate_abi::event::Kind;
use flowgate_datapath::{
    Attached, Backend, Datapath, Delivery, FlowEvent, HookKind, Options, State,
};
use flowgate_identity::LocalAllocator;
use flowgate_lab::{Answer, EchoServers, Node, Pod};
use flowgate_policy::compile::Compiler;
use pods::{PODS, name};

const PATIENCE: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_millis(400);

/// A node with three pods and a server, and a datapath over them.
struct Rig {
    datapath: Option<Datapath>,
    compiler: Compiler<LocalAllocator>,
    pods: Vec<Pod>,
    _servers: EchoServers,
    node: Node,
    hook: HookKind,
    delivery: Delivery,
}

impl Rig {
    fn new(hook: HookKind, delivery: Delivery) -> Option<Self> {
        if let Err(missing) = flowgate_lab::available() {
            println!("SKIPPED: {missing}");
            return None;
        }
        let mut node = Node::enter().expect("namespaces of its own");
        let pods = pods::make(&mut node);
        let _servers = pods[1].serve(&[80], &[53]).expect("servers");
        let compiler = Compiler::new(LocalAllocator::new());
        let mut rig = Self { datapath: None, compiler, pods, _servers, node, hook, delivery };
        rig.open();
        Some(rig)
    }

    /// Opens the datapath, or adopts what an earlier one has left, and attaches all pods.
    fn open(&mut self) -> (State, Vec<Attached>) {
        let pins = self.node.bpffs().join("flowgate");
        let builder = Datapath::builder().backend(Backend::Kernel).options(Options::default());
        let datapath = builder.pin(pins).open().expect("opens");
        let state = datapath.report().state.clone();
        self.datapath = Some(datapath);
        let attached: Vec<Attached> =
            (0..self.pods.len()).map(|index| self.attach(index)).collect();
        (state, attached)
    }

    fn attach(&mut self, index: usize) -> Attached {
        let pod = &self.pods[index];
        let spec = pods::endpoint(index, pod.host_interface(), pod.mac().0, self.hook);
        let spec = spec.delivery(self.delivery);
        self.datapath().attach(&spec).expect("attaches")
    }

    fn apply(&mut self, allowed: &str) {
        let plan = pods::plan(&mut self.compiler, allowed);
        let applied = self.datapath().apply(&plan).expect("fits");
        assert_eq!(applied.ready.len(), PODS.len());
    }

    /// Likewise, and what is established lives on.
    fn keep(&mut self, allowed: &str) {
        let plan = pods::keeping_plan(&mut self.compiler, allowed);
        let _ = self.datapath().apply(&plan).expect("fits");
    }

    fn datapath(&mut self) -> &mut Datapath {
        self.datapath.as_mut().expect("open")
    }

    fn server(&self, family: usize, port: u16) -> SocketAddr {
        pods::socket(&self.pods[1], family, port)
    }

    /// TCP, UDP and ping from a pod to the server, of both families.
    fn reaches(&self, pod: usize, wanted: bool) {
        let patience = if wanted { PATIENCE } else { SILENCE };
        for family in 0..2 {
            let pod = &self.pods[pod];
            let answers = [
                pod.tcp(self.server(family, 80), patience).expect("a socket"),
                pod.udp(self.server(family, 53), patience).expect("a socket"),
                pod.ping(self.server(family, 0).ip(), patience).expect("a socket"),
            ];
            for (answer, what) in answers.iter().zip(["TCP", "UDP", "ping"]) {
                let echoed = *answer == Answer::Echoed;
                assert_eq!(
                    echoed,
                    wanted,
                    "{what} from {} IPv{}: {answer:?}",
                    pod.name(),
                    4 + 2 * family
                );
            }
        }
    }
}

fn scene(hook: HookKind, delivery: Delivery) {
    let Some(mut rig) = Rig::new(hook, delivery) else { return };
    // Closed until the first plan.
    rig.reaches(0, false);
    let mut events = rig.datapath().events().expect("not taken before");
    rig.apply("client");
    rig.reaches(0, true);
    rig.reaches(2, false);

    let told: Vec<FlowEvent> = std::iter::from_fn(|| events.try_next()).collect();
    let denied = told.iter().find(|event| {
        event.kind == Kind::Denied && event.source.workload == Some(name("stranger"))
    });
    let denied = denied.expect("the denial is told").to_string();
    assert!(denied.contains("NetworkPolicy/default/who-may"), "{denied}");

    // A connection that a new plan revokes ends; one that it allows or keeps lives.
    let mut talk = rig.pods[0].talk(rig.server(0, 80), PATIENCE).expect("connects");
    assert_eq!(talk.line("before", PATIENCE).expect("a socket"), Answer::Echoed);
    rig.apply("client");
    assert_eq!(talk.line("again", PATIENCE).expect("a socket"), Answer::Echoed);
    rig.keep("stranger");
    assert_eq!(talk.line("kept", PATIENCE).expect("a socket"), Answer::Echoed);
    let another = rig.pods[0].tcp(rig.server(0, 80), SILENCE).expect("a socket");
    assert_ne!(another, Answer::Echoed);
    rig.apply("stranger");
    assert_ne!(talk.line("after", SILENCE).expect("a socket"), Answer::Echoed);
    rig.reaches(0, false);
    rig.reaches(2, true);
    let revoked = rig.datapath().counters().expect("readable");
    assert!(revoked.get(flowgate_abi::event::Counter::FlowsRevoked) > 0);

    // Dropped without being persisted: nothing is left in the way.
    rig.datapath = None;
    rig.reaches(0, true);
    rig.reaches(2, true);
}

#[test]
fn tcx_into_the_peer() {
    scene(HookKind::Tcx, Delivery::RedirectPeer);
}

#[test]
fn tcx_to_the_host_side() {
    scene(HookKind::Tcx, Delivery::Redirect);
}

#[test]
fn tcx_through_the_stack() {
    scene(HookKind::Tcx, Delivery::Stack);
}

#[test]
fn clsact_into_the_peer() {
    scene(HookKind::Clsact, Delivery::RedirectPeer);
}

#[test]
fn clsact_through_the_stack() {
    scene(HookKind::Clsact, Delivery::Stack);
}

/// The pod leaves, and comes back with its name, its labels and its addresses: for all that the node knows
/// it is another one.
#[test]
fn what_was_kept_is_not_inherited_by_the_next_pod() {
    let Some(mut rig) = Rig::new(HookKind::Tcx, Delivery::Automatic) else { return };
    rig.datapath = None;
    let (_, attached) = rig.open();
    // The client over IPv4, the server over IPv6.
    for who in [0, 1] {
        rig.apply("client");
        let mut talk = rig.pods[0].talk(rig.server(who, 80), PATIENCE).expect("connects");
        rig.keep("stranger");
        assert_eq!(talk.line("kept", PATIENCE).expect("a socket"), Answer::Echoed);
        assert_eq!(rig.datapath().detach(&[attached[who].id]).expect("detaches"), 1);
        let _ = rig.attach(who);
        rig.keep("stranger");
        assert_ne!(talk.line("inherited", SILENCE).expect("a socket"), Answer::Echoed);
    }
}

fn restart(hook: HookKind) {
    let Some(mut rig) = Rig::new(hook, Delivery::Automatic) else { return };
    rig.apply("client");
    let mut talk = rig.pods[0].talk(rig.server(1, 80), PATIENCE).expect("connects");
    assert_eq!(talk.line("before", PATIENCE).expect("a socket"), Answer::Echoed);
    for round in 0..5 {
        rig.datapath.take().expect("open").persist().expect("pinned");
        assert_eq!(talk.line("while away", PATIENCE).expect("a socket"), Answer::Echoed);
        rig.reaches(2, false);
        let (state, attached) = rig.open();
        assert_ne!(state, State::Fresh, "round {round}");
        assert!(attached.iter().all(|endpoint| endpoint.adopted), "{attached:?}");
        assert_eq!(talk.line("adopted", PATIENCE).expect("a socket"), Answer::Echoed);
        rig.apply("client");
        assert_eq!(talk.line("applied", PATIENCE).expect("a socket"), Answer::Echoed);
        rig.reaches(2, false);
    }
    // What it was allowed under another process isn't inherited.
    rig.apply("stranger");
    assert_ne!(talk.line("after", SILENCE).expect("a socket"), Answer::Echoed);
    rig.datapath = None;
    rig.reaches(0, true);
}

#[test]
fn a_restart_on_tcx_keeps_connections_and_lets_nothing_through() {
    restart(HookKind::Tcx);
}

#[test]
fn a_restart_on_clsact_keeps_connections_and_lets_nothing_through() {
    restart(HookKind::Clsact);
}

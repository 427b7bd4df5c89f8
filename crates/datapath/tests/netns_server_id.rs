//! Server ids in an option of TCP on a wire: connections stay with their backend through a balancer that knows nothing of
//! them, and whose table would have them elsewhere.
//!
//! Privileged: without the capabilities, without a bridge or without cgroup v2, it says so in one line and is skipped.

mod segment;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use flowgate_abi::lb;
use flowgate_datapath::{
    lb::{BalancerOptions, LoadBalancer, XdpAttach},
    server_id::{Counter, ServerId, ServerIdError},
};
use flowgate_lab::{Answer, ControlGroups, LabError, Talk};
use flowgate_services::{
    Services, TcpServers,
    model::{Backend, BackendState, Forwarding, Service},
};
use segment::{ARM, PATIENCE, PORT, Segment, vips};

/// By which the backends are named.
const IDS: [u16; 2] = [0x102, 0x203];
/// Connections to each address of the service.
const TALKS: usize = 12;
/// The process is in one control group at a time.
static PROCESS: Mutex<()> = Mutex::new(());

/// An empty one of this process's own.
fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("flowgate-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).expect("a directory");
    path
}

/// One for each backend and for clients; `None`: there is no cgroup v2 here, which is said.
fn groups() -> Option<ControlGroups> {
    match ControlGroups::make(&["one", "two", "clients"]) {
        Err(LabError::Mount { source, .. }) => {
            println!("SKIPPED: no cgroup v2: {source}");
            None
        }
        made => Some(made.expect("control groups")),
    }
}

/// Connections through a balancer, and what names their servers while this lives.
struct Scene {
    talks: Vec<Talk>,
    balancer: LoadBalancer,
    backends: [Backend; 2],
    reads: bool,
    client: Option<ServerId>,
    servers: [ServerId; 2],
    _groups: ControlGroups,
    segment: Segment,
}

impl Scene {
    /// Both backends announce their ids; clients repeat them, and balancers read them, or don't.
    fn begin(repeats: bool, reads: bool) -> Option<Self> {
        let segment = Segment::plain()?;
        let groups = groups()?;
        let announce = |id: u16, name| {
            let server = ServerId::builder().server(id.into()).attach(groups.path(name));
            server.expect("attaches")
        };
        let servers = [announce(IDS[0], "one"), announce(IDS[1], "two")];
        for (pod, name) in segment.backends.iter().zip(["one", "two"]) {
            groups.enter(name).expect("the process may");
            segment::serve(pod);
        }
        let client = repeats.then(|| {
            let client = ServerId::builder().client().attach(groups.path("clients"));
            client.expect("attaches")
        });
        let listed = segment.listed();
        let backends = [listed[0].server_id(IDS[0]), listed[1].server_id(IDS[1])];
        let mut balancer = balancer();
        let _ = balancer.apply(&services(&backends, reads), Instant::now()).expect("fits");
        groups.enter("clients").expect("the process may");
        let talks = segment.talks(PORT, TALKS);
        Some(Self { talks, balancer, backends, reads, client, servers, _groups: groups, segment })
    }

    /// Another balancer takes this one's place: it knows nothing of flows, and its table has the second backend alone.
    fn replace(&mut self) {
        drop(std::mem::replace(&mut self.balancer, host()));
        let [one, two] = self.backends;
        let backends = [two, one.state(BackendState::Draining)];
        self.balancer = balancer();
        let services = services(&backends, self.reads);
        let _ = self.balancer.apply(&services, Instant::now()).expect("fits");
    }

    /// How many connections still are.
    fn alive(&mut self) -> usize {
        let answers = self.talks.iter_mut().map(|talk| talk.line("still there?", PATIENCE / 10));
        answers.filter(|answer| matches!(answer, Ok(Answer::Echoed))).count()
    }

    /// Packets to each backend, in the order in which they were listed first.
    fn sent(&self) -> [u64; 2] {
        let stats = self.balancer.stats().expect("read");
        let backends = &stats.services[0].backends;
        self.backends.map(|one| {
            let found = backends.iter().find(|(id, _)| *id == one.id());
            found.map_or(0, |(_, traffic)| traffic.packets)
        })
    }

    fn counted(&self, counters: [lb::Counter; 3]) -> [u64; 3] {
        let stats = self.balancer.stats().expect("read");
        counters.map(|counter| stats.get(counter))
    }
}

const COUNTERS: [lb::Counter; 3] =
    [lb::Counter::TcpNamed, lb::Counter::TcpUnnamed, lb::Counter::TcpUnknown];

fn balancer() -> LoadBalancer {
    let builder = LoadBalancer::builder().options(BalancerOptions::default());
    let mut balancer = builder.open().expect("opens");
    let _ = balancer.attach(ARM, XdpAttach::Generic).expect("attaches");
    balancer
}

/// One that is attached to nothing.
fn host() -> LoadBalancer {
    let builder = LoadBalancer::builder().backend(flowgate_datapath::Backend::Host);
    builder.open().expect("no privileges")
}

fn services(backends: &[Backend], reads: bool) -> Services {
    let service = vips().into_iter().fold(Service::tcp("web", PORT), Service::address);
    let mut service = service.forwarding(Forwarding::Layer2);
    service.options.tcp_option = Some(TcpServers { ids: 1024, ..TcpServers::default() });
    let mut service = backends.iter().copied().fold(service, Service::backend);
    if !reads {
        service.options.tcp_option = None;
        service.backends.iter_mut().for_each(|backend| backend.server_id = None);
    }
    Services::new([service]).expect("good")
}

#[test]
fn connections_stay_with_the_server_that_their_segments_name() {
    let _alone = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut scene) = Scene::begin(true, true) else { return };
    let all = vips().len() * TALKS;
    assert_eq!(scene.alive(), all);
    let [one, two] = scene.sent();
    assert!(one > 0 && two > 0, "both have connections: {one} and {two} packets");
    scene.replace();
    assert_eq!(scene.alive(), all, "each with the server that it had");
    let [one, two] = scene.sent();
    assert!(one > 0 && two > 0, "{one} and {two} packets");
    let [named, unnamed, unknown] = scene.counted(COUNTERS);
    assert_eq!((named, unnamed, unknown), (one + two, 0, 0), "every segment named its server");
    let client = scene.client.as_ref().expect("it repeats");
    let count = |counter| client.count(counter).expect("read");
    assert_eq!(count(Counter::Learned), all as u64);
    assert_eq!([count(Counter::Unannounced), count(Counter::NoRoom)], [0; 2]);
    assert!(count(Counter::Repeated) >= named, "{} of {named}", count(Counter::Repeated));
    let announced =
        || scene.servers.each_ref().map(|server| server.count(Counter::Announced).expect("read"));
    let [one, two] = announced();
    assert!(one > 0 && two > 0 && one + two >= all as u64, "{one} and {two} SYN-ACKs");
    // Whoever opens a connection now goes by the table.
    let _opened = scene.segment.talks(PORT, TALKS);
    assert_eq!(announced(), [one, two + all as u64]);
}

/// Connections to the first backend are lost with the table where clients say nothing, or the balancer doesn't read it.
#[test]
fn connections_are_lost_without_the_option() {
    let _alone = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    for (repeats, reads) in [(false, true), (true, false)] {
        let Some(mut scene) = Scene::begin(repeats, reads) else { return };
        let all = vips().len() * TALKS;
        assert_eq!(scene.alive(), all);
        scene.replace();
        let alive = scene.alive();
        assert!(alive > 0 && alive < all, "{alive} of {all} went on");
        assert_eq!(scene.sent()[0], 0, "the table has nobody but the second");
        let [named, unnamed, unknown] = scene.counted(COUNTERS);
        assert_eq!((named, unnamed > 0, unknown), (0, reads, 0));
    }
}

#[test]
fn what_is_no_control_group_is_refused_by_name() {
    let directory = directory("no-group");
    let missing = directory.join("missing");
    let client = ServerId::builder().client();
    let refused = |path: &Path| client.attach(path).expect_err("no control group");
    if matches!(refused(&directory), ServerIdError::Open(_)) {
        println!("SKIPPED: no privileges");
        return;
    }
    assert!(matches!(refused(&directory), ServerIdError::Refused { .. }));
    assert!(matches!(refused(&missing), ServerIdError::Unreadable { .. }));
    fs::remove_dir(directory).expect("it is empty");
}

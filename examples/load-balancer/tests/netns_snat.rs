//! `snat` forwarding, the program that runs: backends that know nothing of it, plain sockets in namespaces of
//! their own, and flows that outlive the process.
//!
//! Privileged: where namespaces can't be had, it says SKIPPED.

mod process;

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use flowgate_lab::{Answer, EchoServers, Node, Pod, Segment, Talk};
use flowgate_lb::{
    api::{
        Request,
        answer::{Backend, Explained, Stats, Status},
    },
    config::model::Protocol,
    health::Health,
};
use process::{PATIENCE, Running};

/// The services' ports.
const PORT: u16 = 80;
const ECHO: u16 = 7;
/// Where their backends listen.
const HTTP: u16 = 8080;
const OWN_ECHO: u16 = 7007;

fn both(last: u8) -> [IpAddr; 2] {
    [[198, 18, 5, last].into(), [0x2001, 0xdb8, 5, 0, 0, 0, 0, last.into()].into()]
}

/// What clients know; an address of the balancer's, so that it is found.
fn services() -> [IpAddr; 2] {
    both(100)
}

/// What backends know, likewise.
fn sources() -> [IpAddr; 2] {
    both(200)
}

/// What they know later.
fn others() -> [IpAddr; 2] {
    both(201)
}

/// A client, the balancer's host, and two backends in one segment.
struct Stage {
    client: Pod,
    balancer: Pod,
    backends: Vec<Pod>,
    _servers: Vec<EchoServers>,
    files: tempfile::TempDir,
    pins: PathBuf,
    _segment: Segment,
    _node: Node,
}

impl Stage {
    /// `None`: it can't be had here, which is said.
    fn set(test: &str) -> Option<Self> {
        if let Err(missing) = flowgate_lab::available() {
            println!("SKIPPED {test}: {missing}");
            return None;
        }
        let mut node = Node::enter().expect("namespaces of its own");
        let segment = node.add_segment().expect("a segment");
        let mut host = |name: &str, addresses: &[IpAddr]| {
            node.add_host(&segment, name, addresses).expect("a host")
        };
        let client = host("client", &both(1));
        let balancer = host("balancer", &[both(2), services(), sources(), others()].concat());
        let backends = vec![host("one", &both(11)), host("two", &both(12))];
        // Pages tell whom they are for.
        let serve = |pod: &Pod| pod.serve_http(HTTP, |peer| peer.to_string());
        backends.iter().for_each(|pod| serve(pod).expect("listens"));
        let servers = backends.iter().map(|pod| pod.serve(&[OWN_ECHO], &[OWN_ECHO]));
        let servers = servers.map(|server| server.expect("listens")).collect();
        let pins = node.bpffs().join("flowgate-lb");
        let files = tempfile::tempdir().expect("a directory");
        let stage = Self {
            client,
            balancer,
            backends,
            _servers: servers,
            files,
            pins,
            _segment: segment,
            _node: node,
        };
        stage.write(&sources());
        Some(stage)
    }

    fn path(&self) -> PathBuf {
        self.files.path().join("lb.yaml")
    }

    /// The file, with these sources.
    fn write(&self, sources: &[IpAddr]) {
        let sources: Vec<String> = sources.iter().map(|one| format!("'{one}'")).collect();
        let mut text = format!(
            "directory: {}\npin: {}\ninterfaces: [{{name: {}, mode: generic}}]\n\
             limits: {{slots: 16384, frontends: 64, backends: 64, services: 16}}\n\
             nat: {{sources: [{}]}}\nservices:\n",
            self.files.path().join("run").display(),
            self.pins.display(),
            self.balancer.interface(),
            sources.join(", ")
        );
        for family in 0..2 {
            text += &self.service((&format!("http{family}"), "tcp"), (PORT, HTTP), family);
            text += &self.service((&format!("echo{family}"), "tcp"), (ECHO, OWN_ECHO), family);
            text += &self.service((&format!("datagrams{family}"), "udp"), (ECHO, OWN_ECHO), family);
        }
        fs::write(self.path(), text).expect("written");
    }

    fn service(&self, (name, protocol): (&str, &str), ports: (u16, u16), family: usize) -> String {
        let backend = |pod: &Pod| {
            let address = pod.addresses()[family];
            format!("{{address: '{address}', port: {}, mac: '{}'}}", ports.1, pod.mac())
        };
        let backends: Vec<String> = self.backends.iter().map(backend).collect();
        let check = match protocol {
            "tcp" => "check: {probe: tcp, interval: 200ms, timeout: 200ms}",
            _ => "fragments: drop",
        };
        format!(
            "  - {{name: {name}, addresses: ['{}'], protocol: {protocol}, port: {}, forwarding: snat, {check}, \
             backends: [{}]}}\n",
            services()[family],
            ports.0,
            backends.join(", ")
        )
    }

    /// Starts the program, and waits until every check has succeeded.
    fn start(&self) -> Running {
        let directory = self.files.path().join("run");
        let mut running = Running::start(&self.balancer, &self.path(), directory);
        running.wait("every backend is up", |running| {
            let asked = running.try_ask::<Vec<Backend>>(&Request::Backends { service: None });
            let checked = |all: Vec<Backend>| all.into_iter().filter_map(|one| one.health);
            asked.is_some_and(|all| checked(all).filter(|one| *one == Health::Up).count() == 8)
        });
        running
    }

    /// Connections to the echo services of both families, so many each.
    fn talks(&self, count: usize) -> Vec<Talk> {
        let to = |vip| self.client.talk(SocketAddr::new(vip, ECHO), PATIENCE).expect("connects");
        services().into_iter().flat_map(|vip| (0..count).map(move |_| to(vip))).collect()
    }

    /// New flows of every service come through, from these sources as their backends see it.
    fn all_serve(&self, sources: [IpAddr; 2]) {
        for (vip, source) in services().into_iter().zip(sources) {
            for _ in 0..4 {
                let page = self.client.get(SocketAddr::new(vip, PORT), PATIENCE).expect("a page");
                assert!(page.ends_with(&format!("\r\n\r\n{source}")), "{page}");
                let echoed = self.client.udp(SocketAddr::new(vip, ECHO), PATIENCE);
                assert_eq!(echoed.expect("asked"), Answer::Echoed);
            }
        }
    }
}

/// They are what they were, and get their answers.
#[track_caller]
fn all_answer(talks: &mut [Talk]) {
    for talk in talks {
        let answer = talk.line("still there?", PATIENCE).expect("nothing else comes back");
        assert_eq!(answer, Answer::Echoed, "{:?} to {}", talk.source(), talk.destination());
    }
}

/// The balancer tells by which source, to whose own port.
fn is_explained(running: &Running, talk: &Talk) {
    let (client, service) = (talk.source().expect("connected"), talk.destination());
    let request = Request::Explain {
        client,
        service,
        protocol: Protocol::Tcp,
        quic_connection_id: None,
        server_id: None,
    };
    let told = running.try_ask::<Explained>(&request).expect("it answers");
    let translated = told.translated.expect("it has a port");
    assert!(sources().contains(&translated.source.ip()), "{told:?}");
    assert_eq!(
        (Some(translated.destination.ip()), translated.destination.port()),
        (told.backend, OWN_ECHO)
    );
}

#[test]
fn backends_that_know_nothing_of_it_serve_and_flows_outlive_a_kill() {
    let Some(stage) = Stage::set("backends_that_know_nothing_of_it_serve_and_flows_outlive_a_kill")
    else {
        return;
    };
    let mut running = stage.start();
    stage.all_serve(sources());
    let mut open = stage.talks(4);
    all_answer(&mut open);
    for _ in 0..2 {
        drop(running);
        all_answer(&mut open);
        open.extend(stage.talks(2));
        stage.all_serve(sources());
        running = stage.start();
        all_answer(&mut open);
    }
    let stats = running.try_ask::<Stats>(&Request::Stats).expect("it answers");
    let taken: Vec<(IpAddr, bool)> =
        stats.sources.iter().map(|one| (one.source, one.taken >= open.len() / 2)).collect();
    assert_eq!(taken, sources().map(|source| (source, true)));
    open.iter().for_each(|talk| is_explained(&running, talk));
    let status = running.try_ask::<Status>(&Request::Status).expect("it answers");
    assert_eq!((status.services, status.backends, status.dropped), (6, 12, 0));
}

#[test]
fn sources_change_by_a_reload_and_flows_stay() {
    let Some(stage) = Stage::set("sources_change_by_a_reload_and_flows_stay") else { return };
    let mut running = stage.start();
    let mut open = stage.talks(3);
    stage.write(&others());
    let listed = |running: &Running| -> Vec<(IpAddr, bool)> {
        let stats = running.try_ask::<Stats>(&Request::Stats).expect("it answers");
        stats.sources.iter().map(|one| (one.source, one.retired)).collect()
    };
    let retired = |source| (source, true);
    let expected: BTreeSet<_> =
        sources().map(retired).into_iter().chain(others().map(|one| (one, false))).collect();
    let turned = |running: &Running| expected == listed(running).into_iter().collect();
    running.wait("the file is taken over", turned);
    for _ in 0..2 {
        all_answer(&mut open);
        stage.all_serve(others());
        open.iter().for_each(|talk| is_explained(&running, talk));
        drop(running);
        all_answer(&mut open);
        running = stage.start();
        assert!(turned(&running), "the next process has them: {:?}", listed(&running));
    }
    let status = running.try_ask::<Status>(&Request::Status).expect("it answers");
    assert_eq!(status.dropped, 0);
}

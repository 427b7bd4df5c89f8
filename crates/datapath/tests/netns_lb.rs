//! The load balancer on a wire: real sockets of both families through XDP, connections that outlive changes
//! and killed processes.
//!
//! Privileged: without the capabilities, or without a bridge, each test says so in one line and is skipped.

mod segment;

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use flowgate_abi::{DropReason, lb::Counter};
use flowgate_datapath::lb::{
    AttachedXdp, BalancerOptions, BalancerState, Builder, Fate, LoadBalancer, Notice, XdpAttach,
    XdpMode,
};
use flowgate_lab::Answer;
use flowgate_services::{
    Services,
    model::{AFFINITY, Backend, BackendState, Service},
};
use segment::{ARM, PATIENCE, PORT, Segment, all_answer, services, vips};

/// Far longer than an answer takes.
const BRIEFLY: Duration = Duration::from_millis(300);

fn builder() -> Builder {
    let builder = LoadBalancer::builder().options(BalancerOptions::default());
    match std::env::var_os("FLOWGATE_OBJECT") {
        Some(path) => builder.object(std::fs::read(path).expect("the object is there")),
        None => builder,
    }
}

/// Opened, attached, with all backends.
fn start(builder: Builder, backends: &[Backend]) -> (LoadBalancer, AttachedXdp) {
    let mut balancer = builder.open().expect("opens");
    let attached = balancer.attach(ARM, XdpAttach::Generic).expect("attaches");
    let _ = balancer.apply(&services(backends), Instant::now()).expect("fits");
    (balancer, attached)
}

/// Connections that each backend of the service of streams got.
fn opened(balancer: &LoadBalancer) -> Vec<u64> {
    let stats = balancer.stats().expect("read");
    let streams = stats.services.iter().find(|service| service.name.as_str() == "streams");
    streams.expect("it runs").backends.iter().map(|(_, traffic)| traffic.opened).collect()
}

#[test]
fn streams_datagrams_and_pings_are_answered_at_both_addresses() {
    let Some(segment) = Segment::new() else { return };
    let (mut balancer, attached) = start(builder(), &segment.listed());
    assert_eq!((attached.mode, attached.adopted), (XdpMode::Generic, false));
    let mut talks = segment.talks(PORT, 16);
    all_answer(&mut talks);
    for vip in vips() {
        let destination = SocketAddr::new(vip, PORT);
        assert_eq!(segment.client.udp(destination, PATIENCE).expect("asked"), Answer::Echoed);
        assert_eq!(segment.client.ping(vip, PATIENCE).expect("asked"), Answer::Echoed);
    }
    assert!(opened(&balancer).iter().all(|opened| *opened > 5), "{:?}", opened(&balancer));
    let stats = balancer.stats().expect("read");
    assert!(stats.get(Counter::EchoesAnswered) >= 2);
    assert!(stats.drops.is_empty(), "{:?}", stats.drops);
    refuses_super_packets(&mut balancer, attached.mtu);
}

#[test]
fn a_veth_whose_other_end_takes_nothing_is_told_of() {
    let Some(segment) = Segment::new() else { return };
    let (mut balancer, _) = start(builder(), &segment.listed());
    let notice = |balancer: &LoadBalancer| balancer.notice(ARM).expect("it is there");
    assert_eq!(notice(&balancer), None, "in generic mode everything arrives");
    assert!(balancer.detach(ARM).expect("it is there"));
    assert_eq!(notice(&balancer), None, "the balancer isn't there");
    let _ = balancer.attach(ARM, XdpAttach::Any).expect("attaches");
    assert!(matches!(notice(&balancer), Some(Notice::VethPeer { .. })));
    let ask = |vip| segment.client.ping(vip, BRIEFLY).expect("asked");
    assert!(vips().iter().all(|vip| ask(*vip) != Answer::Echoed));
    let Some(Notice::VethPeer { dropped }) = notice(&balancer) else { panic!("it is as before") };
    assert!(dropped >= 2, "{dropped}");
    let mut other = builder().open().expect("opens");
    let _ = other.attach("arm", XdpAttach::Native).expect("attaches");
    assert_eq!(notice(&balancer), None);
    assert!(vips().iter().all(|vip| ask(*vip) == Answer::Echoed));
}

/// What no wire can have delivered isn't sent on, nor answered.
fn refuses_super_packets(balancer: &mut LoadBalancer, mtu: u32) {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
    frame.extend((mtu as u16 + 1000).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 198, 18, 5, 1, 198, 51, 100, 1]);
    frame.extend([0x9c, 0x40, 0, PORT as u8, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff]);
    frame.resize(14 + mtu as usize + 1000, 0);
    let passed = balancer.replay(&frame).expect("it runs");
    assert_eq!(passed.fate, Fate::Drop(None));
    let drops = balancer.stats().expect("read").drops;
    assert_eq!(drops.get(&DropReason::SuperPacket).map(|tally| tally.packets), Some(1));
}

#[test]
fn connections_keep_their_backend_while_it_drains_and_lose_it_with_it() {
    let Some(segment) = Segment::new() else { return };
    let listed = segment.listed();
    let (mut balancer, _) = start(builder(), &listed);
    let mut talks = segment.talks(PORT, 16);
    all_answer(&mut talks);
    let draining = [listed[0].state(BackendState::Draining), listed[1]];
    let _ = balancer.apply(&services(&draining), Instant::now()).expect("fits");
    let mut later = Instant::now();
    for _ in 0..4 {
        // As if handshakes had had their time.
        later += Duration::from_secs(5);
        let _ = balancer.tick(later).expect("it ticks");
        all_answer(&mut talks);
    }
    let before = opened(&balancer);
    all_answer(&mut segment.talks(PORT, 16));
    let after = opened(&balancer);
    assert_eq!(after[0], before[0], "a backend that drains gets no new connection");
    assert!(after[1] > before[1]);
    // Taken out: its connections are reset by the other one, which doesn't know them.
    let _ = balancer.apply(&services(&listed[1..]), later).expect("fits");
    let answers = talks.iter_mut().map(|talk| talk.line("still there?", PATIENCE));
    let kept = answers.filter(|answer| matches!(answer, Ok(Answer::Echoed))).count();
    assert!((1..talks.len()).contains(&kept), "{kept} of {} kept", talks.len());
}

/// The same services, whose clients keep their backends.
fn sticky(backends: &[Backend]) -> Services {
    let mut sticky = Vec::new();
    for service in services(backends).iter() {
        let mut service = Service::clone(service);
        service.options.affinity = Some(AFFINITY);
        sticky.push(service);
    }
    Services::new(sticky).expect("good services")
}

#[test]
fn a_client_keeps_its_backend_with_affinity_and_across_adoption() {
    let Some(segment) = Segment::new() else { return };
    let (listed, pins) = (segment.listed(), segment.node.bpffs().join("balancer"));
    let (mut balancer, _) = start(builder().pin(&pins), &[]);
    let _ = balancer.apply(&sticky(&listed[..1]), Instant::now()).expect("fits");
    let mut talks = segment.talks(PORT, 8);
    all_answer(&mut talks);
    // By the table, everything new is the other one's.
    let draining = [listed[0].state(BackendState::Draining), listed[1]];
    let _ = balancer.apply(&sticky(&draining), Instant::now()).expect("fits");
    balancer.persist().expect("it has pins");
    let mut balancer = builder().pin(&pins).open().expect("adopts");
    let attached = balancer.attach(ARM, XdpAttach::Generic).expect("attaches");
    let _ = balancer.apply(&sticky(&draining), Instant::now()).expect("fits");
    let mut later = Instant::now();
    for _ in 0..4 {
        later += Duration::from_secs(5);
        let _ = balancer.tick(later).expect("it ticks");
        talks.extend(segment.talks(PORT, 2));
        all_answer(&mut talks);
    }
    assert!(attached.adopted);
    assert_eq!(opened(&balancer), [talks.len() as u64, 0], "the client stays where it was");
    let _ = balancer.apply(&sticky(&listed[1..]), later).expect("fits");
    all_answer(&mut segment.talks(PORT, 4));
    assert_eq!(opened(&balancer), [8], "whose backend is gone gets another one");
    assert_eq!(balancer.stats().expect("read").get(Counter::PinsRefused), 0);
}

#[test]
fn a_killed_process_breaks_no_connection() {
    let Some(segment) = Segment::new() else { return };
    let pins = segment.node.bpffs().join("balancer");
    let mut process = Process::start(&pins, &segment.listed());
    let mut talks = segment.talks(PORT, 16);
    for _ in 0..3 {
        all_answer(&mut talks);
        process.kill();
        all_answer(&mut talks);
        talks.extend(segment.talks(PORT, 2));
        process = Process::start(&pins, &segment.listed());
    }
    process.kill();
    let (balancer, attached) = start(builder().pin(&pins), &segment.listed());
    assert!(attached.adopted, "the link is taken over");
    assert_eq!(balancer.report().state, BalancerState::Adopted { services: 2 });
    all_answer(&mut talks);
}

const VARIABLE: &str = "FLOWGATE_BALANCER";

/// A process that balances.
struct Process(Child);

impl Process {
    /// Starts one in this thread's namespaces, and waits until it balances.
    fn start(pins: &Path, backends: &[Backend]) -> Self {
        let mut setting = pins.display().to_string();
        for backend in backends {
            let flowgate_services::model::NextHop::Mac(mac) = backend.next_hop else { continue };
            setting += &format!(" {} {}", backend.address, mac.map(|b| b.to_string()).join(":"));
        }
        let mut child = Command::new(std::env::current_exe().expect("this executable"))
            .args(["--exact", "balancing_process", "--ignored", "--nocapture"])
            .env(VARIABLE, setting)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = output.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("balances")), "it gets ready");
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().expect("it runs");
        let status = self.0.wait().expect("it was started");
        assert_eq!(status.code(), None, "it ended by itself: {status}");
    }
}

/// None outlives its test.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test of its own: the process that is started and killed.
#[test]
#[ignore = "the balancing process, which another test starts"]
fn balancing_process() {
    let setting = std::env::var(VARIABLE).expect("started by another test");
    let mut words = setting.split(' ');
    let pins = PathBuf::from(words.next().expect("pins"));
    let mut backends = Vec::new();
    while let (Some(address), Some(mac)) = (words.next(), words.next()) {
        let bytes: Vec<u8> = mac.split(':').filter_map(|byte| byte.parse().ok()).collect();
        let mac = flowgate_services::model::NextHop::Mac(bytes.try_into().expect("a MAC"));
        backends.push(Backend::new(address.parse().expect("an address")).next_hop(mac));
    }
    let (mut balancer, _) = start(builder().pin(pins), &backends);
    // Who started it and is gone holds the other end no more.
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    println!("balances");
    loop {
        let ticked = balancer.tick(Instant::now()).expect("it ticks");
        thread::sleep(ticked.next.min(Duration::from_millis(20)));
    }
}

//! Floods through the attached programs, beside connections that must not notice: of SYNs, of one-way
//! datagrams, of first fragments.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.
//! `FLOWGATE_FLOOD=full` floods for a minute, with 10,000 live connections and a table for 131,072
//! flows; `--nocapture` shows the figures.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use flowgate_abi::{DropReason, event::Counter, flow};
use flowgate_conformance::{checksum::with_checksum, envelope, frames::Frame};
use flowgate_datapath::{Delivery, Options, TrackedFlow};
use flowgate_lab::{Answer, RawSocket, probe};
use flowgate_policy::{model::Ports, outcome::FlowProtocol};

mod rig;
mod wire;
use rig::{CLIENT, PATIENCE, Rig, SERVER, STRANGER, Setup, until};
use wire::{DNS, datagram, flow as flow_of, from_pod};

const WEB: u16 = 80;

/// How large a flood is.
struct Scale {
    live: usize,
    flows: usize,
    least: Duration,
}

impl Scale {
    fn chosen() -> Self {
        match std::env::var("FLOWGATE_FLOOD").as_deref() {
            Ok("full") => Self { live: 10_000, flows: 1 << 17, least: Duration::from_secs(60) },
            _ => Self { live: 500, flows: 4096, least: Duration::from_secs(2) },
        }
    }

    /// What the table has room for at all, and more.
    fn ways(&self) -> u64 {
        3 * self.flows as u64 + u64::from(flow::WAYS)
    }
}

/// Floods share the machine's processors with what they are to leave alone: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static FLOODING: Mutex<()> = Mutex::new(());
    FLOODING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends packets of ever new flows, until it is told to stop; how many.
fn flood(raw: &RawSocket, template: &[u8], (sent, stop): (&AtomicU64, &AtomicBool)) {
    let mut frames = vec![template.to_vec(); 512];
    while !stop.load(Ordering::Relaxed) {
        let begun = sent.load(Ordering::Relaxed);
        for (number, frame) in (begun..).zip(&mut frames) {
            *frame = of_flow(std::mem::take(frame), number);
        }
        raw.send_all(&frames).expect("sends");
        sent.store(begun + frames.len() as u64, Ordering::Relaxed);
    }
}

/// Gives a frame the ports of flow `number`; three thousand million differ.
fn of_flow(mut frame: Vec<u8>, number: u64) -> Vec<u8> {
    let (source, destination) = (1024 + number % 60_000, 10_000 + number / 60_000 % 50_000);
    let ports = if frame[12] == 8 { 34 } else { 54 };
    frame[ports..ports + 2].copy_from_slice(&(source as u16).to_be_bytes());
    frame[ports + 2..ports + 4].copy_from_slice(&(destination as u16).to_be_bytes());
    with_checksum(frame)
}

/// New connections of somebody who has nothing to do with it: attempts and failures.
fn newcomers(web: SocketAddr, stop: &AtomicBool) -> (u32, u32) {
    let (mut attempts, mut failures) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let answer = probe::tcp(web, PATIENCE).expect("a socket");
        attempts += 1;
        failures += u32::from(answer != Answer::Echoed);
        // A client has but so many ports, and each rests for a minute.
        thread::sleep(Duration::from_millis(5));
    }
    (attempts, failures)
}

/// Flows that a pod opened and of which so many packets were seen.
fn tracked_from(rig: &Rig, pod: usize, packets: u32) -> usize {
    let own = rig.pods[pod].addresses();
    let flows = rig.datapath.flows().expect("readable");
    let theirs = |flow: &&TrackedFlow| own.contains(&flow.source) && flow.packets[0] >= packets;
    flows.iter().filter(theirs).count()
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn live_connections_survive(family: usize, protocol: FlowProtocol) {
    let _alone = alone();
    let scale = Scale::chosen();
    let options = Options { flows4: scale.flows, flows6: scale.flows, ..Options::default() };
    let setup = Setup::by(Delivery::RedirectPeer);
    let Some(rig) = Rig::new(&Setup { options, stranger: Ports::Any, ..setup }) else { return };
    let web = rig.server(family, WEB);
    let _servers = rig.pods[SERVER].serve(&[WEB], &[]).expect("servers");
    let crowd = rig.pods[CLIENT].crowd(scale.live, web, PATIENCE).expect("connects");
    assert_eq!(crowd.line("before", 6 * PATIENCE), scale.live);

    let stranger = rig.pods[STRANGER].addresses()[family];
    let first = Frame::opening(flow_of(stranger, web.ip(), protocol), 0);
    let template = from_pod(&rig.pods[STRANGER], Frame { payload: 0, ..first }.bytes());
    let raw = rig.pods[STRANGER].raw().expect("a packet socket");
    let (sent, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (before, begun) = (resident(), Instant::now());
    let mut rounds = 0;
    let (attempts, failures) = thread::scope(|scope| {
        scope.spawn(|| flood(&raw, &template, (&sent, &stop)));
        let newcomers = scope.spawn(|| rig.pods[CLIENT].run(|| newcomers(web, &stop)));
        let enough = |rounds| {
            rounds >= 3
                && begun.elapsed() >= scale.least
                && sent.load(Ordering::Relaxed) > 3 * scale.ways()
        };
        while !enough(rounds) {
            let talking = crowd.line("during", 6 * PATIENCE);
            if talking < scale.live {
                stop.store(true, Ordering::Relaxed);
            }
            assert_eq!(talking, scale.live, "a live connection was interrupted");
            rounds += 1;
        }
        stop.store(true, Ordering::Relaxed);
        newcomers.join().expect("no panic").expect("a thread")
    });
    let (took, after) = (begun.elapsed(), resident());
    assert_eq!(crowd.line("after", 6 * PATIENCE), scale.live);
    // Opening, and each line with its acknowledgement of the one before: all by one entry.
    let kept = tracked_from(&rig, CLIENT, rounds + 3);
    assert_eq!(kept, scale.live, "a live connection lost its entry, and got another one");

    let sent = sent.into_inner();
    let evicted = rig.count(Counter::FlowsEvicted);
    let drops = rig.drops();
    println!(
        "{protocol:?} flood of IPv{}: {sent} packets in {took:.1?} ({:.0} per second) beside {} live \
         connections asked {rounds} times; {evicted} flows evicted, drops {drops:?}; {attempts} new \
         connections, {failures} failed; resident {before} KiB before, {after} after",
        4 + 2 * family,
        sent as f64 / took.as_secs_f64(),
        scale.live,
    );
    assert!(evicted > 0, "the table was full");
    assert!(failures * 100 <= attempts, "{failures} of {attempts} new connections failed");
    assert!(after < before + 16 * 1024, "memory grew from {before} to {after} KiB");
    assert!(drops.keys().all(|reason| *reason == DropReason::FlowTableFull), "{drops:?}");
}

#[test]
fn a_syn_flood_of_ipv4_interrupts_nobody() {
    live_connections_survive(0, FlowProtocol::Tcp(0));
}

#[test]
fn a_syn_flood_of_ipv6_interrupts_nobody() {
    live_connections_survive(1, FlowProtocol::Tcp(0));
}

#[test]
fn a_flood_of_datagrams_interrupts_nobody() {
    live_connections_survive(0, FlowProtocol::Udp(0));
}

/// Datagrams of the flood, half of each family, of which the first fragment alone is ever sent.
const DATAGRAMS: u16 = 20_000;

/// A fragment of a datagram to port 53: the first, or, without a first, one that looks like it.
fn fragment(rig: &Rig, number: u16, first: bool) -> Vec<u8> {
    let frame = Frame { payload: 56, ..datagram(rig, usize::from(number % 2), (DNS, 0)) };
    let whole = from_pod(&rig.pods[STRANGER], frame.bytes());
    let pieces = envelope::fragments(&whole, number, 32);
    if first {
        return pieces[0].clone();
    }
    // Its payload begins with the first one's ports, behind the network header.
    let ports = 14 + [20, 48][usize::from(number % 2)];
    let mut later = pieces[1].clone();
    later[ports..ports + 8].copy_from_slice(&pieces[0][ports..ports + 8]);
    later
}

fn dropped(rig: &Rig, reason: DropReason) -> u64 {
    rig.drops().get(&reason).copied().unwrap_or_default()
}

#[test]
fn a_flood_of_first_fragments_takes_no_whole_datagram_along() {
    let _alone = alone();
    let Some(rig) = Rig::new(&Setup::by(Delivery::RedirectPeer)) else { return };
    let _servers = rig.pods[SERVER].serve(&[], &[DNS]).expect("servers");
    let raw = rig.pods[STRANGER].raw().expect("a packet socket");
    let firsts: Vec<Vec<u8>> = (0..DATAGRAMS).map(|number| fragment(&rig, number, true)).collect();
    raw.send_all(&firsts).expect("sends");
    let (full, lost) = (DropReason::FragmentTableFull, DropReason::FragmentNotFound);
    let passed = || {
        let flows = rig.datapath.flows().expect("readable");
        flows.iter().map(|flow| u64::from(flow.packets[0])).sum::<u64>()
    };
    until("every one is judged", || passed() + dropped(&rig, full) == u64::from(DATAGRAMS));
    let refused = dropped(&rig, full);
    println!("{} first fragments fit, {refused} did not", passed());
    assert!(refused > 0, "the table was full");

    // Whole datagrams need no room. In pieces, a datagram arrives whole or not at all.
    for family in 0..2 {
        let answer = rig.pods[CLIENT].udp(rig.server(family, DNS), PATIENCE).expect("a socket");
        assert_eq!(answer, Answer::Echoed);
    }
    in_pieces_beside_a_flood(&rig, refused);

    // A later fragment has no ports, whatever its bytes look like.
    let (before, unmatched) = (passed(), dropped(&rig, lost));
    let laters: Vec<Vec<u8>> =
        (0..1000).map(|number| fragment(&rig, 30_000 + number, false)).collect();
    raw.send_all(&laters).expect("sends");
    until("every one is dropped", || dropped(&rig, lost) == unmatched + 1000);
    assert_eq!(passed(), before);
    assert!(rig.drops().keys().all(|reason| [full, lost].contains(reason)), "{:?}", rig.drops());

    for family in 0..2 {
        let dns = rig.server(family, DNS);
        let answer = rig.pods[CLIENT].udp_of(20_000, dns, 2 * PATIENCE).expect("a socket");
        assert_eq!(answer, Answer::Echoed, "once the flood's are forgotten, there is room again");
    }
}

/// Bytes of a large datagram, and in how many fragments they travel.
const LARGE: usize = 20_000;
const PIECES: u64 = 14;

fn in_pieces_beside_a_flood(rig: &Rig, refused: u64) {
    let inbox = wire::Inbox::open(rig, rig.server(0, DNS + 1));
    let client =
        rig.pods[CLIENT].run(|| UdpSocket::bind("0.0.0.0:0")).expect("runs").expect("binds");
    for _ in 0..50 {
        client.send_to(&[7; LARGE], rig.server(0, DNS + 1)).expect("sends");
    }
    client.send_to(b"the last one", rig.server(0, DNS + 1)).expect("sends");
    let lengths: Vec<usize> =
        std::iter::repeat_with(|| inbox.next()).take_while(|n| *n != 12).collect();
    assert!(lengths.iter().all(|length| *length == LARGE), "{lengths:?}");
    let missing = 50 - lengths.len() as u64;
    println!("of 50 datagrams in fragments, {missing} found no room");
    assert_eq!(dropped(rig, DropReason::FragmentTableFull), refused + missing);
    assert_eq!(dropped(rig, DropReason::FragmentNotFound), missing * (PIECES - 1));
}

//! Random walks over the host pipeline's flow table agree with the reference model, whose rules are
//! written down in `flowgate_conformance::connections`; and every time-out holds to the unit.

use std::cell::RefCell;

use flowgate_abi::{DropReason, Settings, event::Hook};
use flowgate_conformance::{
    connections::{Tally, UNIT},
    frames::{Frame, tcp},
    trio::{Party, Rules, Trio},
    walk::{Conversation, Divergence, Rig, Step, Walk},
};
use flowgate_pipeline::Verdict;
use flowgate_policy::{
    host::{HostRoom, HostTables},
    install::{Installer, Store},
    outcome::FlowProtocol,
};
use proptest::{array::uniform3, collection::vec, prelude::*, test_runner::FileFailurePersistence};

thread_local! {
    static RIG: RefCell<Rig> = RefCell::new(Rig::new());
}

fn walk(walk: &Walk) -> Result<Tally, Divergence> {
    RIG.with_borrow_mut(|rig| rig.walk(walk))
}

fn read(bytes: &[u8]) -> Walk {
    RIG.with_borrow(|rig| Walk::read(bytes, rig.timeouts()))
}

fn config() -> ProptestConfig {
    let failures = FileFailurePersistence::WithSource("regressions");
    ProptestConfig {
        cases: 1200,
        failure_persistence: Some(Box::new(failures)),
        ..Default::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_walk_is_the_models(bytes in vec(uniform3(any::<u8>()), 1..100)) {
        let drawn = read(&bytes.concat());
        if let Err(divergence) = walk(&drawn) {
            prop_assert!(false, "{}\n{}", divergence, drawn);
        }
    }
}

/// The walks above are worth something: everything that can happen does, often.
#[test]
fn walks_meet_everything() {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 56) as u8
    };
    let mut sum = Tally::default();
    for _ in 0..500 {
        let bytes: Vec<u8> = (0..180).map(|_| random()).collect();
        let tally = walk(&read(&bytes)).unwrap_or_else(|divergence| panic!("{divergence}"));
        sum.opened += tally.opened;
        sum.rejudged += tally.rejudged;
        sum.kept += tally.kept;
        sum.revoked += tally.revoked;
        sum.related += tally.related;
    }
    println!("500 walks: {sum:?}");
    assert!(sum.opened > 1000 && sum.rejudged > 100 && sum.related > 100);
    assert!(sum.revoked > 50 && sum.kept > 20);
}

const TCP: Conversation =
    Conversation { from: Party::Client, to: Party::Server, protocol: FlowProtocol::Tcp(80) };
const UDP: Conversation =
    Conversation { from: Party::Client, to: Party::Server, protocol: FlowProtocol::Udp(53) };
const PING: Conversation = Conversation {
    from: Party::Outside,
    to: Party::Server,
    protocol: FlowProtocol::Icmp { icmp_type: 8 },
};

fn there(conversation: Conversation, flags: u8) -> Step {
    Step::Send(conversation.frame(false, false, flags))
}

fn back(conversation: Conversation, flags: u8) -> Step {
    Step::Send(conversation.frame(false, true, flags))
}

fn handshake() -> Vec<Step> {
    vec![there(TCP, tcp::SYN), back(TCP, tcp::SYN | tcp::ACK), there(TCP, tcp::ACK)]
}

fn then(mut steps: Vec<Step>, more: &[Step]) -> Vec<Step> {
    steps.extend(more);
    steps
}

/// How a connection comes into a state, the packet that shows whether it is still there (the server
/// may not open one to the client), and the time-out of the state in units.
fn states() -> Vec<(&'static str, Vec<Step>, Frame, u64)> {
    let timeouts = RIG.with_borrow(|rig| *rig.timeouts());
    let (fin, rst) = (tcp::FIN | tcp::ACK, tcp::RST);
    let tcp_back = TCP.frame(false, true, tcp::ACK);
    let datagram_back = UDP.frame(false, true, 0);
    let (opening, established) = (timeouts.opening, timeouts.established);
    let half_closed = then(handshake(), &[there(TCP, fin), back(TCP, tcp::ACK)]);
    vec![
        ("SYN sent", vec![there(TCP, tcp::SYN)], tcp_back, opening),
        ("SYN answered", handshake()[..2].to_vec(), tcp_back, opening),
        ("established", handshake(), tcp_back, established),
        ("half closed", half_closed.clone(), tcp_back, established),
        ("closed", then(half_closed, &[back(TCP, fin)]), tcp_back, timeouts.closing),
        ("reset", then(handshake(), &[there(TCP, rst)]), tcp_back, timeouts.closing),
        ("reset back", then(handshake(), &[back(TCP, rst)]), tcp_back, timeouts.closing),
        ("one datagram", vec![there(UDP, 0)], datagram_back, opening),
        ("answered", vec![there(UDP, 0), back(UDP, 0)], datagram_back, timeouts.answered),
        ("pinged", vec![there(PING, 0)], PING.frame(false, true, 0), opening),
        (
            "ping answered",
            vec![there(PING, 0), back(PING, 0)],
            PING.frame(false, true, 0),
            timeouts.answered,
        ),
    ]
}

/// Soon after a boot, and so that 2^32 jiffies or 2^30 units of an age are crossed while waiting.
fn starts(wait: u64) -> [u64; 5] {
    let (jiffies, units) = (1u64 << 32, 1u64 << 38);
    [1 << 26, jiffies - 1, jiffies - wait, units - 1, units - wait]
}

#[test]
fn a_connection_lives_as_long_as_its_state_allows_and_no_longer() {
    for (name, steps, probe, timeout) in states() {
        for (units, alive) in [(timeout, true), (timeout + 1, false)] {
            for start in starts(units * UNIT) {
                let steps = then(steps.clone(), &[Step::Wait(units * UNIT), Step::Send(probe)]);
                let result = walk(&Walk { start, rules: Rules::OneWay, steps: steps.clone() });
                assert!(result.is_ok(), "{name}, {units} units from {start}: {result:?}");
                // Once more, against the words of the test instead of those of the model.
                let passed = passes(start, steps);
                assert_eq!(passed, alive, "{name}, {units} units from {start}");
            }
        }
    }
}

/// Whether the last packet of a walk passes; found out by an error about it, which passes as far as
/// its connection does.
fn passes(start: u64, mut steps: Vec<Step>) -> bool {
    let Some(Step::Send(probe)) = steps.pop() else { panic!("a packet comes last") };
    steps.push(Step::Report(Frame { reply: !probe.reply, ..probe }));
    let tally = walk(&Walk { start, rules: Rules::OneWay, steps }).expect("agreed");
    tally.related == 1
}

#[test]
fn a_closed_connection_may_be_opened_again_at_once() {
    let fin = tcp::FIN | tcp::ACK;
    let closed = then(handshake(), &[there(TCP, fin), back(TCP, fin), there(TCP, tcp::ACK)]);
    let again = then(closed, &handshake());
    let tally = walk(&Walk { start: 1 << 26, rules: Rules::OneWay, steps: again }).unwrap();
    assert_eq!(tally.opened, 2);
}

#[test]
fn an_answer_to_nothing_passes_nowhere() {
    for conversation in [TCP, UDP, PING] {
        let steps = vec![back(conversation, tcp::SYN | tcp::ACK)];
        let tally = walk(&Walk { start: 1 << 26, rules: Rules::OneWay, steps }).unwrap();
        assert_eq!(tally, Tally::default(), "{conversation:?}");
    }
}

#[test]
fn what_rules_cut_stays_cut_until_a_syn() {
    let cut = then(
        handshake(),
        &[Step::Change(Rules::Closed), there(TCP, tcp::ACK), back(TCP, tcp::ACK)],
    );
    let opened = then(cut, &[Step::Change(Rules::OneWay), there(TCP, tcp::SYN)]);
    let tally = walk(&Walk { start: 1 << 26, rules: Rules::OneWay, steps: opened }).unwrap();
    assert_eq!((tally.opened, tally.revoked, tally.rejudged), (2, 1, 0));
}

/// Two buckets of seven ways for connections of a few dozen ports: they spill, evict and fill up.
struct Crowd {
    trio: Trio,
    installer: Installer<HostTables>,
}

impl Crowd {
    fn new() -> Self {
        let trio = Trio::new();
        let cost = trio.widest().cost();
        let settings = Settings {
            flow4_mask: 1,
            flow6_mask: 1,
            ..*HostTables::for_plan(trio.widest()).settings()
        };
        let room = HostRoom { ipcache_nodes: cost.ipcache_nodes as u32, events: 64 };
        let installer = trio.install(HostTables::new(settings, room), Rules::OneWay);
        Self { trio, installer }
    }

    /// A packet between client and server, at the hook of its sender.
    fn send(&self, port: u16, v6: bool, reply: bool, flags: u8) -> Verdict {
        let conversation = TCP.frame(v6, reply, flags);
        let frame = Frame { source_port: port, ..conversation };
        let sender = if reply { Party::Server } else { Party::Client };
        let tables = self.installer.store();
        let ifindex = sender.ifindex().unwrap();
        let verdict = tables.run(&frame.bytes(), ifindex, Hook::FromEndpoint).verdict;
        tables.take_events();
        verdict
    }

    fn change(&mut self, rules: Rules) {
        let _ = self.installer.apply(self.trio.plan(rules)).unwrap();
    }
}

/// A connection that is opened anew while its old entry still lies in either bucket is answered:
/// whatever `find` meets first is the new one.
#[test]
fn a_reopened_connection_is_answered_however_full_its_buckets_are() {
    let mut state = 7u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) % below
    };
    let mut crowd = Crowd::new();
    let (mut answered, mut full) = (0, 0);
    for _ in 0..20_000 {
        let (port, v6) = (40_000 + random(24) as u16, random(2) == 1);
        match crowd.send(port, v6, false, tcp::SYN) {
            Verdict::Drop(reason) => {
                assert_eq!(reason, DropReason::FlowTableFull);
                full += 1;
            }
            _ => {
                let answer = crowd.send(port, v6, true, tcp::SYN | tcp::ACK);
                assert!(!matches!(answer, Verdict::Drop(_)), "{port}: {answer:?}");
                answered += 1;
                let _ = crowd.send(port, v6, false, tcp::ACK);
            }
        }
        match random(16) {
            0..=5 => {
                let (port, v6) = (40_000 + random(24) as u16, random(2) == 1);
                let _ = crowd.send(port, v6, false, tcp::RST);
            }
            6 | 7 => crowd.installer.store().advance(UNIT * random(3000)),
            8 => drop(crowd.installer.store().sweep()),
            9 if random(40) == 0 => {
                crowd.change(Rules::Closed);
                for port in 40_000..40_012 {
                    let _ = crowd.send(port, false, false, tcp::ACK);
                }
                crowd.change(Rules::OneWay);
            }
            _ => {}
        }
    }
    assert!(answered > 5000 && full > 500, "{answered} answered, {full} met full buckets");
}

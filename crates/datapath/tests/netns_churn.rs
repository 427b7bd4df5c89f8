//! The sweep while connections come and go, through the attached programs: what has ended leaves the
//! table, and every flow is accounted for.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.

use std::{net::SocketAddr, thread, time::Duration};

use flowgate_abi::{event::Counter, flow::WAYS};
use flowgate_conformance::{checksum::with_checksum, frames::Frame};
use flowgate_datapath::{Delivery, Options};
use flowgate_lab::{Answer, probe};
use flowgate_policy::{model::Ports, outcome::FlowProtocol};

mod rig;
mod wire;
use rig::{CLIENT, PATIENCE, Rig, SERVER, STRANGER, Setup, until};
use wire::{DNS, flow, from_pod};

const WEB: u16 = 80;
/// How long a flow may be silent here, whatever its state but established.
const SILENT: Duration = Duration::from_secs(1);

fn setup() -> Setup {
    let options = Options {
        flows4: 4096,
        flows6: 4096,
        opening: SILENT,
        closing: SILENT,
        answered: SILENT,
        ..Options::default()
    };
    Setup { options, stranger: Ports::Any, ..Setup::by(Delivery::RedirectPeer) }
}

/// Connections and questions, one after the other.
fn come_and_go(ends: [SocketAddr; 2], count: usize) {
    for _ in 0..count {
        assert_eq!(probe::tcp(ends[0], PATIENCE).expect("a socket"), Answer::Echoed);
        assert_eq!(probe::udp(ends[1], PATIENCE).expect("a socket"), Answer::Echoed);
    }
}

/// A sweep ends one flow of each bucket.
const SWEEPS: u32 = WAYS + 1;

/// Sweeps as often as may be needed; how many flows are left.
fn sweep(rig: &mut Rig) -> usize {
    let mut left = rig.datapath.flows().expect("readable").len();
    for sweep in 1..=SWEEPS {
        rig.datapath.sweep().expect("runs");
        left = rig.datapath.flows().expect("readable").len();
        println!("{left} left after sweep {sweep}");
    }
    left
}

/// Flows that were counted as new, less those that were counted as gone.
fn unaccounted(rig: &Rig) -> i64 {
    let [new, closed, evicted] =
        [Counter::FlowsNew, Counter::FlowsClosed, Counter::FlowsEvicted].map(|c| rig.count(c));
    let live = rig.datapath.flows().expect("readable").len() as u64;
    println!("{new} new, {closed} closed, {evicted} evicted, {live} in the table");
    new as i64 - (closed + evicted + live) as i64
}

#[test]
fn a_sweep_beside_connections_that_come_and_go_loses_none() {
    let Some(mut rig) = Rig::new(&setup()) else { return };
    let _servers = rig.pods[SERVER].serve(&[WEB], &[DNS]).expect("servers");
    let ends = [0, 1].map(|family| [WEB, DNS].map(|port| rig.server(family, port)));
    let talk = rig.pods[CLIENT].talk(ends[0][0], PATIENCE).expect("connects");
    let mut sweeps = 0;
    thread::scope(|scope| {
        let client = &rig.pods[CLIENT];
        let goers: Vec<_> = ends
            .map(|ends| scope.spawn(move || client.run(|| come_and_go(ends, 400))))
            .into_iter()
            .collect();
        while goers.iter().any(|goer| !goer.is_finished()) {
            rig.datapath.sweep().expect("runs");
            sweeps += 1;
        }
        goers.into_iter().for_each(|goer| goer.join().expect("no panic").expect("a thread"));
    });
    println!("{sweeps} sweeps");
    thread::sleep(2 * SILENT);
    assert_eq!(sweep(&mut rig), 1, "one is still open");
    assert_eq!(unaccounted(&rig), 0);
    drop(talk);
}

/// Nobody has swept for long, so buckets hold many that are over.
#[test]
fn two_sweeps_free_everything_that_has_expired() {
    let Some(mut rig) = Rig::new(&setup()) else { return };
    let stranger = &rig.pods[STRANGER];
    let raw = stranger.raw().expect("a packet socket");
    for family in 0..2 {
        let ends = [stranger.addresses()[family], rig.server(family, 0).ip()];
        let first = Frame::opening(flow(ends[0], ends[1], FlowProtocol::Udp(DNS)), 0);
        let template = from_pod(stranger, first.bytes());
        let ports = if family == 0 { 34 } else { 54 };
        let frames: Vec<Vec<u8>> = (2000..5000u16)
            .map(|port| {
                let mut frame = template.clone();
                frame[ports..ports + 2].copy_from_slice(&port.to_be_bytes());
                with_checksum(frame)
            })
            .collect();
        raw.send_all(&frames).expect("sends");
    }
    until("all are tracked", || rig.count(Counter::FlowsNew) == 6000);
    thread::sleep(2 * SILENT);
    assert_eq!(sweep(&mut rig), 0);
    assert_eq!(unaccounted(&rig), 0);
}

//! Many services and backends: loading, announcing a change, and the same packet.

use std::{
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use flowgate_benches::{
    balancing::Rig, course::Course, packets::Packet, sampling::Sampling, spread::Spread,
};
use flowgate_conformance::frames::{Frame, tcp};
use flowgate_datapath::lb::{BalancerOptions, LoadBalancer};
use flowgate_policy::outcome::{Flow, FlowProtocol};
use flowgate_services::{
    Services, TableSize,
    model::{Backend, BackendState, Service},
};

use crate::Result;

/// Ports of one address, each a service.
const PORTS: usize = 100;

pub(crate) fn run() -> Result<()> {
    println!(
        "| services | backends of each | apply, ms | maps, MiB | process, MiB | established, ns |"
    );
    println!("|--:|--:|--:|--:|--:|--:|");
    for (services, backends) in [(1, 10), (1, 1000), (100, 100), (1000, 10), (10_000, 10)] {
        loaded(services, backends)?;
    }
    println!(
        "\n| slots | a backend drains: visible to packets after, ms | least | most |\n|--:|--:|--:|--:|"
    );
    for slots in [1021, 16_381, 131_071] {
        let times = announced(TableSize::new(slots).ok_or("a size")?)?;
        println!("| {slots} | {:.2} |", Spread::of(times.into_iter()));
    }
    Ok(())
}

fn loaded(count: usize, backends: usize) -> Result<()> {
    let services = services(count, backends)?;
    let options = sized(count, backends);
    let before = resident()?;
    let mut rig = Rig::new(options, &Services::default())?;
    let begun = Instant::now();
    let _ = rig.balancer.apply(&services, rig.now)?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let (maps, process) = (rig.balancer.report().memory as f64, resident()? - before);
    let mut course = Course::of(&segment(), 1);
    course.grown = 20;
    let mut samples = Vec::new();
    for _ in 0..15 {
        samples.push(rig.time(&mut course, Sampling::once(100_000))?.0.net());
    }
    if rig.balanced()?.0 != 1_500_000 {
        return Err("packets went elsewhere".into());
    }
    let net = Spread::of(samples.into_iter()).median;
    let mib = f64::from(1 << 20);
    println!(
        "| {count} | {backends} | {took:.0} | {:.0} | {:.0} | {net:.0} |",
        maps / mib,
        process / mib
    );
    Ok(())
}

fn services(count: usize, backends: usize) -> Result<Services> {
    let service = |number: usize| {
        let address = IpAddr::from([198, 51, 100, (number / PORTS) as u8 + 1]);
        let service = Service::tcp(format!("s{number}"), 80 + (number % PORTS) as u16);
        let member = |index: usize| {
            let [high, low] = (index as u16 + 1).to_be_bytes();
            Backend::new(IpAddr::from([198, 18, high, low]))
        };
        (0..backends).map(member).fold(service.address(address), Service::backend)
    };
    Ok(Services::new((0..count).map(service))?)
}

/// No larger than it has to be.
fn sized(count: usize, backends: usize) -> BalancerOptions {
    let slots = TableSize::for_backends(backends).slots() as usize;
    BalancerOptions {
        frontends: count + count.div_ceil(PORTS),
        slots: count * slots.next_multiple_of(16),
        lines: count * (backends + (backends / 4).max(5)).next_multiple_of(8) + 8,
        services: count,
        ..BalancerOptions::default()
    }
}

/// To the first service.
fn segment() -> Packet {
    let (source, destination) = ([203, 0, 113, 7].into(), [198, 51, 100, 1].into());
    let flow = Flow { source, destination, protocol: FlowProtocol::Tcp(80) };
    Packet::new(&Frame::opening(flow, 1024).flags(tcp::ACK))
}

/// Bytes of this process that lie in memory, the maps that it writes among them.
fn resident() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib * 1024.0)
}

/// Milliseconds until every slot that a draining backend leaves is announced.
fn announced(size: TableSize) -> Result<Vec<f64>> {
    let options = BalancerOptions { slots: 1 << 18, ..BalancerOptions::default() };
    let mut balancer = LoadBalancer::builder().options(options).open()?;
    let members = services(1, 100)?;
    let member = members.iter().next().ok_or("one")?;
    let (name, table) = (member.name.clone(), Service::clone(member).table(size));
    let mut now = Instant::now();
    let _ = balancer.apply(&Services::new([table])?, now)?;
    let ids: Vec<_> = member.backends.iter().map(Backend::id).collect();
    let mut times = Vec::new();
    for id in ids.into_iter().take(15) {
        let changed = balancer.services().with_state(&name, id, BackendState::Draining)?;
        let begun = Instant::now();
        let applied = balancer.apply(&changed, now)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        if applied.slots.moving == 0 {
            return Err("nothing moved".into());
        }
        // Nothing is under way any more.
        for _ in 0..5 {
            now += Duration::from_secs(400);
            let _ = balancer.tick(now)?;
        }
    }
    Ok(times)
}

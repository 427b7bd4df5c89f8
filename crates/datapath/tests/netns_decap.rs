//! The decapsulator on a wire: a client, a balancer that tunnels, backends whose only way into the tunnel it is.
//!
//! Privileged: without the capabilities, or without a bridge, each test says so in one line and is skipped.

mod segment;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use flowgate_abi::decap::Counter;
use flowgate_datapath::{
    decap::{Attached, Builder, Decapsulator, Hook, Way},
    lb::{BalancerOptions, LoadBalancer, XdpAttach, XdpMode},
};
use flowgate_lab::{Answer, Pod, StackCounters, Talk};
use flowgate_services::{
    Services, Uplink,
    model::{Backend, Forwarding, NextHop, Service},
};
use segment::{ARM, PATIENCE, PORT, Segment, came_out, must, vips};

const GUE: u16 = 6080;
const FORWARDINGS: [Forwarding; 2] = [Forwarding::Tunnel, Forwarding::Gue { port: GUE }];
const HOOKS: [Hook; 3] = [Hook::Xdp(XdpAttach::Native), Hook::Xdp(XdpAttach::Generic), Hook::Tc];

/// Both protocols at both addresses, in tunnels to the backends' addresses of a family.
fn services(segment: &Segment, (forwarding, family): (Forwarding, usize)) -> Services {
    let backend =
        |pod: &Pod| Backend::new(pod.addresses()[family]).next_hop(NextHop::Mac(pod.mac().0));
    let with = |service: Service| {
        let service = vips().into_iter().fold(service.forwarding(forwarding), Service::address);
        segment.backends.iter().map(backend).fold(service, Service::backend)
    };
    let streams = with(Service::tcp("streams", PORT));
    Services::new([streams, with(Service::udp("datagrams", PORT))]).expect("good services")
}

fn balancer(uplink: Uplink) -> LoadBalancer {
    let options = BalancerOptions { uplink, ..BalancerOptions::default() };
    let builder = LoadBalancer::builder().options(options);
    let mut balancer = builder.open().expect("opens");
    let _ = balancer.attach(ARM, XdpAttach::Generic).expect("attaches");
    balancer
}

/// One with a service in tunnels, of a family.
fn tunnelling(segment: &Segment, family: usize) -> LoadBalancer {
    let mut balancer = balancer(Uplink::default());
    let services = services(segment, (Forwarding::Tunnel, family));
    let _ = balancer.apply(&services, Instant::now()).expect("fits");
    balancer
}

/// What a backend takes.
fn ends(backend: &Pod) -> Builder {
    let uplink = Uplink::default();
    let builder = Decapsulator::builder().gue(GUE);
    let builder = backend.addresses().iter().copied().fold(builder, Builder::tunnel_end);
    let builder = vips().into_iter().fold(builder, Builder::service);
    builder.balancers(uplink.source4.into()).balancers(uplink.source6.into())
}

/// Opened and attached in the backend's namespace.
fn attach(backend: &Pod, builder: Builder, hook: Hook) -> (Decapsulator, Attached) {
    let attached = backend.run(|| {
        let mut decapsulator = builder.open().expect("opens");
        let attached = decapsulator.attach(backend.interface(), hook).expect("attaches");
        (decapsulator, attached)
    });
    attached.expect("a thread there")
}

/// A program of others' in generic mode, which lets everything pass: the kernel copies what comes to make headroom, and from 6.9 on
/// the copy has forgotten how long its Ethernet header is.
#[test]
fn packets_come_out_behind_generic_xdp_of_others() {
    let Some(segment) = Segment::new() else { return };
    let _balancer = tunnelling(&segment, 0);
    let both = segment.backends.iter().map(|backend| {
        let passing = backend.run(|| {
            let mut other = LoadBalancer::builder().open().expect("opens");
            let _ = other.attach(backend.interface(), XdpAttach::Generic).expect("attaches");
            other
        });
        let (decapsulator, _) = attach(backend, ends(backend), Hook::Tc);
        (passing.expect("a thread there"), decapsulator)
    });
    let both: Vec<_> = both.collect();
    exchange(&segment);
    let packets: u64 = both.iter().map(|(_, decapsulator)| came_out(decapsulator).0).sum();
    assert!(packets > 0);
}

fn connect(segment: &Segment, vip: IpAddr) -> Talk {
    segment.client.talk(SocketAddr::new(vip, PORT), PATIENCE).expect("connects")
}

#[track_caller]
fn answers(talk: &mut Talk) {
    assert_eq!(talk.line("still there?", PATIENCE).expect("answered"), Answer::Echoed);
}

/// Connections and a datagram to both addresses.
fn exchange(segment: &Segment) {
    for vip in vips() {
        for _ in 0..4 {
            answers(&mut connect(segment, vip));
        }
        let datagram = segment.client.udp(SocketAddr::new(vip, PORT), PATIENCE);
        assert_eq!(datagram.expect("asked"), Answer::Echoed);
    }
}

/// What came out of tunnels as IPv4 and as IPv6, of a form: its counters, in this order.
fn forms((forwarding, family): (Forwarding, usize)) -> [Counter; 2] {
    match (forwarding, family) {
        (Forwarding::Tunnel, 0) => [Counter::Ipv4InIpv4, Counter::Ipv6InIpv4],
        (Forwarding::Tunnel, _) => [Counter::Ipv4InIpv6, Counter::Ipv6InIpv6],
        (_, 0) => [Counter::Ipv4InGue4, Counter::Ipv6InGue4],
        _ => [Counter::Ipv4InGue6, Counter::Ipv6InGue6],
    }
}

/// All of it by one hook, in one form.
fn check(segment: &Segment, balancer: &mut LoadBalancer, hook: Hook, form: (Forwarding, usize)) {
    let _ = balancer.apply(&services(segment, form), Instant::now()).expect("fits");
    let open = |backend: &Pod| attach(backend, ends(backend), hook);
    let opened: Vec<_> = segment.backends.iter().map(open).collect();
    exchange(segment);
    for (decapsulator, attached) in opened {
        let is_right = match hook {
            Hook::Xdp(XdpAttach::Native) => attached.way == Way::Xdp(XdpMode::Native),
            Hook::Xdp(_) => attached.way == Way::Xdp(XdpMode::Generic),
            _ => matches!(attached.way, Way::Tcx | Way::Clsact),
        };
        assert!(is_right && !attached.adopted, "{attached:?}");
        let stats = decapsulator.stats().expect("read");
        assert!(stats.drops.is_empty(), "{:?}", stats.drops);
        let seen: Vec<_> = stats.counters.keys().copied().collect();
        assert!(seen.iter().all(|counter| forms(form).contains(counter)), "{seen:?}");
    }
}

#[test]
fn every_tunnel_ends_at_every_hook() {
    let Some(segment) = Segment::new() else { return };
    let mut balancer = balancer(Uplink::default());
    for hook in HOOKS {
        for form in FORWARDINGS.into_iter().flat_map(|f| [(f, 0), (f, 1)]) {
            // Flows of one form would be followed into the next.
            let _ = balancer.apply(&Services::default(), Instant::now()).expect("fits");
            println!("{hook:?}, {form:?}");
            check(&segment, &mut balancer, hook, form);
        }
    }
}

/// The client's stack leaves it to its link to take its segments apart, and no link here does: they come as
/// they come from GRO.
#[test]
fn what_is_put_together_comes_out_together() {
    let Some(segment) = Segment::new() else { return };
    make_room(&segment);
    // Nothing is too big for the balancer.
    let mut balancer = balancer(Uplink { mtu: u16::MAX, ..Uplink::default() });
    for family in [0, 1] {
        let _ = balancer.apply(&Services::default(), Instant::now()).expect("fits");
        let services = services(&segment, (Forwarding::Tunnel, family));
        let _ = balancer.apply(&services, Instant::now()).expect("fits");
        let open = |pod: &Pod| attach(pod, ends(pod), Hook::Tc).0;
        let opened: Vec<_> = segment.backends.iter().map(open).collect();
        let before = segments_sent(&segment);
        for vip in vips() {
            let line = "flowgate".repeat(6000);
            let answer = connect(&segment, vip).line(&line, PATIENCE).expect("answered");
            assert_eq!(answer, Answer::Echoed);
        }
        let sums = opened.iter().map(came_out);
        let (packets, bytes) = sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let segments = segments_sent(&segment) - before;
        // How many the stack puts together depends on the time that answers take: two at least.
        let are_together = packets + UNDER_WAY < segments;
        assert!(
            bytes > 96_000 && are_together,
            "{packets} packets of {bytes} bytes, {segments} segments"
        );
    }
}

/// Links to the backends on which a whole segment has room in its tunnel: one that comes alone, as repeated ones do, would
/// be lost on the bridge again and again.
fn make_room(segment: &Segment) {
    let ports = segment.backends.iter().map(Pod::host_interface);
    for link in ports.chain([ARM, "arm"]) {
        must(&format!("link set {link} mtu 1600"));
    }
    for backend in &segment.backends {
        let end = format!("link set {} mtu 1600", backend.interface());
        backend.run(|| must(&end)).expect("a thread there");
    }
}

/// More segments than may be sent and not have come out yet.
const UNDER_WAY: u64 = 12;

/// How many segments the client's stack has sent so far, each counted though they leave it together.
fn segments_sent(segment: &Segment) -> u64 {
    let counters = segment.client.run(StackCounters::read).expect("a thread there");
    counters.expect("readable").get("TcpOutSegs")
}

#[test]
fn without_a_decapsulator_nothing_comes_out() {
    let Some(segment) = Segment::new() else { return };
    let _balancer = tunnelling(&segment, 0);
    let destination = SocketAddr::new(vips()[0], PORT);
    let answer = segment.client.udp(destination, Duration::from_millis(300)).expect("asked");
    assert_ne!(answer, Answer::Echoed);
}

/// Connections through a decapsulator that is pinned, left behind and taken over, from one hook to another.
#[test]
fn a_pinned_decapsulator_is_taken_over_and_breaks_no_connection() {
    let Some(segment) = Segment::new() else { return };
    let _balancer = tunnelling(&segment, 1);
    let pins = segment.node.bpffs();
    let open = |hook: Hook| -> Vec<(Decapsulator, Attached)> {
        let backends = segment.backends.iter();
        backends.map(|pod| attach(pod, ends(pod).pin(place(pins, pod)), hook)).collect()
    };
    let generic = Hook::Xdp(XdpAttach::Generic);
    let mut talks: Vec<Talk> = Vec::new();
    for (hook, adopted) in [(generic, false), (generic, true), (Hook::Tc, false), (Hook::Tc, true)]
    {
        for (decapsulator, attached) in open(hook) {
            // A clsact filter is replaced in place, and isn't told from one that is new.
            assert!(attached.adopted == adopted || attached.way == Way::Clsact, "{attached:?}");
            decapsulator.persist().expect("it is pinned");
        }
        talks.extend(vips().map(|vip| connect(&segment, vip)));
        talks.iter_mut().for_each(answers);
    }
    for (backend, (decapsulator, _)) in segment.backends.iter().zip(open(Hook::Tc)) {
        // A clsact filter is removed from the namespace of the thread that drops it.
        backend.run(|| drop(decapsulator)).expect("a thread there");
    }
    let destination = SocketAddr::new(vips()[0], PORT);
    let answer = segment.client.udp(destination, Duration::from_millis(300)).expect("asked");
    assert_ne!(answer, Answer::Echoed, "nothing is left of it");
}

fn place(pins: &Path, backend: &Pod) -> std::path::PathBuf {
    pins.join(backend.name())
}

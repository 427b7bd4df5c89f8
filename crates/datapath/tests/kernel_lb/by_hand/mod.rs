//! Packets written by hand from the RFCs, byte for byte, through the host and the kernel.

mod cases;

use std::{net::IpAddr, time::Instant};

use flowgate_abi::DropReason;
use flowgate_datapath::lb::{BalancerOptions, Fate, LoadBalancer};
use flowgate_services::{
    Services, Uplink,
    model::{Backend, Forwarding, Fragments, NextHop, Service},
};

use crate::rig;
use cases::{CASES, Case};

/// One source address of each family, so that only the source port of a tunnel depends on a flow's hash.
fn options() -> BalancerOptions {
    let uplink = Uplink {
        gateway: Some([2, 0, 0, 0, 0, 0xfe]),
        source4: "198.18.255.1/32".parse().expect("a network"),
        source6: "2001:db8:ffff::1/128".parse().expect("a network"),
        ..Uplink::default()
    };
    BalancerOptions { uplink, ..rig::options() }
}

/// Each with one backend.
fn services() -> Services {
    let both = |service: Service| {
        service.address(address("198.51.100.1")).address(address("2001:db8:1::1"))
    };
    let (v4, v6) = (Backend::new(address("198.18.0.5")), Backend::new(address("2001:db8:2::5")));
    let gue = Forwarding::Gue { port: 6080 };
    let mut fragments = both(Service::udp("fragments", 80)).backend(v4);
    fragments.options.fragments = Fragments::Track;
    let near = v4.next_hop(NextHop::Mac([2, 0, 0, 0, 1, 5]));
    Services::new([
        both(Service::tcp("by IPv4", 80)).backend(v4),
        both(Service::tcp("by IPv6", 81)).backend(v6),
        both(Service::udp("GUE by IPv4", 53)).forwarding(gue).backend(v4),
        both(Service::udp("GUE by IPv6", 54)).forwarding(gue).backend(v6),
        both(Service::tcp("in the segment", 22)).forwarding(Forwarding::Layer2).backend(near),
        fragments,
    ])
    .expect("good services")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn balancers() -> Vec<LoadBalancer> {
    let kernel = rig::kernel(options());
    let mut balancers: Vec<_> = kernel.into_iter().chain([rig::host(options())]).collect();
    for balancer in &mut balancers {
        balancer.apply(&services(), Instant::now()).expect("it fits");
    }
    balancers
}

/// Hex digits; `a5*N` stands for as many bytes 0xa5.
fn bytes(lines: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        if let Some(count) = line.strip_prefix("a5*") {
            bytes.extend(vec![0xa5; count.parse().expect("a number")]);
            continue;
        }
        let digits: Vec<u32> = line.chars().map(|c| c.to_digit(16).expect("a digit")).collect();
        bytes.extend(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8));
    }
    bytes
}

/// Takes a tunnel's source port out, which is one of the dynamic ports (RFC 6335).
fn without_source_port(mut frame: Vec<u8>) -> Vec<u8> {
    let at = if frame[12] == 8 { 34 } else { 54 };
    let protocol = if frame[12] == 8 { frame[23] } else { frame[20] };
    if protocol == 17 && frame[at + 2..at + 4] == 6080u16.to_be_bytes() {
        assert!(frame[at] >= 0xc0, "a dynamic port");
        frame[at..at + 2].fill(0);
    }
    frame
}

#[test]
fn packets_leave_as_the_rfcs_say() {
    for balancer in &mut balancers() {
        for Case { name, comes, goes } in CASES {
            let passed = balancer.replay(&bytes(comes)).expect("it runs");
            let goes = bytes(goes);
            assert_eq!(passed.fate, Fate::Transmit, "{name}");
            assert_eq!(without_source_port(passed.frame), goes, "{name}");
        }
    }
}

#[test]
fn a_flow_keeps_its_source_port_in_a_tunnel() {
    for balancer in &mut balancers() {
        let mut ports = Vec::new();
        for client in 0..8 {
            let gue = CASES.iter().find(|case| case.name == "UDP in GUE over IPv4").expect("one");
            let mut frame = bytes(gue.comes);
            frame[35] = client;
            let mut port = || {
                let sent = balancer.replay(&frame).expect("it runs").frame;
                u16::from_be_bytes([sent[34], sent[35]])
            };
            ports.push(port());
            assert_eq!(port(), ports[usize::from(client)]);
        }
        ports.sort_unstable();
        ports.dedup();
        assert!(ports.len() > 4, "flows have different ones: {ports:?}");
    }
}

/// What isn't for a service, and what can't be balanced, by what was changed of a packet that can.
#[test]
fn what_is_not_balanced_passes_or_is_dropped_by_name() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change, Fate); 9] = [
        ("another address", |f| f[33] = 9, Fate::Pass),
        ("another port", |f| f[37] = 99, Fate::Pass),
        ("a tag", |f| drop(f.splice(12..12, [0x81, 0, 0, 7])), Fate::Pass),
        ("another EtherType", |f| f[13] = 6, Fate::Pass),
        ("GRE", |f| f[23] = 47, Fate::Drop(Some(DropReason::UnsupportedProtocol))),
        ("one hop left", |f| f[22] = 1, Fate::Drop(Some(DropReason::HopsExceeded))),
        ("a fragment", |f| f[20] = 0x20, Fate::Drop(Some(DropReason::UnsupportedFragment))),
        ("no transport", |f| f.truncate(40), Fate::Drop(Some(DropReason::MalformedPacket))),
        ("a short header", |f| f[46] = 0x40, Fate::Drop(Some(DropReason::MalformedPacket))),
    ];
    for balancer in &mut balancers() {
        for (name, change, fate) in &changes {
            let before = dropped(balancer, *fate);
            let mut frame = bytes(CASES[0].comes);
            change(&mut frame);
            let passed = balancer.replay(&frame).expect("it runs");
            match (*fate, passed.fate) {
                (Fate::Drop(_), Fate::Drop(_)) => {
                    assert_eq!(dropped(balancer, *fate), before + 1, "{name}");
                }
                (expected, fate) => assert_eq!((expected, &passed.frame), (fate, &frame), "{name}"),
            }
        }
    }
}

/// How often something was dropped for the reason that a fate has.
fn dropped(balancer: &LoadBalancer, fate: Fate) -> u64 {
    let Fate::Drop(Some(reason)) = fate else { return 0 };
    balancer.stats().expect("read").drops.get(&reason).map_or(0, |tally| tally.packets)
}

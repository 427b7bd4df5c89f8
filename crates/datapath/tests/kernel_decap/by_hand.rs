//! Packets written by hand from the RFCs, byte for byte, through the host and both programs.
//!
//! A line for each header. The client has 203.0.113.7 and `2001:db8:9::7`, the services 198.51.100.1 and
//! `2001:db8:1::1`, the backend 198.18.0.5 and `2001:db8:2::5`. Outer headers by RFC 2003, 2473 and 4213, GUE by
//! draft-ietf-intarea-gue, variant 1; congestion marks by RFC 6040.

use flowgate_abi::{DropReason, decap::Counter};
use flowgate_datapath::decap::{Decapsulator, Fate, Hook};

use crate::rig::{self, HOOKS, hex};

/// A frame that comes in, the frame that goes on, and what is counted.
struct Case {
    name: &'static str,
    comes: &'static [&'static str],
    goes: &'static [&'static str],
    counter: Counter,
}

const CASES: &[Case] = &[
    Case {
        name: "IPv4 in IPv4: what DSCP the outer has is no matter",
        comes: &[
            "0200000000050200000000010800",
            "45b8003c000040004004aedac612ff01c6120005",
            "45020028123440003f06c35dcb007107c6336401",
            "9c40005000000001000000005002ffffad140000",
        ],
        goes: &[
            "0200000000050200000000010800",
            "45020028123440003f06c35dcb007107c6336401",
            "9c40005000000001000000005002ffffad140000",
        ],
        counter: Counter::Ipv4InIpv4,
    },
    Case {
        name: "IPv4 in IPv4: ECT(0) inside, congestion met outside",
        comes: &[
            "0200000000050200000000010800",
            "4503003c000040004004af8fc612ff01c6120005",
            "45020028123440003f06c35dcb007107c6336401",
            "9c40005000000001000000005002ffffad140000",
        ],
        goes: &[
            "0200000000050200000000010800",
            "45030028123440003f06c35ccb007107c6336401",
            "9c40005000000001000000005002ffffad140000",
        ],
        counter: Counter::Ipv4InIpv4,
    },
    Case {
        name: "IPv4 in IPv6: congestion met inside already",
        comes: &[
            "02000000000502000000000186dd",
            "600000000028044020010db8ffff0000000000000000000120010db8000200000000000000000005",
            "45030028123440003f06c35ccb007107c6336401",
            "9c40005100000001000000005002ffffad130000",
        ],
        goes: &[
            "0200000000050200000000010800",
            "45030028123440003f06c35ccb007107c6336401",
            "9c40005100000001000000005002ffffad130000",
        ],
        counter: Counter::Ipv4InIpv6,
    },
    Case {
        name: "IPv6 in IPv4: ECT(0) inside, ECT(1) outside",
        comes: &[
            "0200000000050200000000010800",
            "45010050000040004029af58c612ff01c6120005",
            "6baabcde0014063f20010db800090000000000000000000720010db8000100000000000000000001",
            "9c40005000000001000000005002ffffb7cd0000",
        ],
        goes: &[
            "02000000000502000000000186dd",
            "6b9abcde0014063f20010db800090000000000000000000720010db8000100000000000000000001",
            "9c40005000000001000000005002ffffb7cd0000",
        ],
        counter: Counter::Ipv6InIpv4,
    },
    Case {
        name: "IPv6 in IPv6: ECT(1) inside, congestion met outside",
        comes: &[
            "02000000000502000000000186dd",
            "60300000003c294020010db8ffff0000000000000000000120010db8000200000000000000000005",
            "6b9abcde0014063f20010db800090000000000000000000720010db8000100000000000000000001",
            "9c40005100000001000000005002ffffb7cc0000",
        ],
        goes: &[
            "02000000000502000000000186dd",
            "6bbabcde0014063f20010db800090000000000000000000720010db8000100000000000000000001",
            "9c40005100000001000000005002ffffb7cc0000",
        ],
        counter: Counter::Ipv6InIpv6,
    },
    Case {
        name: "IPv4 in GUE over IPv4: not ECN-capable inside, ECT(0) outside",
        comes: &[
            "0200000000050200000000010800",
            "45020040000040004011af7fc612ff01c6120005",
            "c00117c0002c0000",
            "45000024000040000111138dcb007107c6336401",
            "9c40003500100000a5a5a5a5a5a5a5a5",
        ],
        goes: &[
            "0200000000050200000000010800",
            "45000024000040000111138dcb007107c6336401",
            "9c40003500100000a5a5a5a5a5a5a5a5",
        ],
        counter: Counter::Ipv4InGue4,
    },
    Case {
        name: "IPv6 in GUE over IPv6, with a checksum outside",
        comes: &[
            "02000000000502000000000186dd",
            "600000000040114020010db8ffff0000000000000000000120010db8000200000000000000000005",
            "c00117c00040beef",
            "6000000000103a0120010db800090000000000000000000720010db8000100000000000000000001",
            "8000000000010001a5a5a5a5a5a5a5a5",
        ],
        goes: &[
            "02000000000502000000000186dd",
            "6000000000103a0120010db800090000000000000000000720010db8000100000000000000000001",
            "8000000000010001a5a5a5a5a5a5a5a5",
        ],
        counter: Counter::Ipv6InGue6,
    },
];

fn bytes(lines: &[&str]) -> Vec<u8> {
    let digits: Vec<u32> =
        lines.concat().chars().map(|c| c.to_digit(16).expect("a digit")).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn counted(decapsulator: &Decapsulator, counter: Counter) -> u64 {
    decapsulator.stats().expect("read").counters.get(&counter).map_or(0, |tally| tally.packets)
}

#[test]
fn packets_come_out_as_the_rfcs_say() {
    for decapsulator in &mut rig::all() {
        for hook in HOOKS {
            for Case { name, comes, goes, counter } in CASES {
                let before = counted(decapsulator, *counter);
                let passed = decapsulator.replay(hook, &bytes(comes)).expect("it runs");
                assert_eq!(passed.fate, Fate::Unwrapped, "{name}");
                assert_eq!(hex(&passed.frame), hex(&bytes(goes)), "{name}, {hook:?}");
                assert_eq!(counted(decapsulator, *counter), before + 1, "{name}");
            }
        }
        assert_eq!(counted(decapsulator, Counter::CongestionMarked), 4, "two of them, twice");
    }
}

/// How often something was dropped for a reason.
fn dropped(decapsulator: &Decapsulator, reason: DropReason) -> u64 {
    decapsulator.stats().expect("read").drops.get(&reason).map_or(0, |tally| tally.packets)
}

/// What isn't in a tunnel to this backend, and what may not come out of one, by what was changed of a
/// packet that may.
#[test]
fn what_is_injected_is_dropped_by_name_and_what_is_not_ours_passes() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change, Option<DropReason>); 15] = [
        ("another backend", |f| f[33] = 6, None),
        ("another protocol", |f| f[23] = 47, None),
        ("a tag", |f| drop(f.splice(12..12, [0x81, 0, 0, 7])), None),
        ("another EtherType", |f| f[13] = 6, None),
        ("from elsewhere", |f| f[28] = 0xfe, Some(DropReason::UnknownBalancer)),
        ("a fragment", |f| f[20] = 0x20, Some(DropReason::UnsupportedOuter)),
        ("options", |f| f[14] = 0x46, Some(DropReason::UnsupportedOuter)),
        (
            "to the host itself",
            |f| f[50..54].copy_from_slice(&[198, 18, 0, 5]),
            Some(DropReason::UnknownService),
        ),
        ("to another address", |f| f[53] = 9, Some(DropReason::UnknownService)),
        ("from loopback", |f| f[46] = 127, Some(DropReason::Martian)),
        ("no hops", |f| f[42] = 0, Some(DropReason::HopsExceeded)),
        ("IPv6 inside", |f| f[34] = 0x65, Some(DropReason::MalformedPacket)),
        ("no header inside", |f| f.truncate(50), Some(DropReason::MalformedPacket)),
        ("longer than it is", |f| f[37] = 0x29, Some(DropReason::MalformedPacket)),
        (
            "congestion, not ECN-capable",
            |f| (f[15], f[35]) = (3, 0),
            Some(DropReason::CongestionMark),
        ),
    ];
    for decapsulator in &mut rig::all() {
        for (hook, (name, change, reason)) in
            HOOKS.into_iter().flat_map(|hook| changes.map(|c| (hook, c)))
        {
            let mut frame = bytes(CASES[0].comes);
            change(&mut frame);
            let before = reason.map(|reason| dropped(decapsulator, reason));
            let passed = decapsulator.replay(hook, &frame).expect("it runs");
            match reason {
                None => assert_eq!((passed.fate, passed.frame), (Fate::Pass, frame), "{name}"),
                Some(reason) => {
                    assert!(matches!(passed.fate, Fate::Drop(_)), "{name}: {:?}", passed.fate);
                    assert_eq!(
                        Some(dropped(decapsulator, reason)),
                        before.map(|n| n + 1),
                        "{name}"
                    );
                }
            }
        }
    }
}

#[test]
fn services_come_and_go_while_it_runs() {
    let frame = bytes(CASES[0].comes);
    for decapsulator in &mut rig::all() {
        let fate = |decapsulator: &mut Decapsulator| {
            decapsulator.replay(Hook::Tc, &frame).expect("it runs").fate
        };
        assert_eq!(fate(decapsulator), Fate::Unwrapped);
        decapsulator.set_services([rig::services()[1]]).expect("room");
        assert!(matches!(fate(decapsulator), Fate::Drop(_)));
        decapsulator.set_services(rig::services()).expect("room");
        assert_eq!(fate(decapsulator), Fate::Unwrapped);
        let refused = decapsulator.set_services([rig::address("127.0.0.1")]);
        assert!(refused.is_err());
        assert_eq!(fate(decapsulator), Fate::Unwrapped, "nothing has changed");
    }
}

/// The tunnel's end stays one, whatever services there are.
#[test]
fn a_tunnels_end_may_be_a_service() {
    let mut frame = bytes(CASES[0].comes);
    frame[50..54].copy_from_slice(&[198, 18, 0, 5]);
    for decapsulator in &mut rig::all() {
        decapsulator.set_services(rig::tunnel_ends()).expect("room");
        assert_eq!(decapsulator.replay(rig::XDP, &frame).expect("it runs").fate, Fate::Unwrapped);
        decapsulator.set_services([]).expect("room");
        let fate = decapsulator.replay(rig::XDP, &frame).expect("it runs").fate;
        assert!(matches!(fate, Fate::Drop(_)), "still a tunnel's end: {fate:?}");
    }
}

//! Sources that change under live flows: new flows have ports of the new ones alone, others keep theirs, and a
//! retired source is gone with the last of its flows.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use flowgate_abi::{
    Addr6,
    lb::nat::{Active, Source},
};
use flowgate_conformance::nat::{
    packet::{ACK, Packet, SYN},
    walk::{Walk, address, sources},
};
use flowgate_pipeline::lb::Action;
use flowgate_services::{
    ApplyError, Balancer, NatTimeouts, SourceStats, SourcesError, Uplink,
    host::HostTables,
    model::Service,
    store::{NatStore, Store},
};

use crate::{Plane, balancer, services, tables, walk};

/// A client's opening packet to the service of IPv4.
fn opening(port: u16) -> Packet {
    let source = SocketAddr::new(address("203.0.113.7"), port);
    let destination = SocketAddr::new(address("198.51.100.1"), 80);
    Packet { source, destination, tcp: Some(SYN) }
}

fn turn_to(walk: &mut Walk<Plane>, wanted: &[&str]) {
    let wanted: Vec<IpAddr> = wanted.iter().map(|one| address(one)).collect();
    let now = walk.now();
    assert!(walk::Plane::turn_to(&mut walk.plane, &wanted, now));
    walk.active = wanted;
}

fn stats(walk: &Walk<Plane>) -> Vec<(String, bool, usize)> {
    let told = |one: SourceStats| (one.address.to_string(), one.retired, one.taken);
    walk.plane.0.sources().into_iter().map(told).collect()
}

#[test]
fn flows_keep_their_ports_while_sources_change() {
    for seed in 0..4 {
        let mut walk = walk(2, seed);
        let mut turned = [0; 2];
        for _ in 0..400 {
            (0..50).for_each(|_| walk.step(100));
            turned[usize::from(walk.turn())] += 1;
            walk.tick(1024);
            let owners: BTreeSet<IpAddr> =
                walk.model.flows.values().map(|flow| flow.port.ip()).collect();
            let active: BTreeSet<IpAddr> = walk.active.iter().copied().collect();
            let told = walk.plane.0.sources();
            let known: BTreeSet<IpAddr> = told.iter().map(|one| one.address).collect();
            assert_eq!(known, &owners | &active, "no other is left");
            for one in told {
                assert_eq!(one.retired, !active.contains(&one.address), "{one:?}");
            }
        }
        assert!(turned[0] > 10 && turned[1] > 100, "refused and done: {turned:?}");
    }
}

#[test]
fn a_retired_source_is_gone_with_its_last_flow_and_its_address_is_free() {
    let mut walk = walk(1, 1);
    walk.ask(opening(5000));
    let key = (opening(5000).source, opening(5000).destination, true);
    let first = walk.model.flows[&key].port.ip();
    let [other, third] = match first == sources()[0] {
        true => ["198.18.9.2", "198.18.9.3"],
        false => ["198.18.9.1", "198.18.9.3"],
    };
    turn_to(&mut walk, &[third, "2001:db8:9::1"]);
    walk.tick(1024);
    let expected = [
        (first.to_string(), true, 1),
        (third.to_owned(), false, 0),
        ("2001:db8:9::1".to_owned(), false, 0),
    ];
    let mut told = stats(&walk);
    told.sort();
    assert_eq!(told, expected, "{other} had no flow");
    walk.answer(key, SYN | ACK);
    walk.ask(Packet { tcp: Some(ACK), ..opening(5000) });
    // What was its answer's port is a flow's still, and its address no service's.
    let own = Service::tcp("own", 80).address(first);
    let taken = walk.plane.0.services().with(own.clone()).expect("good by itself");
    let refused = walk.plane.0.apply(&taken, Duration::from_millis(walk.now())).expect_err("taken");
    assert!(matches!(refused, ApplyError::SourceAddress { .. }), "{refused}");
    (0..110).for_each(|_| walk.tick(1024));
    assert_eq!(stats(&walk), [expected[1].clone(), expected[2].clone()]);
    walk.plane.0.apply(&taken, Duration::from_millis(walk.now())).expect("nobody's any more");
}

#[test]
fn a_source_that_comes_back_has_its_flows_and_its_place() {
    let mut walk = walk(1, 2);
    (0..40).for_each(|port| walk.ask(opening(5000 + port)));
    let before = stats(&walk);
    turn_to(&mut walk, &["198.18.9.3", "2001:db8:9::1"]);
    let places = ["198.18.9.7", "2001:db8:9::1"].map(address);
    let services = walk.plane.0.services().with_nat_sources(places);
    let refused = walk.plane.0.apply(&services, Duration::ZERO).expect_err("no place is left");
    let expected = SourcesError::NoPlace { address: places[0], have: 3, retired: 3 };
    assert!(matches!(&refused, ApplyError::Sources(why) if *why == expected), "{refused}");
    turn_to(&mut walk, &["198.18.9.1", "198.18.9.2", "2001:db8:9::1"]);
    walk.tick(1024);
    assert_eq!(stats(&walk), before);
    (0..40).for_each(|port| walk.ask(opening(6000 + port)));
    assert_eq!(walk.opened, 80);
}

/// What doesn't fit changes neither services nor sources.
#[test]
fn services_and_sources_change_together_or_not_at_all() {
    let mut balancer = balancer(1);
    let without_v4 = services().with_nat_sources([address("2001:db8:9::2")]);
    let refused = balancer.apply(&without_v4, Duration::ZERO).expect_err("web needs one");
    assert!(matches!(refused, ApplyError::NoSource { .. }), "{refused}");
    let kept: Vec<IpAddr> = balancer.sources().iter().map(|one| one.address).collect();
    assert_eq!(kept, ["198.18.9.1", "198.18.9.2", "2001:db8:9::1"].map(address));
    let names = ["web", "names"].map(Into::into);
    let fewer = names.iter().fold(without_v4, |all, name| all.without(name).expect("listed"));
    let applied = balancer.apply(&fewer, Duration::ZERO).expect("nobody of IPv4 is left");
    assert_eq!((applied.removed, applied.added, applied.changed), (2, 0, 0));
    let Ok(_) = balancer.tick(Duration::from_secs(1));
    let Ok(_) = balancer.tick(Duration::from_secs(2));
    let left: Vec<IpAddr> = balancer.sources().iter().map(|one| one.address).collect();
    assert_eq!(left, [address("2001:db8:9::2")]);
}

#[test]
fn time_outs_that_change_hold_for_flows_that_live() {
    let mut balancer = balancer(1);
    balancer.set_nat_timeouts(NatTimeouts::default());
    let _ = balancer.store().run(&opening(5000).frame(1, 64));
    let mut taken_after = |timeouts: NatTimeouts, seconds: std::ops::RangeInclusive<u64>| {
        balancer.set_nat_timeouts(timeouts);
        for second in seconds {
            let Ok(_) = balancer.tick(Duration::from_secs(second));
        }
        balancer.sources().iter().map(|one| one.taken).sum::<usize>()
    };
    let usual = NatTimeouts::default();
    assert_eq!(taken_after(usual, 0..=10), 1);
    let others = Duration::from_secs(1);
    let closing = NatTimeouts { established: others, answered: others, closing: others, ..usual };
    assert_eq!(taken_after(closing, 11..=12), 1, "nobody has answered yet");
    let opening = NatTimeouts { opening: Duration::from_secs(5), ..usual };
    assert_eq!(taken_after(opening, 13..=13), 0);
}

/// A process that was killed anywhere leaves what the next one makes right.
#[test]
fn sources_are_adopted_with_their_flows() {
    let mut first = balancer(1);
    let frame = opening(5000).frame(1, 64);
    let passed = first.store().run(&frame);
    let sent = Packet::read(&passed.frame);
    // One that has a place and no turn yet, and a list that is half written.
    let place = Source { address: Addr6::wide(address("198.18.9.9")), turns: [0, 2] };
    first.store_mut().set_nat_source(2, place);
    assert_eq!(Active(first.store().head().nat_active.load()).list(), 1);
    let Ok(mut second) = Balancer::adopt(take_tables(first), Uplink::default(), 0);
    second.set_nat_timeouts(NatTimeouts::default());
    let told = second.sources();
    let retired: Vec<IpAddr> =
        told.iter().filter(|one| one.retired).map(|one| one.address).collect();
    assert_eq!(retired, [address("198.18.9.9")]);
    second.set_sources(&["198.18.9.3", "2001:db8:9::1"].map(address)).expect_err("no place yet");
    let Ok(_) = second.tick(Duration::from_secs(1));
    second.set_sources(&["198.18.9.3", "2001:db8:9::1"].map(address)).expect("a place");
    second.apply(&services(), Duration::from_secs(1)).expect("it fits");
    let Ok(_) = second.tick(Duration::from_secs(2));
    let again = second.store().run(&Packet { tcp: Some(ACK), ..opening(5000) }.frame(1, 64));
    assert_eq!((again.action, Packet::read(&again.frame).source), (Action::Transmit, sent.source));
    let fresh = second.store().run(&opening(5001).frame(1, 64));
    assert_eq!(Packet::read(&fresh.frame).source.ip(), address("198.18.9.3"));
}

fn take_tables(mut balancer: Balancer<HostTables>) -> HostTables {
    std::mem::replace(balancer.store_mut(), tables(1))
}

//! Connections keep their backends, whatever happens to the table.
//!
//! Random walks of changes (backends that come, go, drain, flap, weigh otherwise) and packets (flows that
//! open, go on, fall silent, close) through the pipeline itself, over a balancer's tables on the host. After
//! every step, both invariants are asked of every live flow: it has an entry that names its backend, or its
//! backend is the slot's default; and where the slot tracks nothing, it is the default.
//!
//! `FLOWGATE_WALKS` sets how many walks each test makes (40 by default), `FLOWGATE_WALK_SEED` where they
//! begin.

mod affinity;
mod floods;
mod flow;
mod idle;
mod opening;
mod walk;

use flowgate_services::model::Protocol;

use walk::{Walk, World};

/// The walks of a world; what they were like is printed.
fn walks(name: &str, world: World) -> walk::Seen {
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (first, count) = (number("FLOWGATE_WALK_SEED", 1), number("FLOWGATE_WALKS", 40));
    let mut sum = walk::Seen::default();
    for seed in first..first + count {
        let mut walk = Walk::new(seed, world);
        walk.go();
        sum += walk.seen;
    }
    println!("{name}: {count} walks, {sum}");
    assert!(sum.packets > 1000 && sum.changes > 100, "{sum}");
    assert!(sum.reopened > 10 || world.protocol == Protocol::Udp, "{sum}");
    assert!(sum.tracked > 0 || world.affinity, "{sum}");
    assert!(sum.lost < sum.opened / 2, "{sum}");
    sum
}

#[test]
fn tcp_flows_keep_their_backends() {
    let _ = walks(
        "TCP",
        World { protocol: Protocol::Tcp, cells: 4096, by_source: false, affinity: false },
    );
}

#[test]
fn udp_flows_keep_their_backends() {
    let _ = walks(
        "UDP",
        World { protocol: Protocol::Udp, cells: 4096, by_source: false, affinity: false },
    );
}

#[test]
fn flows_of_clients_that_stay_together_keep_their_backends() {
    let _ = walks(
        "by source",
        World { protocol: Protocol::Tcp, cells: 4096, by_source: true, affinity: false },
    );
}

#[test]
fn clients_with_affinity_keep_their_backends() {
    let world = World { protocol: Protocol::Tcp, cells: 4096, by_source: false, affinity: true };
    let _ = walks("affinity, TCP", world);
    let _ = walks("affinity, UDP", World { protocol: Protocol::Udp, ..world });
}

#[test]
fn a_table_that_is_too_small_breaks_nothing() {
    for (name, protocol) in [("TCP, 16 cells", Protocol::Tcp), ("UDP, 16 cells", Protocol::Udp)] {
        let world = World { protocol, cells: 16, by_source: false, affinity: false };
        let seen = walks(name, world);
        assert!(seen.refused > 10, "it is: {seen}");
    }
}

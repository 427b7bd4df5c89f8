//! Stages on a wire: real connections go on while chains are replaced, and a program of somebody else's is left
//! where it is.
//!
//! Privileged: without the capabilities, or without a bridge, each test says so in one line and is skipped.

mod segment;
mod stages;

use std::{path::Path, time::Instant};

use flowgate_datapath::lb::{Builder, LoadBalancer, XdpAttach, XdpError, XdpMode};
use flowgate_lab::Talk;
use segment::{ARM, PORT, Segment, all_answer, services};
use stages::{NOTES, object, says};

fn builder() -> Builder {
    match std::env::var_os("FLOWGATE_OBJECT") {
        Some(path) => LoadBalancer::builder().object(std::fs::read(path).expect("it is there")),
        None => LoadBalancer::builder(),
    }
}

/// Opened on pinned state, with all backends, and not attached yet.
fn reopen(builder: Builder, pins: &Path, segment: &Segment) -> LoadBalancer {
    let mut balancer = builder.pin(pins).open().expect("opens");
    let services = services(&segment.listed());
    let _ = balancer.apply(&services, Instant::now()).expect("fits");
    balancer
}

/// Connections that were there still are, and there are more.
fn go_on(talks: &mut Vec<Talk>, segment: &Segment) {
    talks.extend(segment.talks(PORT, 1));
    all_answer(talks);
}

#[test]
fn connections_go_on_while_chains_are_replaced() {
    let Some(segment) = Segment::new() else { return };
    let pins = segment.node.bpffs().join("balancer");
    let mut talks = Vec::new();
    let chains: [fn(Builder) -> Builder; 6] = [
        |builder| builder,
        |builder| builder.before(says("one", 2)).before(says("two", 2)).behind(says("three", 2)),
        |builder| builder.before(says("four", 2)),
        |builder| (0..8).fold(builder, |b, number| b.before(says(&format!("n{number}"), 2))),
        |builder| builder.behind(says("five", 2)),
        |builder| builder,
    ];
    for (number, chain) in chains.into_iter().enumerate() {
        let mut balancer = reopen(chain(builder()), &pins, &segment);
        if number > 0 {
            // The interface still has the first program of the chain before.
            go_on(&mut talks, &segment);
        }
        let attached = balancer.attach(ARM, XdpAttach::Generic).expect("attaches");
        assert_eq!((attached.mode, attached.adopted), (XdpMode::Generic, number > 0));
        go_on(&mut talks, &segment);
        balancer.persist().expect("it is pinned");
        go_on(&mut talks, &segment);
    }
    drop(reopen(builder(), &pins, &segment));
    assert_eq!(std::fs::read_dir(&pins).expect("it is there").count(), 0, "nothing is left");
}

#[test]
fn a_stages_maps_outlive_it_where_they_are_pinned() {
    let Some(segment) = Segment::new() else { return };
    let pins = segment.node.bpffs().join("notes");
    let open = |stage| builder().before(stage).open().expect("opens");
    let noted = |balancer: &LoadBalancer| {
        let notes = balancer.stage_map("one", NOTES).expect("its sizes are known");
        let notes = notes.expect("it has one");
        let before = notes.get(&[1; 4]).expect("read");
        notes.set(&[1; 4], &[7; 8]).expect("there is room");
        before
    };
    assert_eq!(noted(&open(says("one", 2).pin_maps(&pins))), None);
    assert_eq!(noted(&open(says("one", 2).pin_maps(&pins))), Some(vec![7; 8]));
    assert_eq!(noted(&open(says("one", 2))), None, "without pins it begins anew");
}

#[test]
fn a_program_of_somebody_elses_is_named_and_left_alone() {
    let Some(segment) = Segment::new() else { return };
    let pins = segment.node.bpffs().join("balancer");
    let mut first = reopen(builder(), &pins, &segment);
    let _ = first.attach(ARM, XdpAttach::Generic).expect("attaches");
    let mut second = builder().before(says("mine", 2)).open().expect("opens");
    for how in [XdpAttach::Any, XdpAttach::Native, XdpAttach::Generic] {
        match second.attach(ARM, how) {
            Err(XdpError::Occupied { interface, program, id }) => {
                assert_eq!((interface.as_str(), program.as_str()), (ARM, "xdp_balance"));
                assert!(first.report().programs.iter().any(|program| program.id == id));
            }
            other => panic!("{other:?}"),
        }
    }
    go_on(&mut Vec::new(), &segment);
    drop(first);
    let attached = second.attach(ARM, XdpAttach::Any).expect("nobody is there any more");
    assert!(!attached.adopted);
}

#[test]
fn the_dispatcher_of_libxdp_is_named_with_what_it_runs() {
    let Some(segment) = Segment::new() else { return };
    // What others know it by: its name, and its pins.
    let mut first = builder().before(says("xdp_dispatcher", 2)).open().expect("opens");
    let attached = first.attach(ARM, XdpAttach::Generic).expect("attaches");
    let id = first.report().stages[0].id;
    let mut second = builder().open().expect("opens");
    let mut error = || second.attach(ARM, XdpAttach::Any).expect_err("it is taken");
    assert!(error().to_string().contains("which runs programs of others: take a place in it"));
    let pins = segment.node.bpffs().join(format!("xdp/dispatch-{}-{id}", attached.ifindex));
    std::fs::create_dir_all(&pins).expect("a directory");
    for (number, name) in ["filter", "counter"].into_iter().enumerate() {
        let bytes = object("xdp", name, &[(0xb7, 0, 0, 2), (0x95, 0, 0, 0)]);
        let mut ebpf = aya::Ebpf::load(&bytes).expect("an object");
        let program = ebpf.program_mut(name).expect("it has that");
        let program: &mut aya::programs::Xdp = program.try_into().expect("of XDP");
        program.load().expect("the kernel takes it");
        program.pin(pins.join(format!("prog{number}-prog"))).expect("there is room");
    }
    match error() {
        XdpError::Dispatcher { interface, programs, id: found } => {
            assert_eq!((interface.as_str(), found), (ARM, id));
            assert_eq!(programs, ["filter", "counter"]);
        }
        other => panic!("{other:?}"),
    }
}

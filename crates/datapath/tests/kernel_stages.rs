//! Stages in front of the balancer and behind it: which programs a frame meets, and whose word is the last.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.

mod stages;

use flowgate_datapath::{
    Backend as Tables, OpenError,
    lb::{Balanced, Builder, Fate, LoadBalancer, Position, Stage, StageError, XdpAction},
};
use stages::{NOTES, balanced, counts, object, open, passed, says};

/// Why it can't be opened; `None`: nothing can be opened here, which is said.
fn refused(compose: impl FnOnce(Builder) -> Builder) -> Option<(String, StageError)> {
    match compose(LoadBalancer::builder().minimum_kernel(5, 10)).open() {
        Err(OpenError::Stage { stage, source }) => Some((stage, source)),
        Err(error @ OpenError::MissingCapability { .. }) => {
            println!("SKIPPED: {error}");
            None
        }
        other => panic!("{other:?}"),
    }
}

const PASS: XdpAction = XdpAction::Pass;

#[test]
fn a_frame_meets_the_stages_in_their_order() {
    let stages = |builder: Builder| {
        let builder = builder.before(counts("one", 1, PASS)).before(counts("two", 2, PASS));
        builder.behind(counts("three", 3, PASS)).behind(counts("four", 0, PASS))
    };
    let Some(mut balancer) = open(stages) else { return };
    let report = balancer.report();
    let names: Vec<_> = report.stages.iter().map(|s| (s.name.as_str(), s.position)).collect();
    use Position::{Before, Behind};
    assert_eq!(names, [("one", Before), ("two", Before), ("three", Behind), ("four", Behind)]);
    assert!(report.stages.iter().all(|stage| stage.id != 0 && stage.cost.is_some()));
    assert!(report.to_string().ends_with(", one > two > balancer > three > four"), "{report}");
    // What no service has goes through all of them.
    let Balanced { fate, frame } = passed(&mut balancer);
    assert_eq!((fate, frame[6]), (Fate::Pass, 0b01_10_11_00));
    // What is balanced goes out behind the balancer, with an address of its own.
    let Balanced { fate, frame } = balanced(&mut balancer);
    assert_eq!((fate, frame[23]), (Fate::Transmit, 4), "in a tunnel");
}

#[test]
fn what_a_stage_does_not_pass_is_its_last_word() {
    let denies = |builder: Builder| {
        builder.before(counts("denies", 1, XdpAction::Drop)).before(counts("two", 2, PASS))
    };
    let Some(mut balancer) = open(denies) else { return };
    assert_eq!(balanced(&mut balancer).fate, Fate::Drop(None));
    assert_eq!(balancer.stats().expect("read").services[0].backends[0].1.packets, 0);
    assert_eq!(passed(&mut balancer).frame[6], 1, "no other stage has seen it");
    drop(balancer);
    // Neither the highest number that is looked up, nor one beyond, nor a negative one leads anywhere.
    for action in [0, 7, 8, -1] {
        let Some(mut balancer) = open(|builder| builder.before(says("says", action))) else {
            return;
        };
        assert_ne!(balanced(&mut balancer).frame[23], 4, "{action}");
        assert_eq!(balancer.stats().expect("read").services[0].backends[0].1.packets, 0);
    }
}

#[test]
fn a_stage_gets_what_it_takes() {
    let reflects = || counts("reflects", 1, XdpAction::Transmit);
    let takes = |actions: &'static [XdpAction]| {
        move |builder: Builder| {
            builder.before(reflects()).before(counts("second", 2, PASS).takes(actions))
        }
    };
    let Some(mut balancer) = open(takes(&[XdpAction::Drop, XdpAction::Transmit])) else { return };
    let Balanced { fate, frame } = passed(&mut balancer);
    assert_eq!((fate, frame[6]), (Fate::Pass, 0b01_10));
    let mut balancer = open(takes(&[])).expect("as before");
    let Balanced { fate, frame } = passed(&mut balancer);
    assert_eq!((fate, frame[6]), (Fate::Transmit, 1));
    // Behind the balancer, too.
    let watches = counts("watches", 3, XdpAction::Drop).takes(&[XdpAction::Transmit]);
    let mut balancer = open(|builder| builder.behind(watches)).expect("as before");
    assert_eq!(balanced(&mut balancer).fate, Fate::Drop(None));
    assert_eq!(balancer.stats().expect("read").services[0].backends[0].1.packets, 1);
    assert_eq!(passed(&mut balancer).fate, Fate::Pass);
}

#[test]
fn without_stages_the_balancer_stands_alone() {
    let Some(mut balancer) = open(|builder| builder) else { return };
    assert!(balancer.report().stages.is_empty());
    assert!(balancer.stage_map("none", "MAP").expect("nothing is asked").is_none());
    assert_eq!(balanced(&mut balancer).fate, Fate::Transmit);
    assert_eq!(passed(&mut balancer).fate, Fate::Pass);
}

#[test]
fn a_stages_maps_are_read_and_written() {
    let Some(balancer) = open(|builder| builder.before(says("one", 2)).behind(says("two", 2)))
    else {
        return;
    };
    let map = |stage, map| balancer.stage_map(stage, map).expect("its sizes are known");
    assert!(map("one", "OTHER").is_none() && map("three", NOTES).is_none());
    let [one, two] = ["one", "two"].map(|stage| map(stage, NOTES).expect("it has one"));
    one.set(&[1, 0, 0, 0], &[7; 8]).expect("there is room");
    assert_eq!(one.get(&[1, 0, 0, 0]).expect("read"), Some(vec![7; 8]));
    assert_eq!(one.keys().expect("read"), [[1, 0, 0, 0]]);
    assert_eq!(two.get(&[1, 0, 0, 0]).expect("read"), None, "each has its own");
    one.remove(&[1, 0, 0, 0]).expect("it is there");
    one.remove(&[1, 0, 0, 0]).expect("it is gone");
    assert!(one.keys().expect("read").is_empty());
    let error = one.set(&[1, 0, 0, 0], &[7; 7]).expect_err("a byte is missing");
    assert_eq!(error.to_string(), "a value of this map has 8 bytes, not 7");
    assert!(one.get(&[1]).is_err() && one.set(&[1], &[7; 8]).is_err() && one.remove(&[]).is_err());
}

#[test]
fn a_stage_that_can_not_be_used_is_named_with_the_reason() {
    let garbage = Stage::object(&b"no object at all"[..], "garbage");
    let Some((stage, error)) = refused(|builder| builder.before(garbage)) else { return };
    assert_eq!(stage, "garbage");
    assert!(matches!(error, StageError::Object { .. }), "{error}");

    let bytes = object("xdp", "there", &[(0xb7, 0, 0, 2), (0x95, 0, 0, 0)]);
    let absent = Stage::object(bytes, "absent");
    let (_, error) = refused(|builder| builder.behind(absent)).expect("as before");
    assert!(error.to_string().contains("it has: there"), "{error}");

    let bytes = object("classifier", "traffic", &[(0xb7, 0, 0, 2), (0x95, 0, 0, 0)]);
    let (_, error) =
        refused(|builder| builder.before(Stage::object(bytes, "traffic"))).expect("as before");
    assert!(matches!(&error, StageError::NoProgram { programs } if programs.is_empty()), "{error}");

    // It returns what it never wrote.
    let bytes = object("xdp", "unsound", &[(0x95, 0, 0, 0)]);
    let (_, error) =
        refused(|builder| builder.before(Stage::object(bytes, "unsound"))).expect("as before");
    let StageError::Refused { log, .. } = &error else { panic!("{error}") };
    assert!(log.contains("!read_ok"), "{log}");
}

#[test]
fn names_and_numbers_of_stages_are_checked_before_anything_is_loaded() {
    let host = || LoadBalancer::builder().backend(Tables::Host);
    let error = |builder: Builder| match builder.open() {
        Err(OpenError::Stage { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    let twice = host().before(says("one", 2)).behind(says("one", 2));
    assert!(matches!(error(twice), StageError::Twice));
    let many = (0..9).fold(host(), |builder, number| builder.before(says(&number.to_string(), 2)));
    assert!(matches!(error(many), StageError::TooMany { most: 8 }));
    assert!(matches!(error(host().behind(says("one", 2))), StageError::NoPrograms));
}

//! Frames that are sampled: which, as what, and that nobody else notices.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.

mod stages;

use std::time::SystemTime;

use flowgate_datapath::{
    Backend as Tables,
    lb::{Builder, LoadBalancer, SampleError, Sampled, Samples, Sampling, XdpAction},
};
use stages::{balanced, counts, datagram, open, passed, says};

const EVERY: Sampling = Sampling { one_in: 1, bytes: Sampling::MOST_BYTES };

fn all(samples: &mut Samples) -> Vec<Sampled> {
    std::iter::from_fn(|| samples.try_next()).collect()
}

#[test]
fn a_sample_is_the_frame_as_it_went_on() {
    let Some(mut balancer) = open(|builder| builder) else { return };
    let before = SystemTime::now();
    let mut samples = balancer.sample(&EVERY).expect("the kernel takes it");
    let frames = [balanced(&mut balancer).frame, passed(&mut balancer).frame];
    assert_eq!(frames[0][23], 4, "in a tunnel");
    let sampled = all(&mut samples);
    let actions: Vec<_> = sampled.iter().map(|sample| sample.action).collect();
    assert_eq!(actions, [Some(XdpAction::Transmit), Some(XdpAction::Pass)]);
    for (sample, frame) in sampled.iter().zip(&frames) {
        assert_eq!((&sample.bytes, sample.length), (frame, frame.len()));
        assert!(sample.time >= before && sample.time <= SystemTime::now(), "{:?}", sample.time);
    }
    assert_eq!(balancer.stats().expect("read").services[0].backends[0].1.packets, 1);
    assert_eq!(samples.lost().expect("read"), 0);
}

#[test]
fn no_more_is_kept_than_was_asked_for() {
    let Some(mut balancer) = open(|builder| builder) else { return };
    for bytes in [1, 14, 60, 2048] {
        let mut samples = balancer.sample(&Sampling { one_in: 1, bytes }).expect("taken");
        let whole = passed(&mut balancer).frame;
        let sampled = all(&mut samples);
        assert_eq!((sampled[0].length, sampled.len()), (whole.len(), 1));
        assert_eq!(sampled[0].bytes, whole[..bytes.min(whole.len())]);
    }
}

#[test]
fn one_of_so_many_is_sampled() {
    let Some(mut balancer) = open(|builder| builder) else { return };
    let mut taken = |one_in| {
        let mut samples = balancer.sample(&Sampling { one_in, bytes: 64 }).expect("taken");
        (0..1000).for_each(|_| drop(passed(&mut balancer)));
        all(&mut samples).len()
    };
    // More than six standard deviations to each side.
    let half = taken(2);
    assert!((400..600).contains(&half), "{half}");
    assert_eq!(taken(u32::MAX), 0);
}

#[test]
fn what_nobody_reads_is_lost_and_counted_and_holds_nobody_up() {
    let Some(mut balancer) = open(|builder| builder) else { return };
    let mut samples = balancer.sample(&EVERY).expect("the kernel takes it");
    const FRAMES: usize = 2200;
    for _ in 0..FRAMES {
        assert_eq!(balanced(&mut balancer).frame[23], 4, "in a tunnel");
    }
    let (taken, lost) = (all(&mut samples).len(), samples.lost().expect("read") as usize);
    assert!(taken > 1500 && lost > 0, "{taken} {lost}");
    assert_eq!(taken + lost, FRAMES);
    drop(balanced(&mut balancer));
    assert_eq!(all(&mut samples).len(), 1, "there is room again");
}

#[test]
fn the_last_word_of_all_stages_is_sampled() {
    let stages = |builder: Builder| {
        let builder = builder.before(counts("one", 1, XdpAction::Pass));
        builder.behind(counts("two", 2, XdpAction::Drop))
    };
    let Some(mut balancer) = open(stages) else { return };
    let mut samples = balancer.sample(&EVERY).expect("the kernel takes it");
    drop(passed(&mut balancer));
    drop(balanced(&mut balancer));
    let sampled = all(&mut samples);
    assert_eq!((sampled[0].action, sampled[0].bytes[6]), (Some(XdpAction::Drop), 0b01_10));
    assert_eq!((sampled[1].action, sampled[1].bytes[23]), (Some(XdpAction::Transmit), 4));
    // A word that the kernel doesn't know.
    let mut balancer = open(|builder| builder.before(says("says", 9))).expect("as before");
    let mut samples = balancer.sample(&EVERY).expect("the kernel takes it");
    drop(passed(&mut balancer));
    assert_eq!(all(&mut samples)[0].action, None);
}

#[test]
fn sampling_ends_with_the_next_one_or_when_it_is_stopped() {
    let Some(mut balancer) = open(|builder| builder) else { return };
    balancer.stop_sampling().expect("nothing to do");
    let mut first = balancer.sample(&EVERY).expect("the kernel takes it");
    let mut second = balancer.sample(&EVERY).expect("and once more");
    drop(balanced(&mut balancer));
    assert_eq!((all(&mut first).len(), all(&mut second).len()), (0, 1));
    balancer.stop_sampling().expect("it ends");
    assert_eq!(balanced(&mut balancer).frame[23], 4, "in a tunnel");
    assert_eq!(all(&mut second).len(), 0);
}

#[test]
fn what_can_not_be_sampled_is_an_error_before_anything_changes() {
    let mut host = LoadBalancer::builder().backend(Tables::Host).open().expect("it opens");
    assert!(matches!(host.sample(&EVERY), Err(SampleError::NoPrograms)));
    host.stop_sampling().expect("nothing to do");
    let Some(mut balancer) = open(|builder| builder) else { return };
    let mut samples = balancer.sample(&EVERY).expect("the kernel takes it");
    let none = Sampling { one_in: 0, ..EVERY };
    assert!(matches!(balancer.sample(&none), Err(SampleError::NoRate)));
    let long = Sampling { bytes: 4096, ..EVERY };
    assert!(matches!(balancer.sample(&long), Err(SampleError::Bytes { bytes: 4096, most: 2048 })));
    let _ = balancer.replay(&datagram([198, 51, 100, 2])).expect("it runs");
    assert_eq!(all(&mut samples).len(), 1, "the sampling before goes on");
}

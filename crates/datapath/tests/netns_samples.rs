//! Sampling on a wire: real connections go on while it begins and ends, and what is sampled is what was sent.
//!
//! Privileged: without the capabilities, or without a bridge, each test says so in one line and is skipped.

mod segment;

use std::time::Instant;

use flowgate_datapath::lb::{
    Builder, LoadBalancer, Sampled, Samples, Sampling, XdpAction, XdpAttach,
};
use segment::{ARM, PATIENCE, PORT, Segment, all_answer, services, vips};

const EVERY: Sampling = Sampling { one_in: 1, bytes: Sampling::MOST_BYTES };

fn opened(builder: Builder, segment: &Segment) -> LoadBalancer {
    let mut balancer = builder.open().expect("opens");
    let _ = balancer.apply(&services(&segment.listed()), Instant::now()).expect("fits");
    balancer
}

/// Until a sample is of a frame to a backend.
fn next_sent(samples: &mut Samples) -> Sampled {
    loop {
        let sampled = samples.next_timeout(PATIENCE).expect("read").expect("there are packets");
        if sampled.action == Some(XdpAction::Transmit) {
            return sampled;
        }
    }
}

#[test]
fn connections_go_on_while_sampling_begins_and_ends() {
    let Some(segment) = Segment::new() else { return };
    let pins = segment.node.bpffs().join("balancer");
    for pinned in [false, true] {
        let builder = LoadBalancer::builder();
        let builder = if pinned { builder.pin(&pins) } else { builder };
        let mut balancer = opened(builder, &segment);
        let attached = balancer.attach(ARM, XdpAttach::Generic).expect("attaches");
        let mut talks = segment.talks(PORT, 1);
        for _ in 0..3 {
            let mut samples = balancer.sample(&EVERY).expect("the kernel takes it");
            all_answer(&mut talks);
            let sampled = next_sent(&mut samples);
            assert_eq!((sampled.ifindex, sampled.length), (attached.ifindex, sampled.bytes.len()));
            let backends = segment.backends.iter().map(|backend| backend.mac().0);
            assert!(backends.into_iter().any(|mac| sampled.bytes.starts_with(&mac)));
            talks.extend(segment.talks(PORT, 1));
            balancer.stop_sampling().expect("it ends");
            all_answer(&mut talks);
        }
        assert!(vips().len() < talks.len());
    }
    assert_eq!(std::fs::read_dir(&pins).expect("it is there").count(), 0, "nothing is left");
}

/// Who persists ends sampling, and an interface that comes while frames are sampled is sampled, too.
#[test]
fn an_interface_that_is_sampled_is_adopted() {
    let Some(segment) = Segment::new() else { return };
    let pins = segment.node.bpffs().join("balancer");
    let mut first = opened(LoadBalancer::builder().pin(&pins), &segment);
    let _ = first.attach(ARM, XdpAttach::Generic).expect("attaches");
    let mut talks = segment.talks(PORT, 1);
    let mut samples = first.sample(&EVERY).expect("the kernel takes it");
    all_answer(&mut talks);
    next_sent(&mut samples);
    first.persist().expect("it is pinned");
    while samples.try_next().is_some() {}
    all_answer(&mut talks);
    assert!(samples.try_next().is_none(), "it was stopped");
    let mut second = opened(LoadBalancer::builder().pin(&pins), &segment);
    let attached = second.attach(ARM, XdpAttach::Generic).expect("attaches");
    assert!(attached.adopted);
    // Interfaces that come while frames are sampled are sampled, too.
    assert!(second.detach(ARM).expect("it is there"));
    let mut samples = second.sample(&EVERY).expect("the kernel takes it");
    let _ = second.attach(ARM, XdpAttach::Generic).expect("attaches");
    all_answer(&mut talks);
    next_sent(&mut samples);
}

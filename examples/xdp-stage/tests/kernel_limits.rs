//! The filter in the kernel, in front of the balancer: whom it lets through.
//!
//! Privileged: without the capabilities, each test says so in one line and is skipped.

use flowgate_datapath::{
    OpenError,
    lb::{Fate, LoadBalancer},
};
use xdp_stage::{Limits, Rule, stage};

/// `None`: it can't be had here, which is said.
fn open() -> Option<LoadBalancer> {
    match LoadBalancer::builder().before(stage()).open() {
        Ok(balancer) => Some(balancer),
        Err(error @ OpenError::MissingCapability { .. }) => {
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn prefix(text: &str) -> (std::net::IpAddr, u8) {
    let (address, length) = text.split_once('/').expect("a prefix");
    (address.parse().expect("an address"), length.parse().expect("a length"))
}

/// A frame of a source's.
fn frame(source: &str) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    match source.parse().expect("an address") {
        std::net::IpAddr::V4(source) => {
            frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
            frame.extend(source.octets());
            frame.extend([198, 51, 100, 1]);
        }
        std::net::IpAddr::V6(source) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
            frame.extend(source.octets());
            frame.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        }
    }
    frame.extend([0x9c, 0x40, 0, 9, 0, 8, 0, 0]);
    frame
}

fn fates(balancer: &mut LoadBalancer, sources: &[&str]) -> Vec<Fate> {
    let mut run = |source: &&str| balancer.replay(&frame(source)).expect("it runs").fate;
    sources.iter().map(&mut run).collect()
}

const DROPPED: Fate = Fate::Drop(None);

#[test]
fn sources_are_blocked_by_their_longest_prefix() {
    let Some(mut balancer) = open() else { return };
    let sources = ["203.0.113.7", "203.0.113.8", "198.18.0.1", "2001:db8:1::1", "2001:db8:2::1"];
    assert_eq!(fates(&mut balancer, &sources), [Fate::Pass; 5], "without rules nobody is");
    let limits = Limits::of(&balancer).expect("told").expect("the filter is there");
    for blocked in ["203.0.113.0/24", "2001:db8:1::/48"] {
        limits.set(prefix(blocked), Rule::BLOCK).expect("there is room");
    }
    limits.set(prefix("203.0.113.8/32"), Rule::rate(u32::MAX, u32::MAX)).expect("there is room");
    let fate = [DROPPED, Fate::Pass, Fate::Pass, DROPPED, Fate::Pass];
    assert_eq!(fates(&mut balancer, &sources), fate);
    let limits = Limits::of(&balancer).expect("told").expect("the filter is there");
    assert_eq!(limits.dropped().expect("read"), 2);
    limits.remove(prefix("203.0.113.0/24")).expect("it is there");
    assert_eq!(fates(&mut balancer, &sources[..2]), [Fate::Pass; 2]);
}

#[test]
fn each_source_has_a_bucket_of_its_own() {
    let Some(mut balancer) = open() else { return };
    let limits = Limits::of(&balancer).expect("told").expect("the filter is there");
    // A token in a second is none in this test, however slow it is: the burst is what passes.
    limits.set(prefix("198.18.0.0/15"), Rule::rate(1, 1000)).expect("there is room");
    for source in ["198.18.0.1", "198.19.0.1"] {
        let fates = fates(&mut balancer, &[source; 1200]);
        let passed = fates.iter().take_while(|fate| **fate == Fate::Pass).count();
        assert!((1000..1200).contains(&passed), "{passed}");
    }
}

#[test]
fn what_is_no_ip_or_too_short_is_none_of_its_business() {
    let Some(mut balancer) = open() else { return };
    let limits = Limits::of(&balancer).expect("told").expect("the filter is there");
    limits.set(prefix("0.0.0.0/0"), Rule::BLOCK).expect("there is room");
    limits.set(prefix("::/0"), Rule::BLOCK).expect("there is room");
    let whole = frame("198.18.0.1");
    let mut arp = whole.clone();
    arp[13] = 6;
    let run =
        |balancer: &mut LoadBalancer, frame: &[u8]| balancer.replay(frame).expect("it runs").fate;
    assert_eq!(run(&mut balancer, &whole), DROPPED);
    assert_eq!(run(&mut balancer, &arp), Fate::Pass);
    assert_eq!(run(&mut balancer, &whole[..29]), Fate::Pass, "its source isn't there");
    assert_eq!(run(&mut balancer, &whole[..30]), DROPPED);
}

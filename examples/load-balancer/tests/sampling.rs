//! Sampling through the balancer: who may, for how long, and what is answered.

mod fake;

use std::time::{Duration, Instant};

use fake::Fake;
use flowgate_lb::{
    api::{
        Reply, Request,
        answer::{Done, Samples},
    },
    balancer::{Balancer, Start},
    config,
    plane::Sampling,
};
use serde::de::DeserializeOwned;

struct Rig {
    fake: Fake,
    balancer: Balancer<Fake>,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        let (fake, now) = (Fake::default(), Instant::now());
        let checked = config::parse("lb.yaml", include_str!("../lb.yaml")).unwrap();
        let start = Start { source: "lb.yaml", checked, saved: None, seed: 1 };
        let balancer = Balancer::start(fake.clone(), start, now).unwrap();
        Self { fake, balancer, now }
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, String> {
        match self.balancer.respond(request, self.now) {
            Reply::Ok(value) => Ok(serde_json::from_value(value).unwrap()),
            Reply::Error(why) => Err(why),
        }
    }

    fn sample(&mut self) -> Result<Done, String> {
        self.ask(&Request::Sample { every: 10, snaplen: 64 })
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.balancer.tick(self.now);
    }

    fn sampling(&self) -> Option<Sampling> {
        self.fake.0.borrow().sampling
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn samples_are_told_with_their_service_and_backend() {
    let mut rig = Rig::new();
    assert_eq!(rig.sample().unwrap().changed, ["one frame of 10 is sampled"]);
    assert_eq!(rig.sampling(), Some(Sampling { every: 10, snaplen: 64 }));
    let samples: Samples = rig.ask(&Request::Samples).unwrap();
    let one = &samples.frames[0];
    assert_eq!(
        (one.time, one.length, one.frame.as_str(), samples.lost),
        (1_000_002, 60, "0a0b", 7)
    );
    assert_eq!((one.verdict.as_str(), one.service.as_deref()), ("forwarded", Some("web")));
    assert_eq!(one.backend, Some("198.18.0.11".parse().unwrap()));
    rig.ask::<Done>(&Request::Unsample).unwrap();
    assert_eq!(rig.sampling(), None);
    assert!(rig.ask::<Done>(&Request::Unsample).unwrap().changed.is_empty());
    assert_eq!(rig.ask::<Samples>(&Request::Samples).unwrap_err(), "no frames are sampled");
}

#[test]
fn one_client_samples_at_a_time() {
    let mut rig = Rig::new();
    rig.sample().unwrap();
    assert_eq!(rig.sample().unwrap_err(), "somebody samples already: wait until they end");
    rig.ask::<Done>(&Request::Unsample).unwrap();
    rig.sample().unwrap();
}

#[test]
fn what_nobody_takes_ends_by_itself() {
    let mut rig = Rig::new();
    rig.sample().unwrap();
    rig.pass(9 * SECOND);
    rig.ask::<Samples>(&Request::Samples).unwrap();
    rig.pass(9 * SECOND);
    assert!(rig.sampling().is_some(), "samples were taken meanwhile");
    assert!(rig.balancer.next() <= rig.now + SECOND, "it is woken to end it");
    rig.pass(SECOND);
    assert_eq!(rig.sampling(), None);
    rig.sample().unwrap();
}

#[test]
fn what_the_plane_refuses_is_said_and_leaves_others_their_turn() {
    let mut rig = Rig::new();
    rig.fake.0.borrow_mut().refuses = Some("sample".into());
    assert_eq!(rig.sample().unwrap_err(), "sample is refused");
    rig.fake.0.borrow_mut().refuses = None;
    rig.sample().unwrap();
    // It can't be ended: it is tried again later.
    rig.fake.0.borrow_mut().refuses = Some("sample".into());
    rig.pass(10 * SECOND);
    assert!(rig.sampling().is_some());
    rig.fake.0.borrow_mut().refuses = None;
    rig.pass(10 * SECOND);
    assert_eq!(rig.sampling(), None);
}

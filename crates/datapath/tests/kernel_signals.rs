//! Programs are loaded, however many signals the process gets meanwhile.
//!
//! Privileged: without the capabilities, the test says so in one line and is skipped.

mod stages;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use flowgate_datapath::{
    Datapath, OpenError,
    decap::Decapsulator,
    lb::{LoadBalancer, Sampling},
};
use nix::sys::{
    pthread::{pthread_kill, pthread_self},
    signal::Signal,
};
use stages::says;
use tokio::signal::unix::{SignalKind, signal};

/// Between two signals.
const PAUSE: Duration = Duration::from_micros(100);

/// What it returns, and how many signals its thread was sent meanwhile.
fn under_signals<T>(act: impl FnOnce() -> T) -> (T, u64) {
    let (target, done) = (pthread_self(), AtomicBool::new(false));
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                pthread_kill(target, Signal::SIGUSR1).expect("the thread lives");
                sent += 1;
                // Or the thread would do nothing but take them. What is verified takes many times as long.
                thread::sleep(PAUSE);
            }
            sent
        });
        let result = act();
        done.store(true, Ordering::Relaxed);
        (result, sender.join().expect("it ends"))
    })
}

#[test]
fn programs_are_loaded_under_a_storm_of_signals() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.expect("a runtime");
    let _inside = runtime.enter();
    // A signal that nobody handles would end the process.
    let _handler = signal(SignalKind::user_defined1()).expect("a handler");
    let end = "198.51.100.1".parse().expect("an address");
    let (opened, sent) = under_signals(|| {
        Datapath::builder().open()?;
        Decapsulator::builder().gue(6080).tunnel_end(end).open()?;
        LoadBalancer::builder().before(says("one", 2)).open()
    });
    let mut balancer = match opened {
        Err(error @ OpenError::MissingCapability { .. }) => return println!("SKIPPED: {error}"),
        opened => opened.expect("loaded"),
    };
    assert!(sent > 0, "this would say nothing");
    let (sampled, sent) = under_signals(|| balancer.sample(&Sampling { one_in: 1, bytes: 64 }));
    let _samples = sampled.expect("loaded");
    assert!(sent > 0, "this would say nothing");
}

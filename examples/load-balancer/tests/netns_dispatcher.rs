//! `flowgate-lb run` in libxdp's dispatcher: two of them on one interface, each with a service of its own. And what an
//! earlier process left attached otherwise than the file says.
//!
//! Privileged: without the capabilities, or where the kernel doesn't permit to replace programs' functions (lockdown), each
//! test says so in one line and is skipped.

mod process;
mod segment;

use std::{
    fs,
    net::UdpSocket,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use flowgate_lb::api::{
    Request,
    answer::{Attached, Dispatcher, Status},
};
use process::{PATIENCE, Process, Running};
use segment::Hosts;

/// The ports of both balancers' services.
const PORTS: [u16; 2] = [53, 54];

/// Balancers' hosts, and a socket of the backend's for each balancer's service.
struct Rig {
    hosts: Hosts,
    served: [UdpSocket; 2],
}

impl Rig {
    /// `None`: it can't be had here, which is said.
    fn new(test: &str) -> Option<Self> {
        let hosts = Hosts::new(test)?;
        let served = PORTS.map(|port| hosts.serve(port));
        Some(Self { hosts, served })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.hosts.path(name)
    }

    /// The file of one of the balancers, with more lines.
    fn write(&self, number: usize, (mode, more): (&str, &str)) -> PathBuf {
        let directory = self.path(&number.to_string());
        let more =
            format!("{more}directory: {}\npin: /sys/fs/bpf/lb{number}\n", directory.display());
        let text = self.hosts.file(PORTS[number], (mode, &more));
        let path = self.path(&format!("{number}.yaml"));
        fs::write(&path, text).expect("written");
        path
    }

    /// Starts one of them; how its interface is.
    fn start(&self, number: usize, file: (&str, &str)) -> (Running, Attached) {
        let path = self.write(number, file);
        let directory = self.path(&number.to_string());
        let mut running = Running::start(&self.hosts.balancer, &path, directory);
        let status = |running: &Running| running.try_ask::<Status>(&Request::Status);
        running.wait("it answers", |running| status(running).is_some());
        let attached = status(&running).expect("it answered").interfaces.remove(0);
        (running, attached)
    }

    /// Whether a datagram to a service gets to its backend.
    fn is_served(&self, number: usize) -> bool {
        self.hosts.reach(&self.served[number])
    }

    #[track_caller]
    fn wait_until_served(&self) {
        let begun = Instant::now();
        while !(0..2).all(|number| self.is_served(number)) {
            assert!(begun.elapsed() < PATIENCE, "not both services get their packets");
        }
    }
}

fn ended(process: &mut Process) -> bool {
    let begun = Instant::now();
    loop {
        match process.ended() {
            Some(well) => return well,
            None => assert!(begun.elapsed() < PATIENCE, "it doesn't end"),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn two_balancers_share_an_interface() {
    let Some(rig) = Rig::new("two_balancers_share_an_interface") else { return };
    let (first, attached) = rig.start(0, ("generic", "dispatcher: {priority: 20}\n"));
    if attached.dispatcher == Some(Dispatcher::NotPermitted) {
        println!("SKIPPED: the kernel doesn't permit to replace programs' functions");
        return;
    }
    let place = |position, programs| Some(Dispatcher::Place { position, programs });
    assert_eq!(attached.dispatcher, place(0, 1));
    let (second, attached) = rig.start(1, ("generic", "dispatcher: {priority: 10}\n"));
    assert_eq!(attached.dispatcher, place(0, 2), "in front, by its number");
    rig.wait_until_served();

    // It may look at others' programs also after it has dropped privileges.
    let directory = rig.path("1").display().to_string();
    let seen = rig.path("seen.pcapng").display().to_string();
    let arguments =
        ["sample", "--directory", &directory, "-w", &seen, "--every", "1", "--count", "2"];
    let mut sample = Process::start(&rig.hosts.balancer, &arguments);
    let begun = Instant::now();
    while sample.ended().is_none() {
        assert!(begun.elapsed() < PATIENCE, "nothing is sampled");
        rig.is_served(1);
    }
    assert!(ended(&mut sample));

    // Killed, both go on, and the next process has the place.
    drop(first);
    drop(second);
    rig.wait_until_served();
    let (_first, attached) = rig.start(0, ("generic", "dispatcher: {priority: 20}\n"));
    assert_eq!(attached.dispatcher, place(1, 2));
    rig.wait_until_served();
}

#[test]
fn without_a_place_an_interface_with_a_dispatcher_is_refused() {
    let Some(rig) = Rig::new("without_a_place_an_interface_with_a_dispatcher_is_refused") else {
        return;
    };
    let (_first, attached) = rig.start(0, ("generic", "dispatcher: {}\n"));
    if attached.dispatcher == Some(Dispatcher::NotPermitted) {
        println!("SKIPPED: the kernel doesn't permit to replace programs' functions");
        return;
    }
    let path = rig.write(1, ("generic", "")).display().to_string();
    assert!(!ended(&mut Process::start(&rig.hosts.balancer, &["run", "--config", &path])));
    let begun = Instant::now();
    while !rig.is_served(0) {
        assert!(begun.elapsed() < PATIENCE, "who was there isn't disturbed");
    }
}

#[test]
fn a_restart_runs_as_the_file_says() {
    let Some(rig) = Rig::new("a_restart_runs_as_the_file_says") else { return };
    for mode in ["generic", "native", "generic"] {
        let (_running, attached) = rig.start(0, (mode, ""));
        assert_eq!((attached.mode.as_str(), attached.dispatcher), (mode, None));
    }
    // A place isn't taken behind the operator's back: that would take the running program off first.
    let path = rig.write(0, ("generic", "dispatcher: {}\n")).display().to_string();
    assert!(!ended(&mut Process::start(&rig.hosts.balancer, &["run", "--config", &path])));
    let begun = Instant::now();
    while !rig.is_served(0) {
        assert!(begun.elapsed() < PATIENCE, "what was left running goes on");
    }
}

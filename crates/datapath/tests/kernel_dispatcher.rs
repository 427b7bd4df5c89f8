//! The balancer in libxdp's dispatcher, beside others: on the loopback interface of a network namespace, whose BPF file
//! system nobody else sees.
//!
//! Privileged: without the capabilities, or where the kernel doesn't permit to replace programs' functions (lockdown), each
//! test says so in one line and is skipped.

mod stages;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{IpAddr, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use flowgate_datapath::lb::{
    Beside, Builder, DispatcherError, LoadBalancer, Place, XdpAction, XdpAttach, XdpError,
};
use flowgate_lab::Node;
use flowgate_services::{
    Services,
    model::{Backend, Service},
};
use stages::says;

/// How long something may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOPBACK: &str = "lo";
const VIP: &str = "198.51.100.1";

fn place(priority: u32) -> Place {
    Place::default().priority(priority)
}

/// The balancer of the tests, whose service no other one has.
fn ours(compose: impl FnOnce(Builder) -> Builder) -> LoadBalancer {
    let builder = match std::env::var_os("FLOWGATE_OBJECT") {
        Some(path) => LoadBalancer::builder().object(fs::read(path).expect("it is there")),
        None => LoadBalancer::builder(),
    };
    let mut balancer = compose(builder).open().expect("opens");
    let web = Service::udp("web", 53).address(VIP.parse().expect("an address"));
    let web = web.backend(Backend::new("198.18.0.1".parse().expect("an address")));
    let _ = balancer.apply(&Services::new([web]).expect("good"), Instant::now()).expect("fits");
    balancer
}

/// Somebody's program, which says the same of every frame.
fn other(action: XdpAction, place: Place) -> LoadBalancer {
    let builder = LoadBalancer::builder().before(says("other", action as i32));
    builder.dispatched(place).open().expect("opens")
}

fn attach(balancer: &mut LoadBalancer) -> Beside {
    balancer.attach(LOOPBACK, XdpAttach::Generic).expect("attaches").beside
}

fn at(position: usize, programs: usize) -> Beside {
    Beside::Dispatched { position, programs }
}

/// Whether a datagram to the service gets to the balancer.
fn is_balanced(balancer: &LoadBalancer) -> bool {
    let packets = || balancer.stats().expect("read").services[0].backends[0].1.packets;
    let before = packets();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.send_to(b"question", (VIP, 53)).expect("sent");
    packets() > before
}

/// What is pinned of dispatchers.
fn pinned(node: &Node) -> Vec<String> {
    let directory = fs::read_dir(node.bpffs().join("xdp")).into_iter().flatten().flatten();
    directory.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// A node and the balancer on its loopback interface. `None`: it can't be had here, which is said.
fn first(compose: impl FnOnce(Builder) -> Builder) -> Option<(Node, LoadBalancer)> {
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED: {missing}");
        return None;
    }
    let mut node = Node::enter().expect("namespaces of its own");
    node.add_address(VIP.parse::<IpAddr>().expect("an address")).expect("an address");
    let mut balancer = ours(|builder| compose(builder.dispatched(place(50))));
    match attach(&mut balancer) {
        Beside::NotPermitted => {
            // It has the interface alone, as it says.
            assert!(is_balanced(&balancer));
            assert_eq!(pinned(&node), [] as [&str; 0]);
            println!("SKIPPED: the kernel doesn't permit to replace programs' functions");
            None
        }
        beside => {
            assert_eq!(beside, at(0, 1));
            Some((node, balancer))
        }
    }
}

#[test]
fn others_come_and_go_beside_the_balancer() {
    let Some((node, balancer)) = first(|builder| builder) else { return };
    assert!(is_balanced(&balancer));
    // In front of it: what that drops, it doesn't get.
    let mut front = other(XdpAction::Drop, place(10));
    assert_eq!(attach(&mut front), at(0, 2));
    assert!(!is_balanced(&balancer));
    assert_eq!(pinned(&node).len(), 1, "one dispatcher");
    assert!(front.detach(LOOPBACK).expect("its place is left"));
    assert!(is_balanced(&balancer));
    drop(balancer);
    assert_eq!(pinned(&node), [] as [&str; 0], "the last one takes it off");
}

#[test]
fn each_has_its_place_and_what_it_goes_on_with() {
    let Some((_node, balancer)) = first(|builder| builder) else { return };
    let mut front = other(XdpAction::Drop, place(10).going_on(&[XdpAction::Drop]));
    let mut behind = other(XdpAction::Drop, place(90));
    assert_eq!((attach(&mut behind), attach(&mut front)), (at(1, 2), at(0, 3)));
    assert!(is_balanced(&balancer));
    // Whoever wants the interface alone doesn't get it.
    let mut alone = ours(|builder| builder);
    match alone.attach(LOOPBACK, XdpAttach::Any) {
        Err(XdpError::Dispatcher { programs, .. }) => assert_eq!(programs, ["flowgate"; 3]),
        other => panic!("{other:?}"),
    }
    drop((front, behind, balancer));
    assert_eq!(attach(&mut alone), Beside::Nobody);
    // And who has it alone isn't joined.
    let mut joins = other(XdpAction::Pass, place(50));
    let joined = joins.attach(LOOPBACK, XdpAttach::Generic);
    assert!(matches!(joined, Err(XdpError::Occupied { .. })), "{joined:?}");
}

#[test]
fn a_killed_balancers_place_is_taken_over_or_cleared() {
    let Some((node, balancer)) = first(|builder| builder) else { return };
    let pins = node.bpffs().join("balancer");
    // Killed with pins: it goes on to drop what it gets, and the next process has its place.
    killed(Some(&pins));
    assert!(!is_balanced(&balancer));
    let builder = LoadBalancer::builder().before(says("other", XdpAction::Pass as i32));
    let mut next = builder.dispatched(place(10)).pin(&pins).open().expect("opens");
    assert_eq!(attach(&mut next), at(0, 2));
    assert!(is_balanced(&balancer), "its own program, in the place that there was");
    drop(next);
    // Killed without: nothing stands in its place, until somebody else comes.
    killed(None);
    // The kernel empties it a little later.
    let until = Instant::now() + PATIENCE;
    while !is_balanced(&balancer) {
        assert!(Instant::now() < until, "its place isn't empty");
    }
    assert_eq!(attach(&mut other(XdpAction::Pass, place(10))), at(0, 2));
}

#[test]
fn a_lock_that_is_held_is_named() {
    let Some((node, mut balancer)) = first(|builder| builder) else { return };
    let path = node.bpffs().join("xdp");
    let lock = fs::File::open(&path).expect("it is there");
    lock.lock().expect("nobody has it");
    match balancer.detach(LOOPBACK) {
        Err(XdpError::Dispatched { source: DispatcherError::Locked { path: named }, .. }) => {
            assert_eq!(named, path);
        }
        other => panic!("{other:?}"),
    }
    assert!(!is_balanced(&balancer), "it doesn't run any more all the same");
}

/// Where the process that is killed pins its state.
const PINS: &str = "FLOWGATE_TEST_PINS";

/// Has a process take the place in front, with a program that drops everything, and kills it.
fn killed(pins: Option<&Path>) {
    let mut command = Command::new(std::env::current_exe().expect("this one"));
    command.args(["--ignored", "--exact", "process_that_is_killed", "--nocapture"]);
    command.env_remove(PINS).envs(pins.map(|pins| (PINS, pins)));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let said: Vec<_> = lines.map_while(Result::ok).take_while(|line| line != "attached").collect();
    let status = child.try_wait().expect("a child");
    assert_eq!(status, None, "it ended by itself: {said:?}");
    child.kill().expect("it is there");
    child.wait().expect("it ends");
}

/// Not a test of its own: the process that the test above starts and kills.
#[test]
#[ignore = "the process that another test starts"]
fn process_that_is_killed() {
    let builder = LoadBalancer::builder().before(says("other", XdpAction::Drop as i32));
    let builder = builder.dispatched(place(10));
    let builder = match std::env::var_os(PINS) {
        Some(pins) => builder.pin(pins),
        None => builder,
    };
    let mut balancer = builder.open().expect("opens");
    println!("{:?}", attach(&mut balancer));
    println!("attached");
    let _ = std::io::stdin().read_line(&mut String::new());
}

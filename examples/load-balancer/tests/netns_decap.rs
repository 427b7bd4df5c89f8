//! `flowgate-lb decapsulate` in a backend's namespace: a packet in a tunnel, by hand, and what it says of it.

use std::{
    io::{BufRead, BufReader},
    net::IpAddr,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use flowgate_lab::{Node, Pod};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const VIP: [u8; 4] = [198, 51, 100, 1];
const BALANCER: [u8; 4] = [198, 18, 5, 1];
const BACKEND: [u8; 4] = [198, 18, 5, 2];

/// A running `flowgate-lb decapsulate`.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(backend: &Pod, pins: &Path) -> Self {
        let arguments = format!(
            "decapsulate --interface {} --address {} --vip {} --balancer 198.18.5.1/32 --hook tc --pin {}",
            backend.interface(),
            IpAddr::from(BACKEND),
            IpAddr::from(VIP),
            pins.display()
        );
        let started = backend.run(|| {
            Command::new(env!("CARGO_BIN_EXE_flowgate-lb"))
                .args(arguments.split(' '))
                .stdout(Stdio::piped())
                .spawn()
        });
        let mut child = started.expect("a thread there").expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("it says so").expect("text")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    /// What it counted.
    fn counted(&mut self) -> Vec<String> {
        self.signal(Signal::SIGUSR1);
        let lines = self.lines.by_ref().map_while(Result::ok);
        lines.take_while(|line| !line.is_empty()).skip(1).collect()
    }
}

/// None outlives its test.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A datagram to the service, in IPv4, as a balancer with this address would send it.
fn wrapped(sender: &Pod, to: [u8; 4]) -> Vec<u8> {
    let inner =
        [&ipv4(17, 12, ([203, 0, 113, 7], to))[..], &[0x9c, 0x40, 0, 53, 0, 12, 0, 0], &[0xa5; 4]];
    let inner = inner.concat();
    let outer = ipv4(4, inner.len(), (BALANCER, BACKEND));
    [&sender.host_mac().0[..], &sender.mac().0, &[8, 0], &outer, &inner].concat()
}

fn ipv4(protocol: u8, payload: usize, (source, destination): ([u8; 4], [u8; 4])) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, payload as u8 + 20, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    header.extend([source, destination].concat());
    let words = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// With one space between columns.
fn counted(running: &mut Running) -> Vec<String> {
    let lines = running.counted().into_iter();
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn packets_come_out_of_tunnels_and_a_second_start_takes_over() {
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED: {missing}");
        return;
    }
    let mut node = Node::enter().expect("namespaces of its own");
    let sender = node.add_pod("sender", &[IpAddr::from(BALANCER)]).expect("a pod");
    let backend = node.add_pod("backend", &[IpAddr::from(BACKEND)]).expect("a pod");
    let pins = node.bpffs().join("decapsulate");
    let socket = sender.raw().expect("a raw socket");
    for start in 0..2 {
        let mut running = Running::start(&backend, &pins);
        let first = running.line();
        assert!(first.starts_with("decapsulates on"), "{first}");
        // A clsact filter is replaced in place, and isn't told from one that is new.
        assert!(
            first.ends_with("taken over") == (start == 1) || first.contains("clsact"),
            "{first}"
        );
        socket.send(&wrapped(&sender, [198, 51, 100, 9])).expect("sent");
        socket.send(&wrapped(&sender, VIP)).expect("sent");
        let expected = ["ipv4_in_ipv4 1 32", "dropped: inner destination is no service 1 52"];
        while counted(&mut running) != expected {
            assert!(running.child.try_wait().expect("it was started").is_none(), "it runs");
        }
        running.signal(Signal::SIGTERM);
        assert!(running.child.wait().expect("it ends").success());
    }
}

//! `flowgate-lb server-id`: both ends of a connection in one control group, and what it says of them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use flowgate_lab::{ControlGroups, LabError, Node};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const GROUP: &str = "both";

/// None outlives its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A connection through loopback on which a line comes back.
fn talk() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    let (mut server, _) = listener.accept().expect("accepts");
    client.write_all(b"hello").expect("written");
    let mut line = [0; 5];
    server.read_exact(&mut line).expect("read");
    server.write_all(&line).expect("written");
    client.read_exact(&mut line).expect("read");
    assert_eq!(&line, b"hello");
}

#[test]
fn both_ends_say_what_they_counted() {
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED: {missing}");
        return;
    }
    let _node = Node::enter().expect("namespaces of its own");
    let groups = match ControlGroups::make(&[GROUP]) {
        Err(LabError::Mount { source, .. }) => return println!("SKIPPED: no cgroup v2: {source}"),
        made => made.expect("a control group"),
    };
    let group = groups.path(GROUP);
    let child = Command::new(env!("CARGO_BIN_EXE_flowgate-lb"))
        .args(["server-id", "--id", "11", "--client", "--cgroup"])
        .arg(&group)
        .stdout(Stdio::piped())
        .spawn();
    let mut running = Running(child.expect("starts"));
    let mut lines = BufReader::new(running.0.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("it says so").expect("text");
    assert_eq!(line(), format!("names servers in {}", group.display()));
    groups.enter(GROUP).expect("the process may");
    talk();
    talk();
    kill(Pid::from_raw(running.0.id() as i32), Signal::SIGTERM).expect("it runs");
    let said: Vec<String> = (0..6).map(|_| line()).collect();
    let count = |name: &str| {
        let found = said.iter().find_map(|line| line.strip_prefix(name));
        found
            .and_then(|count| count.trim().parse::<u64>().ok())
            .unwrap_or_else(|| panic!("{said:?}"))
    };
    assert_eq!(["announced", "learned", "unannounced", "no_room"].map(count), [2, 2, 0, 0]);
    // The answer to the SYN-ACK, and the line.
    assert!(count("repeated") >= 4, "{said:?}");
    assert!(running.0.wait().expect("it ends").success());
}

#[test]
fn nobody_to_name_is_a_wrong_command_line() {
    let run = |arguments: &[&str]| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_flowgate-lb"));
        run.arg("server-id").args(arguments).output().expect("it runs").status.code()
    };
    assert_eq!(run(&["--cgroup", "/nowhere"]), Some(2));
    assert_eq!(run(&["--cgroup", "/nowhere", "--client", "--kind", "8"]), Some(1));
}

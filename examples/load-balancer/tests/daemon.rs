//! The program that runs, whole but for its plane: file, signals, socket, metrics, end.
//!
//! One test, since signals are for the process.

mod fake;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use fake::Fake;
use flowgate_lb::{
    api::{
        Request, SOCKET,
        answer::{Backend, Done, Status},
        client::Client,
    },
    daemon::{self, DaemonError},
};
use nix::sys::signal::{Signal, raise};

/// Far longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until it has happened.
#[track_caller]
fn wait(mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "it doesn't happen");
        thread::sleep(Duration::from_millis(2));
    }
}

fn file(directory: &Path, metrics: SocketAddr, backends: &[u8]) -> String {
    let backends: Vec<String> =
        backends.iter().map(|last| format!("{{address: 198.18.0.{last}}}")).collect();
    format!(
        "interfaces: [{{name: eth0}}]\ndirectory: {}\nmetrics: {{listen: '{metrics}'}}\nservices:\n  \
         - name: web\n    addresses: [198.51.100.1]\n    protocol: tcp\n    port: 80\n    backends: [{}]\n",
        directory.display(),
        backends.join(", ")
    )
}

struct Running<'a>(&'a Path);

impl Running<'_> {
    fn status(&self) -> Status {
        Client::connect(self.0).unwrap().ask(&Request::Status).unwrap()
    }

    fn backends(&self) -> Vec<String> {
        let mut client = Client::connect(self.0).unwrap();
        let all: Vec<Backend> = client.ask(&Request::Backends { service: None }).unwrap();
        all.iter().map(|one| format!("{} {}", one.address, one.state)).collect()
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn it_runs_until_it_is_told_to_end() {
    let files = tempfile::tempdir().unwrap();
    let (directory, path) = (files.path().join("run"), files.path().join("lb.yaml"));
    let [metrics, other] = [free_address(), free_address()];
    fs::write(&path, file(&directory, metrics, &[1])).unwrap();
    let daemon = {
        let path = path.clone();
        thread::spawn(move || daemon::run(&path, |_| Ok(Fake::default())).map(drop))
    };
    wait(|| Client::connect(&directory).is_ok());
    let running = Running(&directory);
    assert_eq!(running.status().config, path.display().to_string());

    let second = daemon::run(&path, |_| Ok(Fake::default())).map(drop);
    assert!(matches!(second, Err(DaemonError::Running(_))), "{second:?}");

    let answer = get(metrics, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("flowgate_lb_slots{service=\"web\"} 251\n"), "{answer}");
    assert!(get(metrics, "/other").starts_with("HTTP/1.1 404 "));

    fs::write(&path, file(&directory, other, &[1, 2])).unwrap();
    wait(|| running.backends() == ["198.18.0.1 active", "198.18.0.2 active"]);
    assert!(get(other, "/metrics").contains("198.18.0.2"), "metrics have moved");
    wait(|| TcpStream::connect(metrics).is_err());

    fs::write(&path, file(&directory, other, &[1, 1])).unwrap();
    wait(|| running.status().refused.is_some());
    let refused = running.status().refused.unwrap();
    assert!(refused.contains("lb.yaml:9: services[0].backends[1].address: "), "{refused}");
    assert_eq!(running.backends().len(), 2);
    assert!(get(other, "/metrics").contains("flowgate_lb_config_refused 1\n"));
    fs::write(&path, file(&directory, other, &[1, 2])).unwrap();
    wait(|| running.status().refused.is_none());

    let drain = Request::Drain { service: "web".into(), backend: "198.18.0.1".parse().unwrap() };
    Client::connect(&directory).unwrap().ask::<Done>(&drain).unwrap();
    assert_eq!(running.status().changes, ["web: 198.18.0.1 draining"]);
    fs::write(files.path().join("other"), "").unwrap();
    fs::write(&path, format!("# the same\n{}", file(&directory, other, &[1, 2]))).unwrap();
    assert_eq!(running.status().changes.len(), 1, "a file that says the same undoes nothing");
    raise(Signal::SIGHUP).unwrap();
    wait(|| running.status().changes.is_empty());

    raise(Signal::SIGTERM).unwrap();
    daemon.join().unwrap().unwrap();
    assert!(!directory.join(SOCKET).exists());
    let saved = fs::read_to_string(directory.join("state.json")).unwrap();
    assert!(saved.contains("198.18.0.2"), "{saved}");
}

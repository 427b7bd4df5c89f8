//! The admin API over a real socket.

mod fake;

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    time::Instant,
};

use fake::Fake;
use flowgate_lb::{
    api::{
        Request, SOCKET,
        answer::{Backend, Done, Status},
        client::{Client, ClientError},
        server::Server,
    },
    balancer::{Balancer, Start},
    config,
};
use tokio::sync::mpsc;

/// Serves a balancer of the example while `client` runs on a thread of its own.
fn served(directory: &Path, client: impl FnOnce() + Send) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let checked = config::parse("lb.yaml", include_str!("../lb.yaml")).unwrap();
    let start = Start { source: "lb.yaml", checked, saved: None, seed: 1 };
    let mut balancer = Balancer::start(Fake::default(), start, Instant::now()).unwrap();
    let (requests, mut asked) = mpsc::channel(8);
    let server = runtime.block_on(async { Server::bind(directory) }).unwrap();
    let (ends, mut ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        let client = scope.spawn(move || {
            let _ends = ends;
            client();
        });
        runtime.block_on(async {
            let serving = tokio::spawn(server.serve(requests));
            loop {
                tokio::select! {
                    _ = &mut ended => break,
                    Some(asked) = asked.recv() => {
                        let answer = balancer.respond(&asked.request, Instant::now());
                        let _ = asked.reply.send(answer);
                    }
                }
            }
            serving.abort();
        });
        client.join().unwrap();
    });
    drop(runtime);
}

/// Writes lines as a script would; returns what comes back.
fn lines(directory: &Path, lines: &str) -> Vec<String> {
    let mut stream = UnixStream::connect(directory.join(SOCKET)).unwrap();
    stream.write_all(lines.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    BufReader::new(stream).lines().map(Result::unwrap).collect()
}

#[test]
fn one_connection_carries_many_requests() {
    let directory = tempfile::tempdir().unwrap();
    served(directory.path(), || {
        let mut client = Client::connect(directory.path()).unwrap();
        let status: Status = client.ask(&Request::Status).unwrap();
        assert_eq!((status.services, status.backends), (6, 13));
        let backend = "198.18.0.11".parse().unwrap();
        let drain = Request::Drain { service: "web".into(), backend };
        let done: Done = client.ask(&drain).unwrap();
        assert_eq!(done.changed, ["web: 198.18.0.11 changed"]);
        let backends: Vec<Backend> =
            client.ask(&Request::Backends { service: Some("web".into()) }).unwrap();
        let drained = backends.iter().find(|one| one.address == backend).unwrap();
        assert_eq!(drained.state, "draining");
        let again = Request::Drain { service: "mail".into(), backend };
        let refused = client.ask::<Done>(&again).unwrap_err();
        assert!(matches!(&refused, ClientError::Refused(why) if why == "there is no service mail"));
    });
}

#[test]
fn scripts_speak_lines_of_json() {
    let directory = tempfile::tempdir().unwrap();
    served(directory.path(), || {
        let path = directory.path();
        let answers =
            lines(path, "{\"command\":\"flows\"}\nnonsense\n{\"command\":\"backends\",\"x\":1}\n");
        assert!(answers[0].starts_with("{\"ok\":[{"), "{answers:?}");
        assert!(answers[1].starts_with("{\"error\":\"not understood: "), "{answers:?}");
        assert!(answers[2].starts_with("{\"error\":\"not understood: "), "{answers:?}");
        assert_eq!(lines(path, "{\"command\":\"flows\"}").len(), 1, "the last line needs no end");
        assert!(lines(path, "").is_empty());
    });
}

#[test]
fn the_socket_is_the_owners_alone_and_goes_with_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join(SOCKET);
    served(directory.path(), || {
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    });
    assert!(!socket.exists());
    let gone = Client::connect(directory.path()).unwrap_err().to_string();
    assert!(gone.contains("does flowgate-lb run"), "{gone}");
}

#[test]
fn a_socket_that_a_dead_process_left_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(directory.path().join(SOCKET)).unwrap());
    std::fs::write(directory.path().join("api.new"), "").unwrap();
    served(directory.path(), || {
        assert!(Client::connect(directory.path()).unwrap().ask::<Status>(&Request::Status).is_ok());
    });
}

#[test]
fn a_line_without_end_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    served(directory.path(), || {
        let mut stream = UnixStream::connect(directory.path().join(SOCKET)).unwrap();
        let some = vec![b'x'; 1 << 20];
        while stream.write_all(&some).is_ok() {}
        let mut client = Client::connect(directory.path()).unwrap();
        assert!(client.ask::<Status>(&Request::Status).is_ok());
    });
}

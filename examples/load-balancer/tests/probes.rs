//! Checks against real servers, each on a port of its own.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use flowgate_lb::{
    config::{
        Bytes,
        model::{Check, Http, Https, Probe, Udp},
    },
    health::{
        Plan,
        probe::{self, Failure},
    },
};
use rcgen::{CertificateParams, Issuer, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

/// Far longer than an answer takes on this host.
const PATIENCE: Duration = Duration::from_secs(20);
/// For answers that never come.
const BRIEFLY: Duration = Duration::from_millis(50);

fn plan(address: SocketAddr, probe: Probe, timeout: Duration) -> Plan {
    let (interval, rise, fall, jitter) = (PATIENCE, 1, 1, 0);
    let check = Check { probe, port: None, path: None, interval, timeout, rise, fall, jitter };
    Plan { address, tunnel: None, check }
}

/// Without tunnels.
async fn ask(plan: &Plan) -> Result<(), Failure> {
    probe::ask(plan, None).await
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Nobody listens there: the port was somebody's until now.
async fn nobody() -> SocketAddr {
    listener().await.1
}

/// Answers one request with a text; returns the request.
async fn answer(listener: TcpListener, text: &'static str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = vec![0; 4096];
    let length = stream.read(&mut request).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    String::from_utf8_lossy(&request[..length]).into_owned()
}

async fn http(http: Http, text: &'static str) -> (Result<(), Failure>, String) {
    let (listener, address) = listener().await;
    let plan = plan(address, Probe::Http(http), PATIENCE);
    tokio::join!(ask(&plan), answer(listener, text))
}

#[tokio::test(flavor = "current_thread")]
async fn a_tcp_check_wants_a_connection() {
    let (_listener, address) = listener().await;
    assert_eq!(ask(&plan(address, Probe::Tcp, PATIENCE)).await, Ok(()));
    let refused = ask(&plan(nobody().await, Probe::Tcp, PATIENCE)).await;
    assert_eq!(refused, Err(Failure::Io("connection refused".into())));
}

#[tokio::test(flavor = "current_thread")]
async fn an_http_check_wants_a_status() {
    let (good, request) = http(Http::default(), "HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(good, Ok(()));
    assert!(request.starts_with("GET / HTTP/1.1\r\nhost: 127.0.0.1:"), "{request}");
    let health =
        Http { path: "/healthz".into(), host: Some("www.example.org".into()), ..Http::default() };
    let (bad, request) = http(health, "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(bad, Err(Failure::Status(503)));
    assert!(request.starts_with("GET /healthz HTTP/1.1\r\nhost: www.example.org\r\n"), "{request}");
    let only = Http { least_status: 503, most_status: 503, ..Http::default() };
    assert_eq!(http(only, "HTTP/1.1 503 Busy\r\n\r\n").await.0, Ok(()));
}

#[tokio::test(flavor = "current_thread")]
async fn what_isnt_http_fails() {
    for text in ["", "SSH-2.0-x\r\n", "HTTP/1.1 2"] {
        let (failed, _) = http(Http::default(), text).await;
        assert!(matches!(failed, Err(Failure::Http(_))), "{text:?}: {failed:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn who_is_silent_fails() {
    let (_listener, address) = listener().await;
    let silent = plan(address, Probe::Http(Http::default()), BRIEFLY);
    assert_eq!(ask(&silent).await, Err(Failure::TimedOut));
}

#[tokio::test(flavor = "current_thread")]
async fn a_udp_check_wants_an_answer() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let echo = tokio::spawn(async move {
        let mut bytes = [0; 64];
        loop {
            let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
            socket.send_to(&bytes[..length], from).await.unwrap();
        }
    });
    let udp = |expect: Option<&str>| {
        let expect = expect.map(|text| Bytes(text.into()));
        Probe::Udp(Udp { send: Bytes("ping 1".into()), expect })
    };
    for expect in [None, Some("ping"), Some("ping 1")] {
        assert_eq!(ask(&plan(address, udp(expect), PATIENCE)).await, Ok(()), "{expect:?}");
    }
    let other = ask(&plan(address, udp(Some("pong")), PATIENCE)).await;
    assert_eq!(other, Err(Failure::Unexpected));
    echo.abort();
    assert!(echo.await.is_err());
    let closed = ask(&plan(address, udp(None), PATIENCE)).await;
    assert_eq!(closed, Err(Failure::Io("connection refused".into())));
}

/// A certificate for `www.example.org` and who has signed it.
struct Certificates {
    ca: String,
    server: Arc<rustls::ServerConfig>,
}

fn certificates() -> Certificates {
    let [ca_key, key] = [(); 2].map(|()| KeyPair::generate().unwrap());
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(params, ca_key);
    let server = CertificateParams::new(["www.example.org".to_owned()]).unwrap();
    let chain = vec![server.signed_by(&key, &issuer).unwrap().der().clone()];
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Certificates { ca, server: Arc::new(builder.with_single_cert(chain, key).unwrap()) }
}

async fn https(server: Arc<rustls::ServerConfig>, https: Https) -> Result<(), Failure> {
    let (listener, address) = listener().await;
    let plan = plan(address, Probe::Https(https), PATIENCE);
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        // A client that doesn't trust it says so by breaking off.
        let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(server).accept(stream).await else {
            return;
        };
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    };
    tokio::join!(ask(&plan), serve).0
}

fn asked(host: &str, ca: Option<&Path>) -> Https {
    Https {
        path: "/".into(),
        host: host.into(),
        least_status: 200,
        most_status: 399,
        ca: ca.map(Path::to_owned),
        insecure: ca.is_none(),
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_https_check_wants_the_right_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let [ours, theirs] = [certificates(), certificates()];
    let [our_file, their_file] = ["ours.pem", "theirs.pem"].map(|name| directory.path().join(name));
    std::fs::write(&our_file, &ours.ca).unwrap();
    std::fs::write(&their_file, &theirs.ca).unwrap();
    let check = |host: &str, ca: Option<&Path>| https(Arc::clone(&ours.server), asked(host, ca));
    assert_eq!(check("www.example.org", Some(&our_file)).await, Ok(()));
    for (host, ca) in [("www.example.net", &our_file), ("www.example.org", &their_file)] {
        let failed = check(host, Some(ca)).await;
        assert!(matches!(failed, Err(Failure::Tls(_))), "{host}: {failed:?}");
    }
    assert_eq!(check("www.example.net", None).await, Ok(()), "anybody will do");
    let missing = check("www.example.org", Some(&directory.path().join("none.pem"))).await;
    assert!(matches!(&missing, Err(Failure::Tls(why)) if why.contains("none.pem")), "{missing:?}");
}

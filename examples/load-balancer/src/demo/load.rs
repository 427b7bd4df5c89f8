//! The client: connections for one request each, and connections that last.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use flowgate_lab::Pod;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::{net::TcpStream, time::timeout};

use super::{DemoError, stage};

/// Requests at the same time, each over a connection of its own.
const SHORT: usize = 8;
/// Connections that last.
pub(super) const LONG: usize = 30;
/// From one request of a lasting connection to the next.
const PAUSE: Duration = Duration::from_millis(20);
/// So long an answer may take: longer than a SYN takes to be sent again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cause {
    Refused,
    Reset,
    Closed,
    TimedOut,
    /// An answer of somebody else than before, over the same connection.
    Moved,
    Other,
}

/// A request that is over.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) begun: Instant,
    /// Whether its connection lasts.
    pub(super) lasting: bool,
    /// Who answered: this time or, on a lasting connection, the time before.
    pub(super) backend: Option<String>,
    pub(super) failed: Option<Cause>,
}

/// The client at work.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    records: Mutex<Vec<Record>>,
    stop: AtomicBool,
}

impl Load {
    /// Begins, on a host.
    pub(super) fn start(client: &Pod) -> Result<Self, DemoError> {
        let shared = Arc::new(Shared::default());
        let (theirs, work) =
            (Arc::clone(&shared), std::thread::Builder::new().name("client".into()));
        let spawned = client.run(move || work.spawn(move || ask_on(&theirs)))?;
        let thread = spawned.map_err(|source| DemoError::Io { what: "a thread", source })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How many requests are over.
    pub(super) fn count(&self) -> usize {
        self.shared.records().len()
    }

    /// Ends, and waits for the requests that are under way.
    pub(super) fn stop(mut self) -> Vec<Record> {
        self.end();
        std::mem::take(&mut *self.shared.records())
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, begun: Instant, lasting: bool, backend: Option<String>, failed: Option<Cause>) {
        self.records().push(Record { begun, lasting, backend, failed });
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn ask_on(shared: &Arc<Shared>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..SHORT + LONG {
            let address = stage::service()[number % 2];
            let (to, shared) = (SocketAddr::new(address, stage::PORT), Arc::clone(shared));
            match number < SHORT {
                true => tasks.spawn(short(to, shared)),
                false => tasks.spawn(long(to, shared)),
            };
        }
        tasks.join_all().await;
    });
    Ok(())
}

/// One connection after the other, each for one request.
async fn short(to: SocketAddr, shared: Arc<Shared>) {
    while !shared.is_over() {
        let begun = Instant::now();
        let answered = async { Connection::open(to).await?.ask().await };
        match timeout(PATIENCE, answered).await.unwrap_or(Err(Cause::TimedOut)) {
            Ok(backend) => shared.note(begun, false, Some(backend), None),
            Err(cause) => shared.note(begun, false, None, Some(cause)),
        }
    }
}

/// Requests over one connection, until it breaks.
async fn long(to: SocketAddr, shared: Arc<Shared>) {
    let begun = Instant::now();
    let mut connection = match timeout(PATIENCE, Connection::open(to)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(cause)) => return shared.note(begun, true, None, Some(cause)),
        Err(_) => return shared.note(begun, true, None, Some(Cause::TimedOut)),
    };
    let mut backend: Option<String> = None;
    while !shared.is_over() {
        let begun = Instant::now();
        let answered = timeout(PATIENCE, connection.ask()).await;
        let failed = match answered.unwrap_or(Err(Cause::TimedOut)) {
            Ok(answered) if backend.get_or_insert_with(|| answered.clone()) != &answered => {
                Some(Cause::Moved)
            }
            Ok(_) => None,
            Err(cause) => Some(cause),
        };
        shared.note(begun, true, backend.clone(), failed);
        if failed.is_some() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A connection for requests.
struct Connection(http1::SendRequest<Empty<Bytes>>);

impl Connection {
    async fn open(to: SocketAddr) -> Result<Self, Cause> {
        let stream = TcpStream::connect(to).await.map_err(|error| cause(&error))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| cause_of(&error))?;
        // Its end shows in the request that it breaks.
        tokio::spawn(async { drop(connection.await) });
        Ok(Self(sender))
    }

    /// The name of who answers.
    async fn ask(&mut self) -> Result<String, Cause> {
        let request = Request::get("/").header(header::HOST, "web").body(Empty::new());
        let request = request.map_err(|_| Cause::Other)?;
        let answer = self.0.send_request(request).await.map_err(|error| cause_of(&error))?;
        let body = answer.into_body().collect().await.map_err(|error| cause_of(&error))?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }
}

fn cause_of(error: &hyper::Error) -> Cause {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    match source.map(cause) {
        Some(cause) => cause,
        None if error.is_closed() || error.is_canceled() || error.is_incomplete_message() => {
            Cause::Closed
        }
        None => Cause::Other,
    }
}

fn cause(error: &io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Cause::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Cause::Reset,
        io::ErrorKind::UnexpectedEof => Cause::Closed,
        io::ErrorKind::TimedOut => Cause::TimedOut,
        _ => Cause::Other,
    }
}

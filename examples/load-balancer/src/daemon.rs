//! The program that runs: it opens what it needs, drops what it no longer needs, and then does one thing
//! after the other as it happens.
//!
//! One thread decides everything ([`Balancer`]); checks, clients and readers of metrics are tasks that send
//! it messages. On SIGTERM and SIGINT it leaves the plane running: the next process carries on.

use std::{
    fs::{self, OpenOptions},
    hash::{BuildHasher, RandomState},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use thiserror::Error;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tracing::{error, info, warn};

use crate::{
    api::{
        Reply, Request,
        answer::Done,
        server::{Asked, Server, SocketError},
    },
    balancer::{Balancer, Refused, Start},
    config::{self, Checked, ConfigError, model::Config},
    health::{
        Target,
        probe::{self, Failure},
    },
    metrics::{self, Measured, Wanted},
    namespace::{self, NamespaceError},
    plane::{Plane, PlaneError},
    privileges::{self, PrivilegeError},
    saved::{SaveError, Saved},
    watch::Watch,
};

/// Messages that may wait.
const WAITING: usize = 1024;
/// Checks at the same time, each of which has a socket; others wait.
const CHECKS: usize = 256;
/// Changes of health are saved no more often; commands at once.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// Why it ends, or doesn't begin.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The namespace isn't there.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// Another one runs.
    #[error("another flowgate-lb runs in {}", .0.display())]
    Running(PathBuf),
    /// The directory can't be used.
    #[error("{}: {source}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The load balancer can't be opened.
    #[error("{0}")]
    Open(#[source] PlaneError),
    /// It can't begin.
    #[error(transparent)]
    Start(#[from] Refused),
    /// The admin socket can't be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Privileges can't be dropped.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// Metrics can't be served.
    #[error("metrics on {address}: {source}")]
    Metrics {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The system refuses what every program needs.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Runs until it is told to end. `open` makes the plane, in the configured namespace and with all
/// privileges; the plane is given back at the end, still running.
///
/// # Errors
///
/// It can't begin. Once it runs, it tells what goes wrong and carries on.
pub fn run<P: Plane>(
    path: &Path,
    open: impl FnOnce(&Config) -> Result<P, PlaneError>,
) -> Result<P, DaemonError> {
    let checked = config::read(path)?;
    if let Some(namespace) = &checked.config.namespace {
        namespace::enter(namespace)?;
    }
    let directory = checked.config.directory.clone();
    let _lock = lock(&directory)?;
    let saved = Saved::read(&directory).unwrap_or_else(|error| {
        warn!(%error, "what an earlier process saved can't be read");
        None
    });
    let dispatched = checked.config.dispatcher.is_some();
    let plane = open(&checked.config).map_err(DaemonError::Open)?;
    let source = path.display().to_string();
    let seed = RandomState::new().hash_one(&source);
    let start = Start { source: &source, checked, saved, seed };
    let balancer = Balancer::start(plane, start, Instant::now())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let daemon = Daemon::begin(path, balancer).await?;
        privileges::drop_all_but_needed(dispatched)?;
        Ok(daemon.run().await)
    })
}

/// Makes the directory, and holds it against another process.
fn lock(directory: &Path) -> Result<Flock<fs::File>, DaemonError> {
    let refused = |source| DaemonError::Directory { path: directory.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(refused)?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(directory.join("lock")).map_err(refused)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::Error::EWOULDBLOCK => DaemonError::Running(directory.to_owned()),
        error => refused(error.into()),
    })
}

/// Everything that may happen.
struct Daemon<P> {
    path: PathBuf,
    balancer: Balancer<P>,
    asked: mpsc::Receiver<Asked>,
    results: (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>),
    wanted: (mpsc::Sender<Wanted>, mpsc::Receiver<Wanted>),
    metrics: Option<JoinHandle<()>>,
    watch: Watch,
    hangup: Signal,
    ends: [Signal; 2],
    /// For checks at the same time.
    places: Arc<Semaphore>,
    /// Health has changed since it was saved.
    unsaved: bool,
    saved: Instant,
}

/// The result of a check, with the target and number of its job.
type Outcome = (Target, u64, Result<(), Failure>);

impl<P: Plane> Daemon<P> {
    async fn begin(path: &Path, balancer: Balancer<P>) -> Result<Self, DaemonError> {
        let (requests, asked) = mpsc::channel(WAITING);
        tokio::spawn(Server::bind(&balancer.config().directory)?.serve(requests));
        let mut daemon = Self {
            path: path.to_owned(),
            balancer,
            asked,
            results: mpsc::channel(WAITING),
            wanted: mpsc::channel(WAITING),
            metrics: None,
            watch: Watch::new(path)?,
            hangup: signal(SignalKind::hangup())?,
            ends: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?],
            places: Arc::new(Semaphore::new(CHECKS)),
            unsaved: false,
            saved: Instant::now(),
        };
        daemon.metrics = daemon.serve_metrics(&daemon.balancer.config().clone()).await?;
        daemon.save();
        Ok(daemon)
    }

    async fn run(mut self) -> P {
        info!("running");
        loop {
            self.advance();
            let next = tokio::time::Instant::from_std(self.balancer.next());
            let [terminate, interrupt] = &mut self.ends;
            tokio::select! {
                biased;
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = self.hangup.recv() => { let _ = self.reload().await; }
                Some((target, number, result)) = self.results.1.recv() => {
                    self.unsaved |= self.balancer.checked((&target, number), result, Instant::now());
                }
                Some(asked) = self.asked.recv() => self.answer(asked).await,
                Some(wanted) = self.wanted.1.recv() => self.measure(wanted),
                Ok(()) = self.watch.changed() => self.look().await,
                () = tokio::time::sleep_until(next) => {}
            }
        }
        info!("ending: packets are balanced on as they are, without checks");
        self.save();
        self.balancer.into_plane()
    }

    /// What time has made due.
    fn advance(&mut self) {
        let now = Instant::now();
        self.balancer.tick(now);
        if self.unsaved && now >= self.saved + SAVE_EVERY {
            self.save();
        }
        for job in self.balancer.due(now) {
            let (results, places) = (self.results.0.clone(), Arc::clone(&self.places));
            let tunnels = self.balancer.tunnels(&job);
            tokio::spawn(async move {
                let _place = places.acquire().await;
                let result = match tunnels {
                    Ok(tunnels) => probe::ask(&job.plan, tunnels.as_ref()).await,
                    Err(failure) => Err(failure),
                };
                // Nobody wants to know any more when the program ends.
                let _ = results.send((job.target, job.number, result)).await;
            });
        }
    }

    async fn answer(&mut self, Asked { request, reply }: Asked) {
        let answer = match request {
            Request::Reload => match self.reload().await {
                Ok(changed) => {
                    Reply::Ok(serde_json::to_value(Done { changed }).unwrap_or(Value::Null))
                }
                Err(why) => Reply::Error(why),
            },
            request => {
                let answer = self.balancer.respond(&request, Instant::now());
                if request.is_change() {
                    info!(?request, "asked for by the admin API");
                    self.save();
                }
                answer
            }
        };
        // The client may be gone.
        let _ = reply.send(answer);
    }

    /// Something was written where the file is: it is read anew if it says something else.
    async fn look(&mut self) {
        match config::read(&self.path) {
            Ok(checked) if checked.config == *self.balancer.config() => {
                self.balancer.refuse(None);
            }
            Ok(checked) => drop(self.take_over(Ok(checked)).await),
            Err(error) => drop(self.take_over(Err(error)).await),
        }
    }

    /// Reads the file anew and takes it over; what changed, or why not.
    async fn reload(&mut self) -> Result<Vec<String>, String> {
        let read = config::read(&self.path);
        self.take_over(read).await
    }

    async fn take_over(
        &mut self,
        read: Result<Checked, ConfigError>,
    ) -> Result<Vec<String>, String> {
        let taken = match read {
            Ok(checked) => self.replace(checked).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match &taken {
            Ok(changed) => {
                changed.iter().for_each(|change| info!("reload: {change}"));
                self.save();
            }
            Err(why) => error!("the file isn't taken over, everything runs on as it was: {why}"),
        }
        self.balancer.refuse(taken.as_ref().err().cloned());
        taken
    }

    /// Listens where the new file says before anything else is changed.
    async fn replace(&mut self, checked: Checked) -> Result<Vec<String>, DaemonError> {
        let moved = checked.config.metrics != self.balancer.config().metrics;
        let metrics = if moved { self.serve_metrics(&checked.config).await? } else { None };
        match self.balancer.reload(checked, Instant::now()) {
            Ok(changed) => {
                if moved && let Some(old) = std::mem::replace(&mut self.metrics, metrics) {
                    old.abort();
                }
                Ok(changed)
            }
            Err(refused) => {
                metrics.inspect(JoinHandle::abort);
                Err(refused.into())
            }
        }
    }

    async fn serve_metrics(&self, config: &Config) -> Result<Option<JoinHandle<()>>, DaemonError> {
        let Some(config) = &config.metrics else { return Ok(None) };
        let address = config.listen;
        let listener = metrics::listen(address).await;
        let listener = listener.map_err(|source| DaemonError::Metrics { address, source })?;
        Ok(Some(tokio::spawn(metrics::serve(listener, self.wanted.0.clone()))))
    }

    fn measure(&self, wanted: Wanted) {
        let measured: Result<Measured, PlaneError> = self.balancer.measured(Instant::now());
        match measured.and_then(|measured| Ok(metrics::encode(measured)?)) {
            // The reader may be gone.
            Ok(text) => drop(wanted.send(text)),
            Err(error) => warn!(%error, "metrics can't be read"),
        }
    }

    fn save(&mut self) {
        (self.unsaved, self.saved) = (false, Instant::now());
        let saved: Result<(), SaveError> =
            self.balancer.saved().write(&self.balancer.config().directory);
        if let Err(error) = saved {
            warn!(%error, "what operators changed wouldn't survive a restart");
        }
    }
}

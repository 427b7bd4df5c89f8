//! Namespaces and processes: everything goes when this is dropped.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use flowgate_lab::{Node, Pod, Segment};

use super::{DemoError, PATIENCE};
use crate::api::{Request, answer::Status, client::Client};

/// The service's port, and its backends'.
pub(super) const PORT: u16 = 80;
/// Those that there are from the start; the last one is added later.
pub(super) const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const AT_THE_START: usize = 3;
/// How often it is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(20);

/// The stage.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) client: Pod,
    pub(super) backends: Vec<Backend>,
    balancer: Pod,
    process: Option<Process>,
    files: PathBuf,
    _segment: Segment,
    _node: Node,
}

/// A backend: its host, and the server on it.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) host: Pod,
    server: Option<Process>,
}

/// A process that ends with this.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    fn kill(mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The addresses of the service.
pub(super) fn service() -> [IpAddr; 2] {
    [[198, 18, 0, 100].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100].into()]
}

fn addresses(number: u8) -> [IpAddr; 2] {
    [[198, 18, 0, number].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()].into()]
}

impl Stage {
    /// Moves the calling thread into a namespace of its own, and sets everything up but the balancer's process.
    pub(super) fn set() -> Result<Self, DemoError> {
        let mut node = Node::enter()?;
        let segment = node.add_segment()?;
        let client = node.add_host(&segment, "client", &addresses(1))?;
        let own = [addresses(2), service()].concat();
        let balancer = node.add_host(&segment, "balancer", &own)?;
        let mut backends = Vec::new();
        for (name, number) in NAMES.into_iter().zip(11..) {
            let host = node.add_host(&segment, name, &addresses(number))?;
            service().iter().try_for_each(|&address| host.add_silent_address(address))?;
            let server = Some(spawn(&host, &["demo-backend", name, &PORT.to_string()], None)?);
            backends.push(Backend { host, server });
        }
        let files = files()?;
        let stage = Self {
            client,
            backends,
            balancer,
            process: None,
            files,
            _segment: segment,
            _node: node,
        };
        stage.write_configuration()?;
        Ok(stage)
    }

    /// Starts the balancer, and waits until it answers.
    pub(super) fn start_balancer(&mut self) -> Result<(), DemoError> {
        let config = self.files.join("lb.yaml");
        let log =
            File::options().create(true).append(true).open(self.log()).map_err(io_error("log"))?;
        let arguments = ["run", "--config", &config.display().to_string()];
        let mut process = spawn(&self.balancer, &arguments, Some(log))?;
        let mut ready = false;
        let waited = self.wait("the balancer doesn't answer", || {
            let answer = Client::connect(&self.files)
                .and_then(|mut client| client.ask::<Status>(&Request::Status));
            ready = answer.is_ok();
            ready || process.has_ended()
        });
        self.process = Some(process);
        match ready {
            true => waited,
            false => Err(DemoError::NotReady {
                what: "the balancer",
                said: fs::read_to_string(self.log()).unwrap_or_default(),
            }),
        }
    }

    /// Kills the balancer's process; it has no chance to clean up.
    pub(super) fn kill_balancer(&mut self) -> Result<(), DemoError> {
        self.process
            .take()
            .map_or(Ok(()), Process::kill)
            .map_err(io_error("the balancer's process"))
    }

    /// Kills a backend's server: the kernel resets its connections.
    pub(super) fn kill_backend(&mut self, at: usize) -> Result<(), DemoError> {
        let server = self.backends[at].server.take();
        server.map_or(Ok(()), Process::kill).map_err(io_error("a backend's process"))
    }

    /// A connection to the balancer's admin API.
    pub(super) fn api(&self) -> Result<Client, DemoError> {
        Ok(Client::connect(&self.files)?)
    }

    /// Waits until something has happened.
    pub(super) fn wait(
        &self,
        what: &'static str,
        mut happened: impl FnMut() -> bool,
    ) -> Result<(), DemoError> {
        let begun = Instant::now();
        while !happened() {
            if begun.elapsed() > PATIENCE {
                return Err(DemoError::Waited { what, log: self.log() });
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.files.join("balancer.log")
    }

    fn write_configuration(&self) -> Result<(), DemoError> {
        let backend = |one: &Backend| {
            format!(
                "      - {{ address: {}, mac: \"{}\" }}\n",
                one.host.addresses()[0],
                one.host.mac()
            )
        };
        let backends: String = self.backends[..AT_THE_START].iter().map(backend).collect();
        let [four, six] = service();
        let text = format!(
            "directory: {}\n\
             interfaces:\n  - {{ name: {}, mode: generic }}\n\
             limits: {{ slots: 16384, frontends: 64, backends: 64, services: 16 }}\n\
             services:\n  - name: web\n    addresses: [{four}, \"{six}\"]\n    protocol: tcp\n    port: {PORT}\n    \
             forwarding: layer2\n    check: {{ probe: {{ http: {{}} }}, interval: 200ms, timeout: 200ms, fall: 1 }}\n    \
             backends:\n{backends}",
            self.files.display(),
            self.balancer.interface(),
        );
        fs::write(self.files.join("lb.yaml"), text).map_err(io_error("lb.yaml"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.process.take());
        if let Err(error) = fs::remove_dir_all(&self.files) {
            eprintln!("warning: {} is left: {error}", self.files.display());
        }
    }
}

impl Backend {
    /// Where it is asked directly.
    pub(super) fn address(&self) -> IpAddr {
        self.host.addresses()[0]
    }

    /// The same, with the port.
    pub(super) fn socket(&self) -> SocketAddr {
        (self.address(), PORT).into()
    }
}

/// A directory of this process's own.
fn files() -> Result<PathBuf, DemoError> {
    let path = std::env::temp_dir().join(format!("flowgate-lb-demo-{}", std::process::id()));
    fs::create_dir(&path).map_err(io_error("a directory for the demo"))?;
    Ok(path)
}

/// Starts this very program on a host.
fn spawn(host: &Pod, arguments: &[&str], log: Option<File>) -> Result<Process, DemoError> {
    let program: &Path = Path::new("/proc/self/exe");
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    if let Some(log) = log {
        command.stdout(Stdio::null()).stderr(log);
    }
    let child = host.run(|| command.spawn())?.map_err(io_error("a process"))?;
    Ok(Process(child))
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |source| DemoError::Io { what, source }
}

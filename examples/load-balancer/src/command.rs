//! The commands that speak with a running balancer.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{
    api::{
        Request,
        answer::{Backend, Done, Explained, Flows, Service, Simulated, Stats, Status},
        client::{Client, ClientError},
    },
    capture::{self, CaptureError, Frame, hex, write},
    cli::{self, Add, Command, Format, Named},
    config::model,
    sample,
    show::{Show, rates},
};

/// From one table of `stats --watch` to the next.
const WATCH: Duration = Duration::from_secs(1);
/// Frames of one request: far less than the longest line takes.
const FRAMES: usize = 16;
/// Clears a terminal, and begins at its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Why a command failed.
#[non_exhaustive]
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {source}", .path.display())]
    Capture { path: PathBuf, source: CaptureError },
    #[error("there is no service {0}")]
    NoService(String),
    #[error("packet {0} wasn't captured whole: capture with a larger snapshot length")]
    Cut(usize),
    #[error("the answer can't be written: {0}")]
    Output(#[from] io::Error),
    #[error("the answer can't be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// Does what a command says; those that speak with nobody are done elsewhere.
pub(crate) fn run(command: &Command) -> Result<(), CommandError> {
    match command {
        Command::Status(client) => ask::<Status>(client, &Request::Status),
        Command::Services(client) => ask::<Vec<Service>>(client, &Request::Services),
        Command::Backends { service, client } => {
            ask::<Vec<Backend>>(client, &Request::Backends { service: service.clone() })
        }
        Command::Drain(Named { service, backend, client }) => {
            let (service, backend) = (service.clone(), *backend);
            ask::<Done>(client, &Request::Drain { service, backend })
        }
        Command::Undrain(Named { service, backend, client }) => {
            let (service, backend) = (service.clone(), *backend);
            ask::<Done>(client, &Request::Undrain { service, backend })
        }
        Command::Remove(Named { service, backend, client }) => {
            let (service, backend) = (service.clone(), *backend);
            ask::<Done>(client, &Request::Remove { service, backend })
        }
        Command::Add(added) => ask::<Done>(&added.named.client, &add(added)),
        Command::Stats { watch: false, client } => ask::<Stats>(client, &Request::Stats),
        Command::Stats { watch: true, client } => watch(client),
        Command::Flows(client) => ask::<Vec<Flows>>(client, &Request::Flows),
        Command::Explain { from, service, protocol, quic_connection_id, server_id, client } => {
            let request = Request::Explain {
                client: *from,
                service: *service,
                protocol: (*protocol).into(),
                quic_connection_id: quic_connection_id.clone(),
                server_id: *server_id,
            };
            ask::<Explained>(client, &request)
        }
        Command::Simulate { file, write, client } => simulate(client, file, write.as_deref()),
        Command::Sample(wanted) => sample::run(wanted),
        Command::Reload(client) => ask::<Done>(client, &Request::Reload),
        Command::Run { .. }
        | Command::Check { .. }
        | Command::Decapsulate(_)
        | Command::ServerId(_)
        | Command::Reference
        | Command::Demo(_)
        | Command::DemoBackend { .. } => Ok(()),
    }
}

fn add(added: &Add) -> Request {
    let Add { named, port, weight, mac, mtu, server_id } = added;
    let backend = model::Backend {
        address: named.backend,
        port: *port,
        weight: *weight,
        state: model::State::Active,
        mac: *mac,
        mtu: *mtu,
        server_id: *server_id,
    };
    Request::Add { service: named.service.clone(), backend }
}

fn ask<T: DeserializeOwned + Serialize + Show>(
    client: &cli::Client,
    request: &Request,
) -> Result<(), CommandError> {
    let answer: T = Client::connect(&client.directory)?.ask(request)?;
    print(client.output, &answer)
}

fn print<T: Serialize + Show>(format: Format, answer: &T) -> Result<(), CommandError> {
    let text = match format {
        Format::Json => format!("{}\n", serde_json::to_string(answer)?),
        Format::Table => answer.show(),
    };
    output(&text).map(drop)
}

/// `false`: nobody reads any more, which is no failure: `head` has read enough.
fn output(text: &str) -> Result<bool, CommandError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}

/// Until it is interrupted, or nobody reads any more.
fn watch(arguments: &cli::Client) -> Result<(), CommandError> {
    let mut client = Client::connect(&arguments.directory)?;
    let mut before: Option<Stats> = None;
    loop {
        let now: Stats = client.ask(&Request::Stats)?;
        let text = match arguments.output {
            Format::Json => format!("{}\n", serde_json::to_string(&now)?),
            Format::Table => format!("{CLEAR}{}", rates(before.as_ref(), &now)),
        };
        if !output(&text)? {
            return Ok(());
        }
        before = Some(now);
        thread::sleep(WATCH);
    }
}

fn simulate(arguments: &cli::Client, file: &Path, to: Option<&Path>) -> Result<(), CommandError> {
    let bytes =
        fs::read(file).map_err(|source| CommandError::File { path: file.to_owned(), source })?;
    let frames = capture::frames(&bytes)
        .map_err(|source| CommandError::Capture { path: file.to_owned(), source })?;
    if let Some(cut) = frames.iter().position(|frame| !frame.is_whole()) {
        return Err(CommandError::Cut(cut + 1));
    }
    let mut client = Client::connect(&arguments.directory)?;
    let mut answers: Vec<Simulated> = Vec::new();
    for some in frames.chunks(FRAMES) {
        let frames = some.iter().map(|frame| hex::digits(&frame.bytes)).collect();
        answers.extend(client.ask::<Vec<Simulated>>(&Request::Simulate { frames })?);
    }
    if let Some(path) = to {
        save(path, &answers)
            .map_err(|source| CommandError::File { path: path.to_owned(), source })?;
    }
    print(arguments.output, &answers)
}

/// The packets that go on.
fn save(path: &Path, answers: &[Simulated]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    write::header(&mut file)?;
    for answer in answers.iter().filter(|answer| !answer.frame.is_empty()) {
        let bytes = hex::bytes(&answer.frame).map_err(io::Error::other)?;
        write::frame(&mut file, &Frame::whole(bytes), SystemTime::now())?;
    }
    file.flush()
}

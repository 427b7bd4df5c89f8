//! The socket's server side: who may ask, and lines to requests.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nix::unistd::Uid;
use serde_json::Value;
use thiserror::Error;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};
use tracing::{debug, warn};

use super::{Reply, Request, SOCKET};

/// Longer lines are refused; a thousand frames in hexadecimal digits fit.
const LONGEST_LINE: u64 = 4 << 20;
/// Clients at the same time; others wait.
const CLIENTS: usize = 32;

/// A request with the way back for its answer.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Takes the answer.
    pub reply: oneshot::Sender<Reply<Value>>,
}

/// The socket can't be had.
#[derive(Debug, Error)]
#[error("{}: {source}", .path.display())]
pub struct SocketError {
    path: PathBuf,
    source: io::Error,
}

/// The listening socket. It is removed when this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    listener: UnixListener,
}

impl Server {
    /// Listens in a directory, in which nobody else does: the caller holds its lock, so a socket that lies
    /// there belongs to a dead process.
    ///
    /// # Errors
    ///
    /// The directory refuses.
    pub fn bind(directory: &Path) -> Result<Self, SocketError> {
        let path = directory.join(SOCKET);
        match listen(&path) {
            Ok(listener) => Ok(Self { path, listener }),
            Err(source) => Err(SocketError { path, source }),
        }
    }

    /// Serves until the receiver of `requests` is gone.
    pub async fn serve(self, requests: mpsc::Sender<Asked>) {
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(CLIENTS));
        loop {
            let place = std::sync::Arc::clone(&places).acquire_owned().await;
            let accepted = self.listener.accept().await;
            if requests.is_closed() {
                return;
            }
            match accepted {
                Ok((stream, _)) if may_ask(&stream) => {
                    let requests = requests.clone();
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, &requests).await {
                            debug!(%error, "a client of the admin API is gone");
                        }
                        drop(place);
                    });
                }
                Ok(_) => warn!("a client of the admin API was refused: it is neither root nor us"),
                Err(error) => warn!(%error, "a client of the admin API can't be accepted"),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // If it is gone already, so much the better.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Nobody can connect before the mode is right: the socket gets its name only then.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

/// Root and our own user; the mode says the same, but may be changed.
fn may_ask(stream: &UnixStream) -> bool {
    let peer = stream.peer_cred().map(|peer| peer.uid());
    peer.is_ok_and(|uid| uid == 0 || uid == Uid::effective().as_raw())
}

async fn converse(mut stream: UnixStream, requests: &mpsc::Sender<Asked>) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    while let Some(line) = line(&mut read).await? {
        let reply = match serde_json::from_slice(&line) {
            Ok(request) => ask(request, requests).await,
            Err(error) => Reply::Error(format!("not understood: {error}")),
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        write.write_all(&text).await?;
    }
    Ok(())
}

/// The next line; `None` at the end.
async fn line(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let length = read.take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if length as u64 == LONGEST_LINE => Err(io::ErrorKind::InvalidData.into()),
        Some(_) => Ok(Some(line)),
    }
}

async fn ask(request: Request, requests: &mpsc::Sender<Asked>) -> Reply<Value> {
    let gone = || Reply::Error("flowgate-lb is ending".into());
    let (reply, answer) = oneshot::channel();
    match requests.send(Asked { request, reply }).await {
        Ok(()) => answer.await.unwrap_or_else(|_| gone()),
        Err(_) => gone(),
    }
}

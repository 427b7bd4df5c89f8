//! The socket's client side, for commands and scripts: blocking, one request after the other.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{Reply, Request, SOCKET};

/// Why there is no answer.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens there, or it isn't ours.
    #[error("{}: {source}: does flowgate-lb run, and with this directory?", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to flowgate-lb broke: {0}")]
    Broken(#[source] io::Error),
    /// It answered something else.
    #[error("an answer that isn't understood: {0}: is it another version?")]
    Answer(#[source] serde_json::Error),
    /// It was refused.
    #[error("{0}")]
    Refused(String),
}

/// A connection to a running balancer.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the balancer of a directory.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`].
    pub fn connect(directory: &Path) -> Result<Self, ClientError> {
        let path = directory.join(SOCKET);
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream) }),
            Err(source) => Err(ClientError::Connect { path, source }),
        }
    }

    /// Asks, and waits for the answer, which is one of [`super::answer`]'s.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] with the reason, or the connection's own.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(ClientError::Answer)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(ClientError::Broken)?;
        let mut answer = String::new();
        let length = self.stream.read_line(&mut answer).map_err(ClientError::Broken)?;
        if length == 0 {
            return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&answer).map_err(ClientError::Answer)? {
            Reply::Ok(answer) => Ok(answer),
            Reply::Error(why) => Err(ClientError::Refused(why)),
        }
    }
}

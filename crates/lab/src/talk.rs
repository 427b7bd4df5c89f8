//! A connection that stays open, to see what becomes of it when a policy changes.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{Answer, LabError, probe};

/// A TCP connection to an echo server.
#[derive(Debug)]
pub struct Talk {
    stream: TcpStream,
    destination: SocketAddr,
}

impl Talk {
    /// Opens a connection from the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// [`LabError::Probe`] if it can't be opened within `timeout`.
    pub fn open(destination: SocketAddr, timeout: Duration) -> Result<Self, LabError> {
        let stream = TcpStream::connect_timeout(&destination, timeout)
            .map_err(|source| LabError::Probe { destination, source })?;
        Ok(Self { stream, destination })
    }

    /// The other end.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// Its own end: with the destination it names the connection.
    ///
    /// # Errors
    ///
    /// [`LabError::Probe`] if the socket has none any more.
    pub fn source(&self) -> Result<SocketAddr, LabError> {
        let destination = self.destination;
        self.stream.local_addr().map_err(|source| LabError::Probe { destination, source })
    }

    /// Has a line sent back. What was sent in vain stays in the socket and is sent again by TCP, so
    /// after [`Answer::Silent`] a connection that comes to life again answers with the older line
    /// first: that is [`LabError::WrongEcho`], unless the lines are equal.
    ///
    /// # Errors
    ///
    /// As [`probe::tcp`].
    pub fn line(&mut self, line: &str, timeout: Duration) -> Result<Answer, LabError> {
        let payload = format!("{line}\n");
        let echoed = probe::exchange(&mut self.stream, payload.as_bytes(), timeout);
        probe::concluded(self.destination, echoed)
    }
}

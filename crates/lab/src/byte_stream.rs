//! A TCP connection that is never silent: every byte is to arrive, in its place.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{LabError, Pod, datagrams::destination, probe, running::Running};

/// How long the other end may be silent before the connection counts as cut.
const PATIENCE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(1);
/// Numbers of eight bytes that are written at once.
const BATCH: u64 = 256;

/// A writer and a reader, each on its thread, until [`ByteStream::stop`].
#[derive(Debug)]
pub struct ByteStream {
    destination: SocketAddr,
    writer: Running<u64>,
    reader: Running<u64>,
}

impl ByteStream {
    /// Connects a pod to a port of another one's first address of a family, 4 or 6, and begins to write:
    /// two megabytes a second.
    ///
    /// # Errors
    ///
    /// [`LabError`] if there is no connection.
    pub fn start(from: &Pod, to: &Pod, family: u8, port: u16) -> Result<Self, LabError> {
        let destination = destination(to, family, port)?;
        let failed = |source| LabError::Probe { destination, source };
        let listener = to.run(|| TcpListener::bind(destination))?.map_err(failed)?;
        let stream = from.run(|| TcpStream::connect_timeout(&destination, PATIENCE))?;
        let stream = stream.map_err(failed)?;
        let (accepted, _) = listener.accept().map_err(failed)?;
        let reader = Running::start("reader", move |_| read(accepted))?;
        let writer = Running::start("writer", move |stop| write(stream, stop))?;
        Ok(Self { destination, writer, reader })
    }

    /// Ends writing, and says how many bytes arrived: all that were written.
    ///
    /// # Errors
    ///
    /// [`LabError::Probe`] if the connection was cut, [`LabError::WrongEcho`] if not everything
    /// arrived in its place.
    pub fn stop(self) -> Result<u64, LabError> {
        let destination = self.destination;
        let failed = |source| LabError::Probe { destination, source };
        let written = self.writer.end().map_err(failed)?;
        let read = self.reader.end().map_err(failed)?;
        if read == written { Ok(written) } else { Err(LabError::WrongEcho { destination }) }
    }
}

/// Writes numbers in ascending order; returns how many bytes.
fn write(mut stream: TcpStream, stop: &AtomicBool) -> io::Result<u64> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        let batch: Vec<u8> = (next..next + BATCH).flat_map(u64::to_ne_bytes).collect();
        stream.write_all(&batch)?;
        next += BATCH;
        thread::sleep(TICK);
    }
    Ok(next * 8)
}

/// Reads numbers until the writer ends; returns how many bytes came, up to the first wrong one.
fn read(mut stream: TcpStream) -> io::Result<u64> {
    stream.set_read_timeout(Some(TICK * 100))?;
    let mut last = Instant::now();
    let (mut buffer, mut next) = ([0; 8 * BATCH as usize], 0u64);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(next),
            Ok(length) => {
                last = Instant::now();
                let wanted = |at: u64| (at / 8).to_ne_bytes()[(at % 8) as usize];
                if (next..).zip(&buffer[..length]).any(|(at, byte)| wanted(at) != *byte) {
                    return Ok(next);
                }
                next += length as u64;
            }
            Err(error) if probe::is_silence(&error) && last.elapsed() < PATIENCE => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

//! Many connections that stay open at the same time.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};

use crate::{LabError, Namespace};

/// Connections to an echo server, all from one pod. They close when this is dropped.
///
/// The thread that holds them has a table of open files of its own, so they don't count against the
/// limit under which the server's ends, in the same process, are held.
#[derive(Debug)]
pub struct Crowd {
    questions: Option<Sender<Question>>,
    answers: Receiver<usize>,
    thread: Option<JoinHandle<()>>,
}

/// A line to be sent back on every connection, in so much time for all.
#[derive(Debug)]
struct Question {
    line: String,
    timeout: Duration,
}

impl Crowd {
    /// Opens so many connections from a namespace, one after the other.
    pub(crate) fn open(
        namespace: &Namespace,
        destination: SocketAddr,
        (count, timeout): (usize, Duration),
    ) -> Result<Self, LabError> {
        let (questions, asked) = channel::<Question>();
        let (answer, answers) = channel();
        let (opened, outcome) = channel();
        let namespace = namespace.again()?;
        let live = move || {
            let streams =
                join_apart(&namespace).and_then(|()| connect(destination, count, timeout));
            let Some(mut streams) = report(streams, &opened) else { return };
            for question in asked {
                let echoed = ask(&mut streams, &question);
                if answer.send(echoed).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("crowd".to_owned())
            .spawn(live)
            .map_err(|source| LabError::Thread { source })?;
        let crowd = Self { questions: Some(questions), answers, thread: Some(thread) };
        let gone = || LabError::Thread { source: io::Error::other("the thread has ended") };
        outcome.recv().unwrap_or_else(|_| Err(gone())).map(|()| crowd)
    }

    /// Has a line sent back on every connection; on how many it was, in time.
    #[must_use]
    pub fn line(&self, line: &str, timeout: Duration) -> usize {
        let question = Question { line: format!("{line}\n"), timeout };
        let asked =
            self.questions.as_ref().is_some_and(|questions| questions.send(question).is_ok());
        // A thread that is gone has no connection left.
        if asked { self.answers.recv().unwrap_or(0) } else { 0 }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.questions.take());
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

/// Enters the namespace, with a table of open files that no other thread shares.
fn join_apart(namespace: &Namespace) -> Result<(), LabError> {
    unshare(CloneFlags::CLONE_FILES)
        .map_err(|error| LabError::Unshare { kind: "files", source: error.into() })?;
    namespace.join()
}

fn connect(
    destination: SocketAddr,
    count: usize,
    timeout: Duration,
) -> Result<Vec<TcpStream>, LabError> {
    let open = |_| TcpStream::connect_timeout(&destination, timeout);
    let streams: io::Result<Vec<TcpStream>> = (0..count).map(open).collect();
    streams.map_err(|source| LabError::Probe { destination, source })
}

/// Tells the one who waits how it went; the connections, if it went well.
fn report(
    streams: Result<Vec<TcpStream>, LabError>,
    opened: &Sender<Result<(), LabError>>,
) -> Option<Vec<TcpStream>> {
    let (streams, outcome) = match streams {
        Ok(streams) => (Some(streams), Ok(())),
        Err(error) => (None, Err(error)),
    };
    opened.send(outcome).is_ok().then_some(streams).flatten()
}

/// Everything is sent before anything is waited for.
fn ask(streams: &mut [TcpStream], question: &Question) -> usize {
    let deadline = Instant::now() + question.timeout;
    let line = question.line.as_bytes();
    let sent: Vec<bool> = streams.iter_mut().map(|stream| stream.write_all(line).is_ok()).collect();
    let echoed =
        |(stream, sent): (&mut TcpStream, bool)| sent && comes_back(stream, line, deadline);
    streams.iter_mut().zip(sent).map(echoed).filter(|echoed| *echoed).count()
}

fn comes_back(stream: &mut TcpStream, line: &[u8], deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut answer = vec![0; line.len()];
    let read = stream.set_read_timeout(Some(left)).and_then(|()| stream.read_exact(&mut answer));
    read.is_ok() && answer == line
}

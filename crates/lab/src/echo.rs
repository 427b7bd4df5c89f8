//! Servers that send back what they get: all of a pod's on one thread.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    thread::{self, JoinHandle},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::LabError;

/// As much of a stream as is read at once, and more than a datagram of the lab's holds.
const BUFFER: usize = 2048;

/// Echo servers. They stop, and their connections end, when this is dropped.
#[derive(Debug)]
pub struct EchoServers {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

enum Server {
    Listener(TcpListener),
    Stream(TcpStream),
    Datagrams(UdpSocket),
}

/// What becomes of a server after an event.
enum Next {
    Stay,
    Leave,
    Accepted(TcpStream),
}

impl EchoServers {
    /// Listens on every port of every address, in the calling thread's namespace.
    pub(crate) fn start(
        owner: &str,
        addresses: &[IpAddr],
        tcp: &[u16],
        udp: &[u16],
    ) -> Result<Self, LabError> {
        let mut servers = Vec::new();
        for &address in addresses {
            for &port in tcp {
                servers.push(listen(owner, SocketAddr::new(address, port))?);
            }
            for &port in udp {
                servers.push(bind(owner, SocketAddr::new(address, port))?);
            }
        }
        let thread_error = |source| LabError::Thread { source };
        let (stop, stopped) = UnixStream::pair().map_err(thread_error)?;
        let thread = thread::Builder::new()
            .name("echo".to_owned())
            .spawn(move || serve(servers, &stopped))
            .map_err(thread_error)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for EchoServers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A server that panicked has said so on stderr; there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

fn listen(owner: &str, address: SocketAddr) -> Result<Server, LabError> {
    let open = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Server::Listener(listener))
    };
    let owner = owner.to_owned();
    open().map_err(|source| LabError::Listen { owner, protocol: "TCP", address, source })
}

fn bind(owner: &str, address: SocketAddr) -> Result<Server, LabError> {
    let open = || {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Server::Datagrams(socket))
    };
    let owner = owner.to_owned();
    open().map_err(|source| LabError::Listen { owner, protocol: "UDP", address, source })
}

/// Serves until the other end of `stopped` is closed.
fn serve(mut servers: Vec<Server>, stopped: &UnixStream) {
    loop {
        let ready = wait(&servers, stopped);
        if ready.last() != Some(&false) {
            return;
        }
        let mut accepted = Vec::new();
        let mut ready = ready.into_iter();
        servers.retain_mut(|server| match ready.next() {
            Some(true) => match server.attend() {
                Next::Stay => true,
                Next::Leave => false,
                Next::Accepted(stream) => {
                    accepted.push(Server::Stream(stream));
                    true
                }
            },
            _ => true,
        });
        servers.append(&mut accepted);
    }
}

/// Which servers have something to do, and last, whether it is over. Nothing at all is an error.
fn wait(servers: &[Server], stopped: &UnixStream) -> Vec<bool> {
    let all = servers.iter().map(AsFd::as_fd).chain([stopped.as_fd()]);
    let mut polled: Vec<PollFd<'_>> =
        all.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
    match poll(&mut polled, PollTimeout::NONE) {
        Ok(_) => polled.iter().map(|one| one.any().unwrap_or(true)).collect(),
        Err(nix::Error::EINTR) => vec![false; polled.len()],
        Err(_) => Vec::new(),
    }
}

impl Server {
    fn attend(&mut self) -> Next {
        match self {
            Self::Listener(listener) => accept(listener),
            Self::Stream(stream) => echo_bytes(stream),
            Self::Datagrams(socket) => echo_datagram(socket),
        }
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Listener(listener) => listener.as_fd(),
            Self::Stream(stream) => stream.as_fd(),
            Self::Datagrams(socket) => socket.as_fd(),
        }
    }
}

fn accept(listener: &TcpListener) -> Next {
    match listener.accept() {
        Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => Next::Accepted(stream),
        // The client may be gone again; the next one is not concerned.
        _ => Next::Stay,
    }
}

fn echo_bytes(stream: &mut TcpStream) -> Next {
    let mut buffer = [0; BUFFER];
    match stream.read(&mut buffer) {
        Ok(0) => Next::Leave,
        // Who doesn't read what comes back loses its connection.
        Ok(length) => stream.write_all(&buffer[..length]).map_or(Next::Leave, |()| Next::Stay),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Next::Stay,
        Err(_) => Next::Leave,
    }
}

fn echo_datagram(socket: &UdpSocket) -> Next {
    let mut buffer = [0; BUFFER];
    if let Ok((length, source)) = socket.recv_from(&mut buffer) {
        // An answer that can't be sent is a lost datagram, as on any network.
        let _ = socket.send_to(&buffer[..length], source);
    }
    Next::Stay
}

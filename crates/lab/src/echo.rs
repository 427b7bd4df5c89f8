//! Servers that send back what they get: all of a pod's on one thread.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    thread::{self, JoinHandle},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::LabError;

/// As much of a stream as is read at once, and more than any datagram holds.
const BUFFER: usize = 1 << 16;

/// Echo servers. They stop, and their connections end, when this is dropped.
#[derive(Debug)]
pub struct EchoServers {
    stop: UnixStream,
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
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for EchoServers {
    fn drop(&mut self) {
        // Another table of open files may hold the same end.
        let _ = self.stop.shutdown(Shutdown::Both);
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

/// Serves until the other end of `stopped` is shut down.
fn serve(servers: Vec<Server>, stopped: &UnixStream) {
    // Without it nobody is served, and whoever asks says so.
    let Ok(mut ready) = Ready::new(stopped) else { return };
    servers.into_iter().for_each(|server| ready.add(server));
    let mut events = [EpollEvent::empty(); 256];
    loop {
        match ready.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) if events[..count].iter().any(|event| event.data() == STOPPED) => return,
            Ok(count) => events[..count].iter().for_each(|event| ready.attend(event.data())),
            Err(nix::Error::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// The key of the descriptor that says that it is over.
const STOPPED: u64 = 0;

/// Servers, by the key under which the kernel tells that one has something to do: of many, it names
/// those alone.
struct Ready {
    epoll: Epoll,
    servers: HashMap<u64, Server>,
    next: u64,
}

impl Ready {
    fn new(stopped: &UnixStream) -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(stopped, EpollEvent::new(EpollFlags::EPOLLIN, STOPPED))?;
        Ok(Self { epoll, servers: HashMap::new(), next: STOPPED + 1 })
    }

    fn add(&mut self, server: Server) {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, self.next);
        // One that can't be watched is closed, which its client sees.
        if self.epoll.add(&server, event).is_ok() {
            self.servers.insert(self.next, server);
            self.next += 1;
        }
    }

    fn attend(&mut self, key: u64) {
        let Some(server) = self.servers.get_mut(&key) else { return };
        match server.attend() {
            Next::Stay => {}
            Next::Leave => self.remove(key),
            Next::Accepted(stream) => self.add(Server::Stream(stream)),
        }
    }

    /// Said to the kernel too: another table of open files may hold the same stream.
    fn remove(&mut self, key: u64) {
        if let Some(server) = self.servers.remove(&key) {
            let _ = self.epoll.delete(&server);
        }
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

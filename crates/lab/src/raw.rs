//! Frames as they are, out of a pod's interface: what an unusual or hostile stack could send.
//!
//! Not here: making frames. Nothing is received.
//!
//! The only file of the lab with unsafe code: what packet sockets need has no safe wrapper.
#![allow(unsafe_code)]

use std::{io, io::IoSlice, mem, os::fd::AsRawFd, ptr};

use nix::libc;
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use crate::LabError;

/// What lies in front of each frame (`struct virtio_net_hdr`).
type Header = [u8; 10];
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Frames that one system call sends (`UIO_MAXIOV`).
const AT_ONCE: usize = 1024;

/// A packet socket that sends from one interface, whatever a frame says.
#[derive(Debug)]
pub struct RawSocket {
    socket: Socket,
}

impl RawSocket {
    /// Opens a socket on an interface of the calling thread's namespace.
    pub(crate) fn open(interface: u32) -> Result<Self, LabError> {
        let open = || {
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            announce_headers(&socket)?;
            socket.bind(&address(interface))?;
            Ok(Self { socket })
        };
        open().map_err(|source| LabError::Raw { action: "opened", source })
    }

    /// Sends a frame as one piece of memory.
    ///
    /// # Errors
    ///
    /// [`LabError::Raw`] if the kernel refuses it, e.g. because it is longer than the interface takes.
    pub fn send(&self, frame: &[u8]) -> Result<(), LabError> {
        self.send_headed(header(frame.len()), frame)
    }

    /// Sends a frame of which nothing but the Ethernet header lies in the socket buffer's linear part.
    /// The kernel does so with frames longer than a page alone.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub fn send_scattered(&self, frame: &[u8]) -> Result<(), LabError> {
        self.send_headed(header(ETHERNET), frame)
    }

    fn send_headed(&self, header: Header, frame: &[u8]) -> Result<(), LabError> {
        let parts = [IoSlice::new(&header), IoSlice::new(frame)];
        let sent = self.socket.send_vectored(&parts);
        sent.map(drop).map_err(|source| LabError::Raw { action: "used", source })
    }

    /// Sends frames in as few system calls as possible; one that the interface has no room for is
    /// lost, as on any wire.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub fn send_all(&self, frames: &[Vec<u8>]) -> Result<(), LabError> {
        let batches = frames.chunks(AT_ONCE);
        let sent: io::Result<()> = batches.into_iter().try_for_each(|batch| self.send_batch(batch));
        sent.map_err(|source| LabError::Raw { action: "used", source })
    }

    fn send_batch(&self, frames: &[Vec<u8>]) -> io::Result<()> {
        let headers: Vec<Header> = frames.iter().map(|frame| header(frame.len())).collect();
        let parts: Vec<[libc::iovec; 2]> =
            headers.iter().zip(frames).map(|(header, frame)| [part(header), part(frame)]).collect();
        let mut messages: Vec<libc::mmsghdr> = parts.iter().map(message).collect();
        let mut begun = 0;
        while begun < messages.len() {
            begun += self.send_messages(&mut messages[begun..])?;
        }
        Ok(())
    }

    /// How many were sent, or lost: one at least.
    fn send_messages(&self, messages: &mut [libc::mmsghdr]) -> io::Result<usize> {
        // SAFETY: `messages` is as long as it is said to be; each names two parts, whose memory
        // `send_batch` keeps for the call, and which the kernel only reads.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                messages.len() as libc::c_uint,
                0,
            )
        };
        if sent > 0 {
            return Ok(sent as usize);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOBUFS) => Ok(1),
            Some(libc::EINTR) => Ok(0),
            _ => Err(error),
        }
    }
}

/// Has every frame begin with a [`Header`].
fn announce_headers(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is a whole `c_int`, of the length that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            ptr::from_ref(&on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An interface, without a protocol: so nothing is received.
fn address(interface: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is a socket address, so the storage is large enough and aligned for it,
    // and zeros are a value of it.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as libc::c_ushort;
    link.sll_ifindex = interface as libc::c_int;
    // SAFETY: the storage holds a `sockaddr_ll`, whose family says so.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// Neither checksum nor segmentation is left to do; so many bytes go into the linear part.
fn header(linear: usize) -> Header {
    let [low, high] = (linear as u16).to_ne_bytes();
    [0, 0, low, high, 0, 0, 0, 0, 0, 0]
}

fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn message(parts: &[libc::iovec; 2]) -> libc::mmsghdr {
    // SAFETY: zeros are a value of this plain structure: no name, no parts, no control data.
    let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
    message.msg_hdr.msg_iov = parts.as_ptr().cast_mut();
    message.msg_hdr.msg_iovlen = parts.len();
    message
}

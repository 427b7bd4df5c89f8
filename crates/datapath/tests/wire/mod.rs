//! Frames as a pod sends them, and a real socket that they may arrive at.
#![allow(dead_code, reason = "each test needs a part of it")]

use std::net::{IpAddr, SocketAddr, UdpSocket};

use flowgate_conformance::{checksum::with_checksum, frames::Frame};
use flowgate_lab::Pod;
use flowgate_policy::outcome::{Flow, FlowProtocol};

use crate::rig::{PATIENCE, Rig, SERVER, STRANGER};

pub(crate) const DNS: u16 = 53;

/// A frame as a pod's own stack would address it.
pub(crate) fn from_pod(pod: &Pod, mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&pod.host_mac().0);
    frame[6..12].copy_from_slice(&pod.mac().0);
    with_checksum(frame)
}

pub(crate) fn flow(source: IpAddr, destination: IpAddr, protocol: FlowProtocol) -> Flow {
    Flow { source, destination, protocol }
}

/// A datagram from the stranger to the server.
pub(crate) fn datagram(rig: &Rig, family: usize, (port, payload): (u16, usize)) -> Frame {
    let ends = [STRANGER, SERVER].map(|pod| rig.pods[pod].addresses()[family]);
    let flow = flow(ends[0], ends[1], FlowProtocol::Udp(port));
    Frame { payload, ..Frame::opening(flow, 5000) }
}

/// A socket of the server's that counts what it gets.
pub(crate) struct Inbox {
    pub(crate) socket: UdpSocket,
}

impl Inbox {
    pub(crate) fn open(rig: &Rig, address: SocketAddr) -> Self {
        let bound = rig.pods[SERVER].run(|| UdpSocket::bind(address));
        let socket = bound.expect("runs").expect("binds");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { socket }
    }

    /// The length of the next datagram. What is sent on one way arrives in that order.
    #[track_caller]
    pub(crate) fn next(&self) -> usize {
        self.socket.recv(&mut [0; 1 << 16]).expect("a datagram")
    }
}

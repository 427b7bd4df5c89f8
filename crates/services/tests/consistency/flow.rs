//! A flow, as the walk knows it.

use std::net::{IpAddr, Ipv4Addr};

use flowgate_abi::DropReason;
use flowgate_conformance::frames::{Frame, tcp};
use flowgate_pipeline::lb::Action;
use flowgate_policy::outcome::{Flow, FlowProtocol};
use flowgate_services::{
    ClientFlow,
    host::HostTables,
    model::{BackendId, Frontend, Protocol},
};

/// The service's address.
pub(crate) const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// And its port.
pub(crate) const PORT: u16 = 80;

/// A live flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    pub(crate) flow: ClientFlow,
    pub(crate) backend: BackendId,
    /// When it opened, in milliseconds.
    pub(crate) opened: u64,
    /// Nothing but SYNs has passed.
    pub(crate) opening: bool,
    /// When its last packet passed, in milliseconds.
    pub(crate) seen: u64,
    /// The client has closed its half.
    pub(crate) closing: bool,
}

/// A client's flow, by its number.
pub(crate) fn client(number: u32, protocol: Protocol) -> ClientFlow {
    ClientFlow {
        client: Ipv4Addr::from(0xcb00_7100 + number % 7).into(),
        port: 1024 + (number / 7) as u16,
        frontend: Frontend { address: SERVICE, protocol, port: PORT },
        quic: None,
        server_id: None,
    }
}

/// Sends a packet of a flow through the balancer; the backend that it was sent to, or why it was dropped.
pub(crate) fn send(
    tables: &HostTables,
    flow: &ClientFlow,
    flags: u8,
) -> Result<BackendId, DropReason> {
    let protocol = match flow.frontend.protocol {
        Protocol::Tcp => FlowProtocol::Tcp(PORT),
        _ => FlowProtocol::Udp(PORT),
    };
    let whole = Flow { source: flow.client, destination: flow.frontend.address, protocol };
    let frame = Frame::opening(whole, flow.port).flags(flags).bytes();
    let passed = tables.run(&frame);
    match passed.action {
        Action::Transmit => {
            let outer: [u8; 4] = passed.frame[30..34].try_into().expect("an outer header");
            assert_eq!(passed.frame[34..42], frame[14..22], "the packet is inside");
            Ok(IpAddr::from(outer).into())
        }
        Action::Drop(reason) => Err(reason),
        Action::Pass => panic!("{flow:?} isn't the service's"),
    }
}

/// The flags by which a flow opens, goes on, and ends.
pub(crate) const OPEN: u8 = tcp::SYN;
pub(crate) const GO_ON: u8 = tcp::ACK;
pub(crate) const CLOSE: u8 = tcp::FIN | tcp::ACK;

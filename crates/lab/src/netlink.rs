//! The few netlink requests that a lab is made of, over a blocking socket.
//!
//! A socket stays in the namespace in which it was opened, so requests can be sent from any thread.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
        RouteScope, RouteType,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::{LabError, Mac, Namespace};

/// A netlink socket in one namespace.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// One end of a veth pair.
#[derive(Clone, Debug)]
pub(crate) struct VethEnd<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open() -> Result<Self, LabError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let refused = |source| LabError::Netlink { request: "open a socket".into(), source };
        Ok(Self { socket: open().map_err(refused)?, sequence: 0 })
    }

    /// Makes a veth pair: `here` in this namespace, `there` in `namespace`.
    pub(crate) fn add_veth(
        &mut self,
        here: &VethEnd<'_>,
        there: &VethEnd<'_>,
        namespace: &Namespace,
    ) -> Result<(), LabError> {
        let mut peer = link(there);
        peer.attributes.push(LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()));
        let mut message = link(here);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let request = || format!("add veth pair {} - {}", here.name, there.name);
        self.create(RouteNetlinkMessage::NewLink(message), request)
    }

    /// Makes a bridge: an Ethernet segment for the links that are put into it.
    pub(crate) fn add_bridge(&mut self, name: &str) -> Result<(), LabError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.create(RouteNetlinkMessage::NewLink(message), || format!("add bridge {name}"))
    }

    /// Puts a link into a bridge.
    pub(crate) fn set_bridge(&mut self, index: u32, bridge: u32) -> Result<(), LabError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Controller(bridge));
        self.acknowledged(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("put link {index} into bridge {bridge}")
        })
    }

    /// The interface index of a link.
    pub(crate) fn index_of(&mut self, name: &str) -> Result<u32, LabError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let request = || format!("find link {name}");
        let answer = self.ask(RouteNetlinkMessage::GetLink(message), 0, request)?;
        match answer {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(link.header.index),
            _ => Err(unexpected(request())),
        }
    }

    /// Sets a link up.
    pub(crate) fn set_up(&mut self, index: u32) -> Result<(), LabError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.acknowledged(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("set link {index} up")
        })
    }

    /// Sets the longest packet that a link takes.
    pub(crate) fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), LabError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.acknowledged(RouteNetlinkMessage::SetLink(message), 0, || {
            format!("set MTU of link {index} to {mtu}")
        })
    }

    /// Takes a link away, and the other end with it.
    pub(crate) fn remove_link(&mut self, index: u32) -> Result<(), LabError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.acknowledged(RouteNetlinkMessage::DelLink(message), 0, || {
            format!("remove link {index}")
        })
    }

    /// Gives a link an address of its own, on no network.
    pub(crate) fn add_address(&mut self, index: u32, address: IpAddr) -> Result<(), LabError> {
        self.add_address_on(index, address, longest(address))
    }

    /// Gives a link an address on a network of this prefix length.
    pub(crate) fn add_address_on(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), LabError> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Address(address));
        message.attributes.push(AddressAttribute::Local(address));
        if address.is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let request = || format!("add {address} to link {index}");
        self.create(RouteNetlinkMessage::NewAddress(message), request)
    }

    /// Says who has an address behind a link, so that nobody has to ask.
    pub(crate) fn add_neighbour(
        &mut self,
        index: u32,
        address: IpAddr,
        (mac, state): (Mac, NeighbourState),
    ) -> Result<(), LabError> {
        let mut message = neighbour(index, address);
        message.header.state = state;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let request = || format!("add neighbour {address} at {mac} on link {index}");
        self.acknowledged(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            request,
        )
    }

    /// Who is believed to have an address behind a link; `None`: nobody.
    pub(crate) fn neighbour(
        &mut self,
        index: u32,
        address: IpAddr,
    ) -> Result<Option<Mac>, LabError> {
        let message = neighbour(index, address);
        let request = || format!("find neighbour {address} on link {index}");
        match self.exchange(RouteNetlinkMessage::GetNeighbour(message), 0) {
            Ok(Some(RouteNetlinkMessage::NewNeighbour(found))) => Ok(mac_of(&found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(_) => Err(unexpected(request())),
            Err(source) => Err(LabError::Netlink { request: request(), source }),
        }
    }

    /// Routes one address to a link.
    pub(crate) fn add_host_route(&mut self, index: u32, address: IpAddr) -> Result<(), LabError> {
        let mut message = route(address, index);
        message.header.destination_prefix_length = longest(address);
        message.header.scope = RouteScope::Link;
        message.attributes.push(RouteAttribute::Destination(route_address(address)));
        let request = || format!("add route to {address} by link {index}");
        self.create(RouteNetlinkMessage::NewRoute(message), request)
    }

    /// Routes everything of the gateway's family to it, although no network of the link holds it.
    pub(crate) fn add_default_route(
        &mut self,
        index: u32,
        gateway: IpAddr,
    ) -> Result<(), LabError> {
        let mut message = route(gateway, index);
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Gateway(route_address(gateway)));
        let request = || format!("add default route via {gateway} by link {index}");
        self.create(RouteNetlinkMessage::NewRoute(message), request)
    }

    fn create(
        &mut self,
        message: RouteNetlinkMessage,
        request: impl Fn() -> String,
    ) -> Result<(), LabError> {
        self.acknowledged(message, NLM_F_CREATE | NLM_F_EXCL, request)
    }

    fn acknowledged(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        request: impl Fn() -> String,
    ) -> Result<(), LabError> {
        match self.ask(message, flags | NLM_F_ACK, &request)? {
            None => Ok(()),
            Some(_) => Err(unexpected(request())),
        }
    }

    /// Sends a request; returns the first answer, or nothing if it was an acknowledgement.
    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        request: impl Fn() -> String,
    ) -> Result<Option<RouteNetlinkMessage>, LabError> {
        self.exchange(message, flags)
            .map_err(|source| LabError::Netlink { request: request(), source })
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        self.answer()
    }

    fn answer(&self) -> io::Result<Option<RouteNetlinkMessage>> {
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            return match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
                NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
                _ => Ok(None),
            };
        }
    }
}

fn unexpected(request: String) -> LabError {
    let source = io::Error::new(io::ErrorKind::InvalidData, "an answer that wasn't asked for");
    LabError::Netlink { request, source }
}

fn link(end: &VethEnd<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(end.name.to_owned()));
    message.attributes.push(LinkAttribute::Address(end.mac.0.to_vec()));
    message
}

fn neighbour(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    let destination = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}

/// The Ethernet address of an entry; one that is still being asked for has none.
fn mac_of(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}

fn route(address: IpAddr, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn longest(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

//! The typed model: services, backends, and how packets get from one to the other.
//!
//! Not here: configuration files that say this (the embedder's), and how flows are spread.
//! What contradicts itself can be written down, but never becomes part of a [`crate::Services`].

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

pub use flowgate_abi::Mac;

use crate::TableSize;
pub use crate::{quic::QuicServers, source_ranges::SourceRanges, tcp_option::TcpServers};

/// Names one service; statistics and errors speak of it by this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for ServiceName {
    fn from(name: T) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A transport protocol that is balanced.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP: a SYN opens a flow.
    Tcp,
    /// UDP: nothing says that a flow opens or ends, so it is over when it has been silent.
    Udp,
}

impl Protocol {
    /// The IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// How long a live flow may be silent where nothing else is said: 300 s for TCP, 60 s for UDP.
    #[must_use]
    pub const fn idle(self) -> Duration {
        match self {
            Self::Tcp => Duration::from_secs(300),
            Self::Udp => Duration::from_secs(60),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// Where clients send to: an address, a protocol and a port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port; 0: every port that no other service has.
    pub port: u16,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.address, self.protocol, self.port)
    }
}

/// A service: what clients know, and the backends that serve it.
///
/// ```
/// use flowgate_services::model::{Backend, Service};
///
/// let web = Service::tcp("web", 443)
///     .address("198.51.100.1".parse()?)
///     .address("2001:db8:1::1".parse()?)
///     .backend(Backend::new("198.18.0.11".parse()?))
///     .backend(Backend::new("198.18.0.12".parse()?).weight(2));
/// assert_eq!(web.slots().slots(), 251);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, another one for each service.
    pub name: ServiceName,
    /// The addresses that clients know, of either family. Flows to all of them are spread by one
    /// table.
    pub addresses: Vec<IpAddr>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its port; 0: every port of its addresses that no other service has.
    pub port: u16,
    /// How packets reach the backends.
    pub forwarding: Forwarding,
    /// How many slots its table has. `None`: by the number of backends that it has when it is first
    /// applied ([`TableSize::for_backends`]).
    pub table: Option<TableSize>,
    /// Which clients it takes.
    pub sources: SourceRanges,
    /// Who serves it.
    pub backends: Vec<Backend>,
    /// What else may differ from service to service.
    pub options: ServiceOptions,
}

impl Service {
    /// A service without addresses or backends yet, which are reached by [`Forwarding::Tunnel`].
    #[must_use]
    pub fn new(name: impl Into<ServiceName>, protocol: Protocol, port: u16) -> Self {
        Self {
            name: name.into(),
            addresses: Vec::new(),
            protocol,
            port,
            forwarding: Forwarding::Tunnel,
            table: None,
            sources: SourceRanges::Any,
            backends: Vec::new(),
            options: ServiceOptions::default(),
        }
    }

    /// A service of TCP.
    #[must_use]
    pub fn tcp(name: impl Into<ServiceName>, port: u16) -> Self {
        Self::new(name, Protocol::Tcp, port)
    }

    /// A service of UDP.
    #[must_use]
    pub fn udp(name: impl Into<ServiceName>, port: u16) -> Self {
        Self::new(name, Protocol::Udp, port)
    }

    /// With one address more.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// With one backend more.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backends.push(backend);
        self
    }

    /// With another way to the backends.
    #[must_use]
    pub const fn forwarding(mut self, forwarding: Forwarding) -> Self {
        self.forwarding = forwarding;
        self
    }

    /// With a table of this size, whatever the number of backends.
    #[must_use]
    pub const fn table(mut self, size: TableSize) -> Self {
        self.table = Some(size);
        self
    }

    /// With other clients than all.
    #[must_use]
    pub fn sources(mut self, sources: SourceRanges) -> Self {
        self.sources = sources;
        self
    }

    /// With these options.
    #[must_use]
    pub const fn options(mut self, options: ServiceOptions) -> Self {
        self.options = options;
        self
    }

    /// Where clients send to.
    pub fn frontends(&self) -> impl Iterator<Item = Frontend> + '_ {
        let (protocol, port) = (self.protocol, self.port);
        self.addresses.iter().map(move |&address| Frontend { address, protocol, port })
    }

    /// The size of its table, if it is applied as it is.
    #[must_use]
    pub fn slots(&self) -> TableSize {
        self.table.unwrap_or_else(|| TableSize::for_backends(self.backends.len()))
    }

    /// How long a live flow may be silent.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.options.idle.unwrap_or(self.protocol.idle())
    }

    /// One of its backends.
    #[must_use]
    pub fn find(&self, id: BackendId) -> Option<&Backend> {
        self.backends.iter().find(|backend| backend.id() == id)
    }
}

/// How packets reach the backends of a service. But for [`Forwarding::Snat`], answers go from the backend
/// to the client directly, from the service's address, which the backend has on a loopback or dummy
/// interface.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Forwarding {
    /// In IP: the outer header is of the family of the backend's address, the inner packet of that of
    /// the service's (IP in IP, RFC 2003; IPv6 tunnelling, RFC 2473; IPv6 in IPv4, RFC 4213).
    #[default]
    Tunnel,
    /// In UDP, as generic UDP encapsulation of variant 1: the IP packet follows the UDP header
    /// directly.
    Gue {
        /// The port to which backends listen for it; 6080 is registered.
        port: u16,
    },
    /// As it is, to the backend's Ethernet address ([`NextHop::Mac`]): the backend is in the same
    /// segment.
    Layer2,
    /// As the balancer's own, from a port of one of its sources ([`crate::Balancer::set_sources`]), to the
    /// backend's address and port; the backend answers to that port, and the answer goes to the client as the
    /// service's. So a backend needs nothing but a route to the sources. It doesn't see who the client is.
    /// All addresses of such a service and of its backends are of one family.
    Snat,
}

/// Names one backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId {
    /// Its address.
    pub address: IpAddr,
    /// Its own port; 0: the service's.
    pub port: u16,
}

impl From<IpAddr> for BackendId {
    fn from(address: IpAddr) -> Self {
        Self { address, port: 0 }
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.port) {
            (address, 0) => address.fmt(f),
            (IpAddr::V4(address), port) => write!(f, "{address}:{port}"),
            (IpAddr::V6(address), port) => write!(f, "[{address}]:{port}"),
        }
    }
}

/// Somebody who serves a service.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its address: of either family, whatever the service's.
    pub address: IpAddr,
    /// Its own port, where forwarding can translate; 0: the service's.
    pub port: u16,
    /// Its share of new flows, in proportion to the others' weights; at least 1.
    pub weight: u16,
    /// Which flows it gets.
    pub state: BackendState,
    /// To whom frames for it are sent.
    pub next_hop: NextHop,
    /// The largest IP packet that the path to it carries, outer headers included, in bytes. `None`:
    /// what the balancer takes for all paths.
    pub mtu: Option<u16>,
    /// By which packets name it, if its service has server ids ([`ServiceOptions::quic`], [`ServiceOptions::tcp_option`]).
    pub server_id: Option<u16>,
}

impl Backend {
    /// An active backend of weight 1.
    #[must_use]
    pub const fn new(address: IpAddr) -> Self {
        Self {
            address,
            port: 0,
            weight: 1,
            state: BackendState::Active,
            next_hop: NextHop::Gateway,
            mtu: None,
            server_id: None,
        }
    }

    /// On a port of its own: [`Forwarding::Snat`] alone can translate.
    #[must_use]
    pub const fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// With another weight.
    #[must_use]
    pub const fn weight(mut self, weight: u16) -> Self {
        self.weight = weight;
        self
    }

    /// In another state.
    #[must_use]
    pub const fn state(mut self, state: BackendState) -> Self {
        self.state = state;
        self
    }

    /// Reached by another next hop.
    #[must_use]
    pub const fn next_hop(mut self, next_hop: NextHop) -> Self {
        self.next_hop = next_hop;
        self
    }

    /// Behind a path of another MTU.
    #[must_use]
    pub const fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// With a server id.
    #[must_use]
    pub const fn server_id(mut self, id: u16) -> Self {
        self.server_id = Some(id);
        self
    }

    /// Its name within its service.
    #[must_use]
    pub const fn id(&self) -> BackendId {
        BackendId { address: self.address, port: self.port }
    }
}

/// Which flows a backend gets. Live flows keep their backend in every one of these states; they lose
/// it when it is no longer among the service's backends.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendState {
    /// New flows, by its weight.
    #[default]
    Active,
    /// No new flows: it is about to be taken out.
    Draining,
    /// No new flows: a health check failed.
    Quarantined,
    /// New flows only if no backend is active: it is shutting down and still answers.
    Terminating,
}

/// To whom frames for a backend are sent, out of the interface by which the packet came.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// The balancer's gateway; if it has none, whoever delivered the packet, which is the router, where
    /// clients come from elsewhere.
    #[default]
    Gateway,
    /// This Ethernet address.
    Mac(Mac),
}

/// What else may differ from service to service.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceOptions {
    /// What of a packet chooses its slot.
    pub hash: HashMode,
    /// How long a client may be silent and still have the backend that it had: all of its flows to one address
    /// of the service go there, whatever becomes of the table. `None`: each flow goes by itself. See
    /// [`AFFINITY`]; it implies [`HashMode::Source`].
    pub affinity: Option<Duration>,
    /// Packets are QUIC's, and the connection ids that backends make name them by their [`Backend::server_id`]:
    /// such packets go there from any address of the client's, through any balancer. All others go by the table.
    pub quic: Option<QuicServers>,
    /// An option of TCP names backends by their [`Backend::server_id`]: segments that have it go there from any address
    /// of the client's, through any balancer. All others go by the table, and so does every SYN that opens a flow.
    pub tcp_option: Option<TcpServers>,
    /// What becomes of fragments.
    pub fragments: Fragments,
    /// How long a live flow may be silent: after that its backend may change when the table does. `None`:
    /// what its protocol usually needs ([`Protocol::idle`]).
    pub idle: Option<Duration>,
    /// Flows that live, or open within that time, at the most. It decides how much of a change is begun at
    /// once; `None`: all of it, until it shows that there is no room.
    pub flows: Option<u32>,
}

/// How long clients of Kubernetes' services with affinity (`ClientIP`) may be silent where nothing else is said:
/// three hours.
pub const AFFINITY: Duration = Duration::from_secs(10_800);

/// What of a packet chooses its slot, and with it, in a table that doesn't change, its backend.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashMode {
    /// Source address and port: a connection.
    #[default]
    Connection,
    /// The source address alone: all flows of a client have one backend as long as the table doesn't
    /// change. While it changes, live flows stay where they are and new ones go by the new table.
    Source,
    /// The destination port alone, for a service of all ports: whoever sends to one port shares a backend, as
    /// the parties of a call do whose port a signalling server has chosen. Backends get as many flows as
    /// their ports bring.
    DestinationPort,
}

/// What becomes of fragmented datagrams.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fragments {
    /// All fragments are dropped, with a reason.
    #[default]
    Drop,
    /// The first fragment, which has the ports, leaves them for the later ones; a later fragment of
    /// which no first one has passed is dropped.
    Track,
}

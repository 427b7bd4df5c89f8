//! What can be wrong with services.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use thiserror::Error;

use crate::model::{BackendId, Frontend, QuicServers, ServiceName, TcpServers};

/// Why services can't be balanced as they are.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServiceError {
    /// Two services have one name.
    #[error("two services are called {name}: rename one")]
    DuplicateName {
        /// The name.
        name: ServiceName,
    },
    /// No client can reach it.
    #[error("service {service} has no address: give it one or leave it out")]
    NoAddress {
        /// The service.
        service: ServiceName,
    },
    /// Packets on a wire have no such destination: unspecified, loopback, multicast, broadcast, or IPv4
    /// written as IPv6.
    #[error("service {service}: {address} can't be a service's or backend's address")]
    Address {
        /// The service.
        service: ServiceName,
        /// The address.
        address: IpAddr,
    },
    /// Two services, or one twice, claim the same address, protocol and port.
    #[error("services {first} and {second} both have {frontend}: only one can get its packets")]
    DuplicateFrontend {
        /// What both claim.
        frontend: Frontend,
        /// The service that comes first by name.
        first: ServiceName,
        /// The other one.
        second: ServiceName,
    },
    /// A backend is listed twice.
    #[error("service {service} lists backend {backend} twice: give it the sum of both weights")]
    DuplicateBackend {
        /// The service.
        service: ServiceName,
        /// The backend.
        backend: BackendId,
    },
    /// A backend would get no flow at all.
    #[error(
        "service {service}: backend {backend} has weight 0: drain it instead (BackendState::Draining)"
    )]
    NoWeight {
        /// The service.
        service: ServiceName,
        /// The backend.
        backend: BackendId,
    },
    /// The packet reaches the backend with the port that the client has chosen.
    #[error(
        "service {service}: backend {backend} has a port of its own, which this forwarding can't translate"
    )]
    Port {
        /// The service.
        service: ServiceName,
        /// The backend.
        backend: BackendId,
    },
    /// Full NAT doesn't translate between families.
    #[error(
        "service {service}: {address} is of another family than {other}, and SNAT doesn't translate between them: make it two services"
    )]
    Family {
        /// The service.
        service: ServiceName,
        /// An address of the service or of a backend.
        address: IpAddr,
        /// The first address of the service.
        other: IpAddr,
    },
    /// Layer-2 rewriting needs to know whom to write into the frame.
    #[error(
        "service {service}: backend {backend} needs its Ethernet address (NextHop::Mac) for layer-2 forwarding"
    )]
    NoMac {
        /// The service.
        service: ServiceName,
        /// The backend.
        backend: BackendId,
    },
    /// A path that can't carry what every path must: 576 bytes of IPv4 or 1280 of IPv6 behind the outer
    /// headers (RFC 791, RFC 8200).
    #[error(
        "service {service}: the path to backend {backend} carries {mtu} bytes, at least {least} are needed"
    )]
    Mtu {
        /// The service.
        service: ServiceName,
        /// The backend.
        backend: BackendId,
        /// What it carries.
        mtu: u16,
        /// What it has to carry.
        least: u16,
    },
    /// Nothing listens on UDP port 0.
    #[error("service {service}: GUE needs a port other than 0")]
    NoTunnelPort {
        /// The service.
        service: ServiceName,
    },
    /// All of its flows would have one slot, and one backend.
    #[error(
        "service {service} has one port, {port}, and can't be spread by it: use another HashMode, or port 0"
    )]
    OnePort {
        /// The service.
        service: ServiceName,
        /// Its port.
        port: u16,
    },
    /// Source ranges without a network: allowing none takes nobody, denying none is no range.
    #[error("service {service}: source ranges need a network; leave them out to take every client")]
    NoNetwork {
        /// The service.
        service: ServiceName,
    },
    /// A network's address has bits beyond its prefix: one of both is wrong.
    #[error("service {service}: {network} has bits beyond its prefix: is {meant} meant?")]
    Network {
        /// The service.
        service: ServiceName,
        /// The network.
        network: IpNet,
        /// Without these bits.
        meant: IpNet,
    },
    /// More networks than a service's source ranges can have.
    #[error("service {service} has {networks} networks in its source ranges, {most} is the most")]
    TooManyNetworks {
        /// The service.
        service: ServiceName,
        /// Its networks.
        networks: usize,
        /// The most.
        most: usize,
    },
    /// Ages of pins reach from a moment to a day.
    #[error("service {service}: affinity for {time:?} isn't between 1 s and {most:?}")]
    Affinity {
        /// The service.
        service: ServiceName,
        /// What it says.
        time: Duration,
        /// The longest.
        most: Duration,
    },
    /// A client has one backend, whatever the port.
    #[error("service {service}: affinity and a hash by destination port contradict each other")]
    AffinityByPort {
        /// The service.
        service: ServiceName,
    },
    /// QUIC is over UDP.
    #[error("service {service}: connection ids of QUIC are read of UDP alone")]
    QuicIsUdp {
        /// The service.
        service: ServiceName,
    },
    /// No connection id is made so.
    #[error(
        "service {service}: rotation {} isn't 0 to 6, or {} octets of server id aren't 1 to 4, or {} ids aren't a power of two from 16 to 16384",
        servers.rotation, servers.octets, servers.ids
    )]
    QuicServers {
        /// The service.
        service: ServiceName,
        /// What it says.
        servers: QuicServers,
    },
    /// The option is TCP's.
    #[error("service {service}: an option of TCP names nobody of another protocol's")]
    OptionIsTcp {
        /// The service.
        service: ServiceName,
    },
    /// With full NAT nobody but the balancer that has given a flow its port can send the flow on.
    #[error(
        "service {service}: with full NAT a flow's port says who its backend is, and no option of TCP can"
    )]
    OptionBySnat {
        /// The service.
        service: ServiceName,
    },
    /// No option names servers so.
    #[error(
        "service {service}: option kind {} is taken (35 to 252 are free, but for 69, 172 and 174), or {} ids aren't a power of two from 16 to 16384",
        servers.kind, servers.ids
    )]
    TcpServers {
        /// The service.
        service: ServiceName,
        /// What it says.
        servers: TcpServers,
    },
    /// A server id that packets can't have, or of a service whose packets have none.
    #[error(
        "service {service}: backend {backend} has server id {id}, and the service has {most} ids, from 0 on"
    )]
    ServerId {
        /// The service.
        service: ServiceName,
        /// The backend.
        backend: BackendId,
        /// Its server id.
        id: u16,
        /// How many the service has.
        most: u32,
    },
    /// Two backends have one server id.
    #[error("service {service}: backends {first} and {second} both have server id {id}")]
    DuplicateServerId {
        /// The service.
        service: ServiceName,
        /// The server id.
        id: u16,
        /// Who has it first.
        first: BackendId,
        /// The other one.
        second: BackendId,
    },
    /// Some backends would have no slot.
    #[error(
        "service {service} has {backends} backends in {slots} slots: choose a larger table, or none (100 slots a backend)"
    )]
    TableTooSmall {
        /// The service.
        service: ServiceName,
        /// Its backends.
        backends: usize,
        /// Its slots.
        slots: u32,
    },
    /// More backends than a slot can name.
    #[error("service {service} has {backends} backends, {most} is the most: split it")]
    TooManyBackends {
        /// The service.
        service: ServiceName,
        /// Its backends.
        backends: usize,
        /// The most.
        most: usize,
    },
    /// No service or backend of that name.
    #[error("there is no service {service}")]
    UnknownService {
        /// The name.
        service: ServiceName,
    },
    /// The service has no such backend.
    #[error("service {service} has no backend {backend}")]
    UnknownBackend {
        /// The service.
        service: ServiceName,
        /// The backend.
        backend: BackendId,
    },
}

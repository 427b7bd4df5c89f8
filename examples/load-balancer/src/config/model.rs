//! What may be written in the file.
//!
//! The documentation of these types is the operators' reference: [`super::reference()`] prints it.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use flowgate_services::NatTimeouts;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Bytes, Mac, duration};

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The network namespace in which everything happens, by its path, or by the name that `ip netns` gave
    /// it. Without it: the one in which the program was started. Fixed while it runs.
    pub namespace: Option<PathBuf>,
    /// The interfaces by which packets come.
    pub interfaces: Vec<Interface>,
    /// The directory for the admin socket `api.sock` and for `state.json`, which has what operators changed and
    /// which backends failed their checks. Made if it isn't there. Fixed while it runs.
    #[serde(default = "default::directory")]
    pub directory: PathBuf,
    /// The directory, on a BPF file system, in which programs and flows outlive the process. Fixed while it
    /// runs.
    #[serde(default = "default::pin")]
    pub pin: PathBuf,
    /// A place in libxdp's dispatcher on each of the interfaces, beside programs of others. Without it, the balancer
    /// has its interfaces alone. Fixed while it runs.
    pub dispatcher: Option<Dispatcher>,
    /// Metrics for Prometheus. Without it there are none.
    pub metrics: Option<Metrics>,
    /// A secret number, below 2^64, that is the same for all balancers of the same services: with a service's address it
    /// decides which of its slots a connection has. Who knows it, as everybody knows 0, can aim connections at one
    /// backend. Addresses that are balanced already keep the one with which they were added. Fixed while it runs.
    #[serde(default)]
    pub seed: u64,
    /// For how much there is room. Fixed while it runs.
    #[serde(default)]
    pub limits: Limits,
    /// The network between the balancer and its backends. Fixed while it runs.
    #[serde(default)]
    pub uplink: Uplink,
    /// Where packets to backends come from with `snat` forwarding. Fixed while it runs, but for `sources` and
    /// `timeouts`.
    #[serde(default)]
    pub nat: Nat,
    /// What is balanced.
    #[serde(default)]
    pub services: Vec<Service>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Where in the kernel the program runs.
    #[serde(default)]
    pub mode: Mode,
}

/// Where in the kernel the program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver if it can do that, otherwise behind it. Of a veth write `generic`, unless its other end has GRO
    /// on or a program, too: the kernel loses what is sent back to another.
    #[default]
    Any,
    /// In the driver, or not at all.
    Native,
    /// Behind the driver: slower, but every driver can do that.
    Generic,
}

/// A place in libxdp's dispatcher, which runs several programs on one interface. Who has none on an interface gets a
/// new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dispatcher {
    /// Programs run in the order of this number, libxdp's `run_prio`; those of the same in the order of their names, of
    /// which the balancer's is `flowgate`.
    pub priority: u32,
    /// What the balancer may say of a frame that the programs behind it get, too (`chain_call_actions`); anything else
    /// is the last word.
    pub goes_on: Vec<Action>,
}

impl Default for Dispatcher {
    fn default() -> Self {
        Self { priority: 50, goes_on: vec![Action::Pass] }
    }
}

/// What the balancer says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is no service's, and for the host.
    Pass,
    /// It is dropped; a program behind could still say otherwise.
    Drop,
    /// It goes to a backend, or is the answer to a client; programs behind get it as it would leave, and have to say
    /// the same.
    Transmit,
}

/// Metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Address and port, in the configured network namespace; `/metrics` is served there over HTTP, to
    /// everybody who can reach it.
    pub listen: SocketAddr,
}

/// For how much there is room. Memory is taken once, at the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Services.
    pub services: u32,
    /// Addresses of all services together, and once more for each address.
    pub frontends: u32,
    /// Backends of all services together, each counted for each of its services, and twice if the service has
    /// addresses of both families.
    pub backends: u32,
    /// Slots of all services' tables together.
    pub slots: u32,
    /// Networks of all services' source ranges together. While a service's ranges change, its old ones count as
    /// well.
    pub networks: u32,
    /// Flows that are remembered while backends change.
    pub flows: u32,
    /// Clients that services with `affinity` remember at one time. None is forgotten before its time: who finds no
    /// room is balanced as without affinity, and counted.
    pub clients: u32,
    /// The longest `idle` that a service can have, from 5m to 24h. Silence is told to a 32nd of it, so all services'
    /// flows may be remembered for up to an eighth of it longer than they ask for. State that is left pinned keeps the one
    /// with which it was made.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            services: 1024,
            frontends: 2048,
            backends: 8192,
            slots: 1 << 20,
            networks: 4096,
            flows: 1 << 18,
            clients: 1 << 16,
            idle: flowgate_datapath::lb::BalancerOptions::default().longest_idle,
        }
    }
}

/// The network between the balancer and its backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Uplink {
    /// The Ethernet address of the router to which packets for backends go. Without it: whoever delivered the
    /// packet of the client, which is the router where clients come from elsewhere.
    pub gateway: Option<Mac>,
    /// Outer source addresses of IPv4 tunnels: which of them, depends on the flow, so that a backend spreads
    /// packets over its receive queues. Backends never answer to them.
    #[schemars(with = "String")]
    pub source4: Ipv4Net,
    /// Outer source addresses of IPv6 tunnels.
    #[schemars(with = "String")]
    pub source6: Ipv6Net,
    /// The largest IP packet that paths to backends carry, outer headers included, in bytes, where a backend
    /// says nothing else.
    pub mtu: u16,
}

impl Default for Uplink {
    fn default() -> Self {
        let flowgate_services::Uplink { gateway, source4, source6, mtu } = Default::default();
        Self { gateway: gateway.map(Mac), source4, source6, mtu }
    }
}

/// Where packets to backends come from with `snat` forwarding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Nat {
    /// The addresses, of either family: one for each 31,744 flows. Backends answer to them, so they are routed
    /// to the balancer, or are its interface's own. They may change while it runs: new flows come from those that
    /// are listed, and one that isn't any more is left when the last of its flows is over.
    pub sources: Vec<IpAddr>,
    /// Places for IPv4 sources, those among them that flows still have and that aren't listed any more. Each takes
    /// 5 MiB. Without it: one more than are listed; none if none is.
    pub places4: Option<usize>,
    /// Places for IPv6 sources, likewise.
    pub places6: Option<usize>,
    /// The first port of each. If a source is an address of this host, nothing of the host itself may listen
    /// on these ports or come from them: leave out `net.ipv4.ip_local_port_range`.
    pub first_port: u16,
    /// The last port of each; what is less than a whole group of 64 isn't used.
    pub last_port: u16,
    /// How long flows may be silent. What is changed while it runs holds for those that live as well.
    pub timeouts: Timeouts,
}

impl Default for Nat {
    fn default() -> Self {
        let ports = flowgate_datapath::lb::NatOptions::default().ports;
        Self {
            sources: Vec::new(),
            places4: None,
            places6: None,
            first_port: *ports.start(),
            last_port: *ports.end(),
            timeouts: Timeouts::default(),
        }
    }
}

/// How long flows with `snat` forwarding may be silent, each from 1s to 168h. After that their port is another's, and their
/// packets are those of no flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// A connection or datagrams that nobody has answered.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub opening: Duration,
    /// A connection. Less than 2h4m, and hosts' keep-alives come too late for it (RFC 5382).
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub established: Duration,
    /// Datagrams that were answered.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub answered: Duration,
    /// A connection that both ends have closed, or one has reset. Shorter: more connections a second for each source, and
    /// now and then one that takes a second longer to open.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub closing: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let NatTimeouts { opening, established, answered, closing } = NatTimeouts::default();
        Self { opening, established, answered, closing }
    }
}

/// A service: what clients know, and who serves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name in statistics, metrics and commands: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The addresses that clients know, of either family.
    pub addresses: Vec<IpAddr>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its port; 0: every port of its addresses that no other service has.
    pub port: u16,
    /// How packets reach the backends.
    #[serde(default)]
    pub forwarding: Forwarding,
    /// How many slots its table has: 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 65537 or 131071. Without
    /// it: the first that has a hundred for each backend.
    pub table: Option<u32>,
    /// What of a packet chooses its backend.
    #[serde(default)]
    pub hash: Hash,
    /// How long a live flow may be silent and still keep its backend when backends change, from 1s to `limits.idle`: 5m of
    /// TCP and 1m of UDP without it. A change lasts as long. A connection that has closed is
    /// remembered for 30s at most. With `snat`,
    /// `nat.timeouts` say how long flows live.
    #[serde(default, with = "duration::optional")]
    #[schemars(with = "Option<String>")]
    pub idle: Option<Duration>,
    /// Clients keep their backends, whatever becomes of the table. Without it, each connection goes by itself.
    pub affinity: Option<Affinity>,
    /// Packets are QUIC's, and backends name themselves by the connection ids that they make.
    pub quic: Option<Quic>,
    /// An option of TCP names backends, which clients of the operator's own write.
    pub tcp_option: Option<TcpOption>,
    /// Which clients it takes. Without it: all of them.
    pub sources: Option<Sources>,
    /// What becomes of fragmented datagrams.
    #[serde(default)]
    pub fragments: Fragments,
    /// How its backends are checked. Without it they aren't.
    pub check: Option<Check>,
    /// If all backends fail their checks: new flows are spread over all of them as if none failed. Otherwise
    /// new flows are dropped then.
    #[serde(default)]
    pub fail_open: bool,
    /// Who serves it.
    pub backends: Vec<Backend>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// How packets reach the backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// In IP: backends have a tunnel device, and the service's address.
    #[default]
    Tunnel,
    /// In UDP (generic UDP encapsulation, variant 1).
    Gue(Gue),
    /// As it is, to the backend's Ethernet address: the backend is in the same segment and has the service's
    /// address.
    Layer2,
    /// As the balancer's own, from one of the `nat` sources: backends need nothing but the way back there, and
    /// don't see who the client is. All addresses of the service and of its backends are of one family.
    Snat,
}

/// Generic UDP encapsulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gue {
    /// The port on which backends listen for it.
    #[serde(default = "default::gue_port")]
    pub port: u16,
}

/// What of a packet chooses its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// Source address and port: each connection by itself.
    #[default]
    Connection,
    /// The source address: all connections of a client have one backend as long as backends don't change.
    Source,
    /// The destination port, for a service of all ports (`port: 0`): whoever sends to one port shares a
    /// backend.
    Port,
}

/// Clients keep their backends: all connections of a client to one address of the service go to the backend of
/// the first one, as long as that is listed and works. One that drains keeps its clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Affinity {
    /// How long a client may be silent before it is forgotten, from 1s to 24h, and no less than the service's `idle`; it may
    /// last longer by up to a quarter of that, or of `limits.idle` if that is more.
    #[serde(default = "default::affinity", with = "duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
}

/// Connection ids of QUIC, in plain text by draft-ietf-quic-load-balancers: an octet that begins with the rotation,
/// the server id in network byte order, four octets or more of the server's choice. Packets with such an id go to the
/// backend of that `server_id`, from any address and through any balancer; all others, as without `quic`. For `udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quic {
    /// The first three bits of the ids, 0 to 6.
    #[serde(default)]
    pub rotation: u8,
    /// Octets of a server id, 1 to 4.
    #[serde(default = "default::octets")]
    pub octets: u8,
    /// Server ids are below this power of two, from 16 to 16384. Each takes as much room as a slot. It stays while the
    /// service runs.
    #[serde(default = "default::ids")]
    pub ids: u16,
}

/// Server ids in an option of TCP: kind, length (6), and the id in 32 bits, lowest octet first. Segments that have it go to the
/// backend of that `server_id`, from any address and through any balancer; those that open a connection, and all without it,
/// as without `tcp_option`. No client writes it by itself: backends and clients have to be the operator's own, and run
/// `flowgate-lb server-id`. For `tcp`, and not for `snat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpOption {
    /// The option's kind, one that IANA has assigned to none: 35 to 252, but for 69, 172 and 174. 183 is Katran's.
    #[serde(default = "default::kind")]
    pub kind: u8,
    /// Server ids are below this power of two, from 16 to 16384. Each takes as much room as a slot. It stays while the
    /// service runs.
    #[serde(default = "default::ids")]
    pub ids: u16,
}

/// Which clients a service takes. Packets of all others are dropped, and counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sources {
    /// Those whose addresses are in one of these networks, such as `203.0.113.0/24`.
    Allow(#[schemars(with = "Vec<String>")] Vec<IpNet>),
    /// Those whose addresses are in none of them.
    Deny(#[schemars(with = "Vec<String>")] Vec<IpNet>),
}

/// What becomes of fragmented datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fragments {
    /// They are dropped, and counted.
    #[default]
    Drop,
    /// Those behind the first one go where it went.
    Track,
}

/// Somebody who serves a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// The port on which it listens: with `snat` forwarding, which alone can translate. Without it: the service's.
    pub port: Option<u16>,
    /// Its share of new flows, in proportion to the others'; at least 1.
    #[serde(default = "default::weight")]
    pub weight: u16,
    /// Whether it gets new flows.
    #[serde(default)]
    pub state: State,
    /// Its Ethernet address, if it is in the balancer's own segment: needed for `layer2` forwarding.
    pub mac: Option<Mac>,
    /// The largest IP packet that the path to it carries, outer headers included, in bytes. Without it: that of
    /// `uplink`.
    pub mtu: Option<u16>,
    /// Its server id, for a service with `quic` or `tcp_option`; without it: the table alone brings it packets.
    pub server_id: Option<u16>,
}

/// Whether a backend gets new flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does, if its checks don't fail.
    #[default]
    Active,
    /// It doesn't, and keeps those that it has.
    Drain,
}

/// How backends are checked.
///
/// A backend fails after `fall` failed checks in a row, and works again after `rise` good ones. The first
/// check after a start decides by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// The port that is asked. Without it: the backend's own, or the service's.
    pub port: Option<u16>,
    /// Where it is asked. Without it: `tunnel` if the service's packets go through tunnels and the service has an
    /// address of the backend's family, otherwise `direct`.
    pub path: Option<CheckPath>,
    /// From one check of a backend to the next.
    #[serde(default = "default::interval", with = "duration")]
    #[schemars(with = "String")]
    pub interval: Duration,
    /// For how long an answer is waited for; no longer than the interval.
    #[serde(default = "default::timeout", with = "duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Good checks in a row after which a failed backend works again; at least 1.
    #[serde(default = "default::rise")]
    pub rise: u32,
    /// Failed checks in a row after which a backend fails; at least 1.
    #[serde(default = "default::fall")]
    pub fall: u32,
    /// By how many percent intervals differ by chance, so that balancers don't ask at the same moment; at
    /// most 50.
    #[serde(default = "default::jitter")]
    pub jitter: u8,
}

/// Where a backend is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckPath {
    /// At the service's address, through the backend's tunnel, as a client: a backend that doesn't take packets
    /// out of tunnels, or hasn't the service's address, fails. Packets to backends have to leave by one of
    /// `interfaces`.
    Tunnel,
    /// At its own address.
    Direct,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// A TCP connection can be opened.
    Tcp,
    /// An HTTP request is answered.
    Http(Http),
    /// An HTTP request over TLS is answered.
    Https(Https),
    /// A datagram is answered.
    Udp(Udp),
}

/// An HTTP request: `GET`, version 1.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// What is asked for, from its slash on.
    pub path: String,
    /// The `Host` header. Without it: the backend's address and port.
    pub host: Option<String>,
    /// The least status that is good.
    pub least_status: u16,
    /// The highest status that is good.
    pub most_status: u16,
}

impl Default for Http {
    fn default() -> Self {
        Self { path: "/".into(), host: None, least_status: 200, most_status: 399 }
    }
}

/// An HTTP request over TLS. Either `ca` or `insecure` has to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Https {
    /// What is asked for, from its slash on.
    #[serde(default = "default::path")]
    pub path: String,
    /// The name that the certificate must be for, and the `Host` header.
    pub host: String,
    /// The least status that is good.
    #[serde(default = "default::least_status")]
    pub least_status: u16,
    /// The highest status that is good.
    #[serde(default = "default::most_status")]
    pub most_status: u16,
    /// A file with the certificates (PEM) by one of which the backend's is signed.
    pub ca: Option<PathBuf>,
    /// Any certificate will do: the check then says that somebody answers, not who.
    #[serde(default)]
    pub insecure: bool,
}

/// A datagram and its answer. That a port is closed is an answer, too: the check fails at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Udp {
    /// What is sent: text, or `hex:` and hexadecimal digits.
    pub send: Bytes,
    /// With what the answer must begin. Without it any answer is good.
    pub expect: Option<Bytes>,
}

mod default {
    use std::{path::PathBuf, time::Duration};

    use super::Http;

    pub(super) fn directory() -> PathBuf {
        "/run/flowgate-lb".into()
    }

    pub(super) fn pin() -> PathBuf {
        "/sys/fs/bpf/flowgate-lb".into()
    }

    pub(super) const fn gue_port() -> u16 {
        6080
    }

    pub(super) const fn affinity() -> Duration {
        flowgate_services::model::AFFINITY
    }

    pub(super) const fn octets() -> u8 {
        1
    }

    pub(super) const fn ids() -> u16 {
        256
    }

    /// Katran's.
    pub(super) const fn kind() -> u8 {
        0xb7
    }

    pub(super) const fn weight() -> u16 {
        1
    }

    pub(super) const fn interval() -> Duration {
        Duration::from_secs(2)
    }

    pub(super) const fn timeout() -> Duration {
        Duration::from_secs(1)
    }

    pub(super) const fn rise() -> u32 {
        2
    }

    pub(super) const fn fall() -> u32 {
        3
    }

    pub(super) const fn jitter() -> u8 {
        10
    }

    pub(super) fn path() -> String {
        Http::default().path
    }

    pub(super) fn least_status() -> u16 {
        Http::default().least_status
    }

    pub(super) fn most_status() -> u16 {
        Http::default().most_status
    }
}

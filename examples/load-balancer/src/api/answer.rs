//! What answers say. Fields are added, never renamed or taken away.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::{config::model::Protocol, health::Health};

/// How the balancer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// For how long it runs, in seconds.
    pub uptime: u64,
    /// The configuration.
    pub config: String,
    /// Why the file wasn't taken over when it was last read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<String>,
    /// Interfaces, and how the program runs there.
    pub interfaces: Vec<Attached>,
    /// What operators changed since the file was read, in words.
    pub changes: Vec<String>,
    /// How many services there are.
    pub services: usize,
    /// How many backends, counted once for each service.
    pub backends: usize,
    /// How many of them fail their checks.
    pub down: usize,
    /// Packets that were dropped.
    pub dropped: u64,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// `native` or `generic`.
    pub mode: String,
    /// What became of the place in libxdp's dispatcher that the file asks for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dispatcher: Option<Dispatcher>,
    /// What may be wrong there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub notice: Option<Notice>,
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, mode, dispatcher, .. } = self;
        let place = dispatcher.map_or_else(String::new, |one| format!(", {one}"));
        write!(f, "interface {name} ({mode}{place})")
    }
}

/// Why what is sent back by an interface may not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// The other end of a veth has no program, and takes frames only if its GRO is on, which can't be seen from here.
    VethPeer {
        /// Frames that the interface dropped in sending since it was made.
        dropped: u64,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::VethPeer { dropped } = self;
        write!(
            f,
            "{dropped} frames dropped in sending: the veth's other end has no XDP program, and takes what is sent back \
             only if its GRO is on; or write `mode: generic`"
        )
    }
}

/// What became of a place in libxdp's dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dispatcher {
    /// It was taken.
    Place {
        /// How many programs stood in front then.
        position: usize,
        /// How many there were with the balancer's.
        programs: usize,
    },
    /// The balancer has the interface alone, since the kernel permitted no dispatcher to an earlier process.
    Alone,
    /// The balancer has the interface alone, since the kernel doesn't permit dispatchers (lockdown).
    NotPermitted,
}

impl fmt::Display for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place { position, programs } => {
                write!(f, "behind {position} of {programs} programs in the dispatcher")
            }
            Self::Alone => f.write_str("alone, as the process before"),
            Self::NotPermitted => f.write_str("alone: this kernel permits no dispatcher"),
        }
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its port; 0: all.
    pub port: u16,
    /// `tunnel`, `gue`, `layer2` or `snat`.
    pub forwarding: String,
    /// Slots of its table.
    pub slots: u32,
    /// Its backends.
    pub backends: usize,
    /// Those that get new flows.
    pub active: usize,
}

/// A backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// The service.
    pub service: String,
    /// Its address.
    pub address: IpAddr,
    /// Its weight.
    pub weight: u16,
    /// What packets are told: `active`, `draining`, `quarantined` or `terminating`.
    pub state: String,
    /// What its checks say; `null`: it isn't checked.
    pub health: Option<Health>,
    /// For how many seconds they have said so; `null`: since before the process began.
    pub since: Option<u64>,
    /// What was wrong with the last check.
    pub failure: Option<String>,
}

/// What was counted since the pinned state was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// When it was read, in milliseconds since the process began.
    pub at: u64,
    /// By service and backend.
    pub backends: Vec<Counted>,
    /// Dropped packets by reason; reasons that didn't occur are left out.
    pub drops: Vec<Dropped>,
    /// By source of `snat` forwarding.
    #[serde(default)]
    pub sources: Vec<Source>,
}

/// How many ports of a source of `snat` forwarding flows have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The source.
    pub source: IpAddr,
    /// It isn't listed any more, and is left with the last of its flows.
    #[serde(default)]
    pub retired: bool,
    /// Its ports.
    pub ports: usize,
    /// Those among them that are taken.
    pub taken: usize,
}

/// What was counted of a backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The service.
    pub service: String,
    /// The backend.
    pub backend: IpAddr,
    /// Packets to it.
    pub packets: u64,
    /// Bytes of IP packets to it, without outer headers.
    pub bytes: u64,
    /// Flows that were opened.
    pub opened: u64,
}

/// How often a reason occurred.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The reason.
    pub reason: String,
    /// How many packets.
    pub packets: u64,
}

/// What is remembered of a service's flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// The service.
    pub service: String,
    /// Slots of its table.
    pub slots: u32,
    /// Slots that are on their way to another backend, or wait to be.
    pub moving_slots: u32,
    /// Those among them whose new flows still go to the former one.
    pub pending_slots: u32,
    /// Flows that are remembered because of that.
    pub tracked: u64,
    /// Packets so far whose flows found no room to be remembered: their slots wait.
    #[serde(default)]
    pub refused: u64,
}

/// A change was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What was done, in words; empty: nothing had to be.
    pub changed: Vec<String>,
}

/// Where a flow goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The service.
    pub service: String,
    /// The slot of its table.
    pub slot: u32,
    /// The backend; `null`: nobody.
    pub backend: Option<IpAddr>,
    /// With `snat` forwarding: what the flow's packets become; `null`: it has no port.
    #[serde(default)]
    pub translated: Option<Translated>,
    /// Whom the connection id or server id names that was asked about; left out: none was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub named: Option<Named>,
    /// Why.
    pub why: String,
}

/// Whom a connection id or server id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Named {
    /// A backend.
    Backend {
        /// By this server id.
        server_id: u32,
        /// Its address.
        address: IpAddr,
    },
    /// Nobody: no backend that is listed has the server id.
    Nobody {
        /// The server id.
        server_id: u32,
    },
    /// Nobody: the connection id has no server id, since it is of another rotation, or too short.
    NoServerId,
    /// Nobody: the service doesn't read such ids.
    Unread,
}

impl Named {
    /// Why it is nobody.
    pub(crate) fn why_nobody(self) -> Option<String> {
        match self {
            Self::Backend { .. } => None,
            Self::Nobody { server_id } => Some(format!("no backend has server id {server_id}")),
            Self::NoServerId => {
                Some("the connection id has no server id (another rotation, or too short)".into())
            }
            Self::Unread => Some("the service doesn't read such ids".into()),
        }
    }
}

/// From where to where the packets of a flow go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translated {
    /// A source, and the flow's port.
    pub source: SocketAddr,
    /// The backend's address and port.
    pub destination: SocketAddr,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Simulated {
    /// `forwarded`, `answered`, `passed` or `dropped`.
    pub verdict: String,
    /// Why it is dropped.
    pub reason: Option<String>,
    /// The backend to which it goes.
    pub backend: Option<IpAddr>,
    /// The frame as it goes on, in hexadecimal digits; empty if it doesn't.
    pub frame: String,
}

/// Some of the frames that were sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// In their order; more may be there.
    pub frames: Vec<Sampled>,
    /// How many weren't taken since sampling began, because they weren't asked for in time.
    pub lost: u64,
}

/// A frame that was sampled, as it went on or was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampled {
    /// When, in microseconds since 1970.
    pub time: u64,
    /// The interface by which it came.
    pub interface: String,
    /// What the program said, by the kernel's numbers (`enum xdp_action`); `null`: nothing that it knows.
    pub action: Option<u32>,
    /// `forwarded`, `answered`, `passed`, `dropped` or `redirected`.
    pub verdict: String,
    /// The service that it belongs to, as far as its bytes tell.
    pub service: Option<String>,
    /// The backend to which it goes, likewise.
    pub backend: Option<IpAddr>,
    /// How many bytes it had.
    pub length: usize,
    /// The first of them in hexadecimal digits, with the outer headers that it was given.
    pub frame: String,
}

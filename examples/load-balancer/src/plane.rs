//! What flowgate-lb needs of a load balancer: [`Plane`]. The library's is one, and so is the one that tests
//! bring along to say no at will.

use std::{
    error::Error,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use flowgate_datapath::health::Checks;
use flowgate_services::{ConnectionId, NatTimeouts, Services, model::ServiceName};

use crate::{
    api::answer::{Dispatcher, Named, Notice},
    capture::Frame,
    config::model::{Interface, Protocol},
};

/// What went wrong in a load balancer.
pub type PlaneError = Box<dyn Error + Send + Sync>;

/// A load balancer.
pub trait Plane {
    /// Puts it on an interface, or replaces an earlier process's program there. Returns how it runs.
    ///
    /// # Errors
    ///
    /// The interface isn't there or refuses, which the error says by its name; nothing has changed then.
    fn attach(&mut self, interface: &Interface) -> Result<Running, PlaneError>;

    /// What may be wrong with an interface on which it is, as it is now.
    fn notice(&self, _interface: &str) -> Option<Notice> {
        None
    }

    /// Takes it from an interface.
    ///
    /// # Errors
    ///
    /// The system refuses.
    fn detach(&mut self, interface: &str) -> Result<(), PlaneError>;

    /// What has checks go through tunnels, on the interfaces to which it is attached.
    ///
    /// # Errors
    ///
    /// It can't be had: such checks fail.
    fn checks(&mut self) -> Result<Checks, PlaneError> {
        Err("this load balancer has no tunnels for checks".into())
    }

    /// Replaces what is balanced, and says what happens now and what later; `None`: it is balanced so already.
    ///
    /// # Errors
    ///
    /// There is no room; nothing has changed then.
    fn apply(&mut self, services: &Services, now: Instant) -> Result<Option<String>, PlaneError>;

    /// How long flows with `snat` forwarding may be silent from now on, those that live as well.
    fn set_nat_timeouts(&mut self, timeouts: NatTimeouts);

    /// Has time pass; says when to call again.
    ///
    /// # Errors
    ///
    /// The system refuses.
    fn tick(&mut self, now: Instant) -> Result<Duration, PlaneError>;

    /// What was counted since the pinned state was made.
    ///
    /// # Errors
    ///
    /// The system refuses.
    fn counts(&self) -> Result<Counts, PlaneError>;

    /// Where a flow goes, and why, in words; `None`: it is no service's.
    ///
    /// # Errors
    ///
    /// The system refuses.
    fn explain(&self, flow: &Flow) -> Result<Option<Explained>, PlaneError>;

    /// Samples frames from now on, in the place of an earlier sampling; `None`: no more.
    ///
    /// # Errors
    ///
    /// The system refuses.
    fn sample(&mut self, sampling: Option<Sampling>) -> Result<(), PlaneError>;

    /// Some of the frames that were sampled and not taken yet.
    ///
    /// # Errors
    ///
    /// None are sampled, or the system refuses.
    fn samples(&mut self, most: usize) -> Result<Samples, PlaneError>;

    /// Runs the loaded program on a frame.
    ///
    /// # Errors
    ///
    /// The system refuses, or the frame isn't one.
    fn simulate(&mut self, frame: &[u8]) -> Result<Simulated, PlaneError>;
}

/// How it runs on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// `native` or `generic`.
    pub mode: String,
    /// What became of the place in libxdp's dispatcher that the file asks for.
    pub dispatcher: Option<Dispatcher>,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By service.
    pub services: Vec<ServiceCounts>,
    /// Dropped packets by reason.
    pub drops: Vec<(String, u64)>,
    /// By source of `snat` forwarding.
    pub sources: Vec<SourceCounts>,
    /// Packets whose clients found no room to be remembered by services with affinity.
    pub unpinned: u64,
    /// Packets to services with `quic`, by what their connection ids say.
    pub quic: [(&'static str, u64); 3],
    /// Packets to services with `tcp_option` that open nothing, by what their options say.
    pub tcp: [(&'static str, u64); 3],
}

/// How many ports of a source flows have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceCounts {
    /// The source.
    pub address: IpAddr,
    /// It isn't listed any more, and is left with the last of its flows.
    pub retired: bool,
    /// Its ports.
    pub ports: usize,
    /// Those among them that are taken.
    pub taken: usize,
}

/// What was counted of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCounts {
    /// The service.
    pub name: ServiceName,
    /// Slots of its table.
    pub slots: u32,
    /// Slots that are on their way to another backend, or wait to be.
    pub moving_slots: u32,
    /// Those among them whose new flows still go to the former one.
    pub pending_slots: u32,
    /// Flows that are remembered.
    pub tracked: u64,
    /// Packets so far whose flows found no room to be remembered.
    pub refused: u64,
    /// Clients that are remembered, by affinity.
    pub pinned: u64,
    /// By backend.
    pub backends: Vec<BackendCounts>,
}

/// What was counted of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendCounts {
    /// The backend.
    pub address: IpAddr,
    /// Packets to it.
    pub packets: u64,
    /// Bytes of IP packets to it, without outer headers.
    pub bytes: u64,
    /// Flows that were opened.
    pub opened: u64,
    /// Flows that were remembered.
    pub remembered: u64,
}

/// A flow: who sends to which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client.
    pub client: SocketAddr,
    /// The service's address and port.
    pub service: SocketAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The connection id of its packets, if it is of QUIC and that is known.
    pub quic: Option<ConnectionId>,
    /// The server id in its packets' option of TCP, if they have one and that is known.
    pub server_id: Option<u32>,
}

/// Where a flow goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The service.
    pub service: ServiceName,
    /// The slot of its table.
    pub slot: u32,
    /// The backend; `None`: nobody.
    pub backend: Option<IpAddr>,
    /// With `snat` forwarding: from where to where its packets go.
    pub translated: Option<(SocketAddr, SocketAddr)>,
    /// Whom the id names that was asked about.
    pub named: Option<Named>,
    /// Why.
    pub why: String,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulated {
    /// `forwarded`, `answered`, `passed` or `dropped`.
    pub verdict: String,
    /// Why it is dropped.
    pub reason: Option<String>,
    /// The backend to which it goes.
    pub backend: Option<IpAddr>,
    /// The frame as it goes on; empty if it doesn't.
    pub frame: Vec<u8>,
}

/// Which frames are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// One frame of so many.
    pub every: u32,
    /// Bytes that are kept of a frame.
    pub snaplen: usize,
}

/// Frames that were sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// In their order.
    pub frames: Vec<Sampled>,
    /// How many weren't taken since sampling began, because they weren't read in time.
    pub lost: u64,
}

/// A frame that was sampled, as it went on or was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// When.
    pub time: SystemTime,
    /// The interface by which it came.
    pub interface: String,
    /// What the program said, by the kernel's numbers; `None`: nothing that the kernel knows.
    pub action: Option<u32>,
    /// `forwarded`, `answered`, `passed`, `dropped` or `redirected`.
    pub verdict: String,
    /// The service that it belongs to, if its bytes tell.
    pub service: Option<ServiceName>,
    /// The backend to which it goes, likewise.
    pub backend: Option<IpAddr>,
    /// Its bytes.
    pub frame: Frame,
}

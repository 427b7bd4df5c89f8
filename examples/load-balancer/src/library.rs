//! The library's load balancer as a [`Plane`].
//!
//! Not here: what a plane is asked for and when ([`crate::balancer`]), and what the answers look like to
//! operators ([`crate::respond`]).
//!
//! Invariant: a balancer that was adopted or began to balance is left running when this is dropped, also
//! after an error: the next process carries on. Tested by `tests/netns_demo.rs`.

mod frame;
mod owner;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use flowgate_abi::{
    DropReason,
    event::Tally,
    lb::{Counter, maps},
    maps::MapSpec,
};
use flowgate_datapath::{
    OpenError,
    health::{Checks, Tunnels},
    lb::{
        self, AttachedXdp, BalancerState, Beside, Fate, LoadBalancer, Sampled, Samples, Sampling,
        XdpAttach, XdpError, XdpMode,
    },
};
use flowgate_services::{
    Applied, ClientFlow, NatTimeouts, Services,
    life::Stage,
    model::{self, Frontend},
};
use thiserror::Error;
use tracing::{info, warn};

use crate::{
    api::answer::{Dispatcher, Named, Notice},
    capture::Frame,
    config::model::{Config, Interface, Mode, Protocol},
    plane::{
        self, BackendCounts, Counts, Explained, Flow, Plane, PlaneError, Running, ServiceCounts,
        Simulated, SourceCounts,
    },
};

/// Bytes with all headers of a frame: Ethernet, IPv6 and UDP outside, IPv6 and ports inside.
const HEADERS: usize = 128;

/// What connection ids of QUIC say, and who counts it.
const QUIC: [(&str, Counter); 3] = [
    ("named", Counter::QuicNamed),
    ("opening", Counter::QuicOpening),
    ("unknown", Counter::QuicUnknown),
];

/// What options of TCP say, and who counts it.
const TCP: [(&str, Counter); 3] = [
    ("named", Counter::TcpNamed),
    ("unnamed", Counter::TcpUnnamed),
    ("unknown", Counter::TcpUnknown),
];

/// The kernel's load balancer.
pub(crate) struct Library {
    balancer: Option<LoadBalancer>,
    /// Made for the first check through a tunnel: the host's own packets pay for its programs.
    tunnels: Option<Tunnels>,
    /// The interfaces, and how they were attached.
    modes: BTreeMap<String, Mode>,
    /// The names of those that were attached, by interface index.
    names: BTreeMap<u32, String>,
    /// While frames are sampled, and how many bytes of each are asked for.
    samples: Option<(Samples, usize)>,
    /// There is something that has to go on without this process.
    balances: bool,
    /// The file asks for a place in dispatchers.
    dispatched: bool,
}

/// Opens the load balancer, or adopts what an earlier process left pinned.
///
/// # Errors
///
/// The kernel lacks something, or what is pinned is another's.
pub(crate) fn open(config: &Config) -> Result<Library, PlaneError> {
    let builder = LoadBalancer::builder().options(config.options()).pin(&config.pin);
    let builder = match &config.dispatcher {
        Some(place) => builder.dispatched(place.typed()),
        None => builder,
    };
    let balancer = builder.open().map_err(no_memory)?;
    info!("opened: {}", balancer.report());
    let balances = matches!(balancer.report().state, BalancerState::Adopted { .. });
    Ok(Library {
        balancer: Some(balancer),
        tunnels: None,
        modes: BTreeMap::new(),
        names: BTreeMap::new(),
        samples: None,
        balances,
        dispatched: config.dispatcher.is_some(),
    })
}

impl Library {
    fn balancer(&mut self) -> &mut LoadBalancer {
        self.balancer.as_mut().expect("it is there until this is dropped")
    }

    fn shared(&self) -> &LoadBalancer {
        self.balancer.as_ref().expect("it is there until this is dropped")
    }

    fn sampled(&self, mut sampled: Sampled, snaplen: usize) -> plane::Sampled {
        let owner = owner::of(sampled.action, &sampled.bytes, self.shared().services());
        sampled.bytes.truncate(snaplen);
        let name = self.names.get(&sampled.ifindex);
        plane::Sampled {
            time: sampled.time,
            interface: name.cloned().unwrap_or_else(|| sampled.ifindex.to_string()),
            action: sampled.action.map(|action| action as u32),
            verdict: owner.verdict.to_owned(),
            service: owner.service,
            backend: owner.backend,
            frame: Frame { bytes: sampled.bytes, length: sampled.length },
        }
    }

    /// No check goes through a tunnel by this interface any more.
    fn leave(&mut self, interface: &str) {
        if let Some(tunnels) = &mut self.tunnels {
            tunnels.detach(interface);
        }
    }

    /// Attaches, or takes over what an earlier process left; anew, if that runs in a mode that isn't wanted any
    /// more.
    fn attach_first(&mut self, interface: &Interface) -> Result<AttachedXdp, XdpError> {
        let attached = self.balancer().attach(&interface.name, xdp(interface.mode))?;
        let before = match (attached.mode, interface.mode) {
            (XdpMode::Native, Mode::Generic) => Mode::Native,
            (XdpMode::Generic, Mode::Native) => Mode::Generic,
            _ => return Ok(attached),
        };
        // A dispatcher's mode is that of all who are in it.
        if matches!(attached.beside, Beside::Dispatched { .. }) {
            return Ok(attached);
        }
        info!(interface = interface.name, "attached anew: it was left running as {before:?}");
        self.replace(interface, before)
    }

    /// Attaches anew in another mode, or as it was before.
    fn replace(&mut self, interface: &Interface, before: Mode) -> Result<AttachedXdp, XdpError> {
        self.balancer().detach(&interface.name)?;
        let attached = self.balancer().attach(&interface.name, xdp(interface.mode));
        if attached.is_err()
            && let Err(error) = self.balancer().attach(&interface.name, xdp(before))
        {
            self.modes.remove(&interface.name);
            warn!(interface = interface.name, %error, "can't be attached as it was");
        }
        attached
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let Some(balancer) = self.balancer.take() else { return };
        if self.balances
            && let Err(error) = balancer.persist()
        {
            warn!(%error, "what runs can't be left running");
        }
    }
}

impl Plane for Library {
    fn attach(&mut self, interface: &Interface) -> Result<Running, PlaneError> {
        let before = self.modes.get(&interface.name).copied();
        if let Some(tunnels) = &mut self.tunnels {
            tunnels.attach(&interface.name)?;
        }
        let attached = match before {
            Some(before) => self.replace(interface, before),
            None => self.attach_first(interface),
        };
        if attached.is_err() && !self.modes.contains_key(&interface.name) {
            self.leave(&interface.name);
        }
        let attached = attached.map_err(in_terms_of_the_file)?;
        self.modes.insert(interface.name.clone(), interface.mode);
        self.names.insert(attached.ifindex, interface.name.clone());
        let dispatcher = self.dispatched.then(|| dispatcher(attached.beside));
        Ok(Running { mode: attached.mode.to_string(), dispatcher })
    }

    fn notice(&self, interface: &str) -> Option<Notice> {
        // An interface that is gone is told of elsewhere.
        match self.shared().notice(interface).ok()?? {
            lb::Notice::VethPeer { dropped } => Some(Notice::VethPeer { dropped }),
            _ => None,
        }
    }

    fn detach(&mut self, interface: &str) -> Result<(), PlaneError> {
        self.modes.remove(interface);
        self.names.retain(|_, name| name != interface);
        self.leave(interface);
        self.balancer().detach(interface)?;
        Ok(())
    }

    fn checks(&mut self) -> Result<Checks, PlaneError> {
        if let Some(tunnels) = &self.tunnels {
            return Ok(tunnels.checks());
        }
        let mut tunnels = Tunnels::open()?;
        self.modes.keys().try_for_each(|interface| tunnels.attach(interface))?;
        Ok(self.tunnels.insert(tunnels).checks())
    }

    fn apply(&mut self, services: &Services, now: Instant) -> Result<Option<String>, PlaneError> {
        let applied = self.balancer().apply(services, now);
        self.balances |= applied.is_ok();
        Ok(said(&applied.map_err(as_it_was_made)?))
    }

    fn set_nat_timeouts(&mut self, timeouts: NatTimeouts) {
        self.balancer().set_nat_timeouts(timeouts);
    }

    fn tick(&mut self, now: Instant) -> Result<Duration, PlaneError> {
        Ok(self.balancer().tick(now)?.next)
    }

    fn counts(&self) -> Result<Counts, PlaneError> {
        let stats = self.shared().stats()?;
        let unpinned = stats.get(Counter::PinsRefused);
        let counted = |(what, counter)| (what, stats.get(counter));
        let (quic, tcp) = (QUIC.map(counted), TCP.map(counted));
        let drops = stats.drops.iter();
        Ok(Counts {
            services: stats.services.into_iter().map(service_counts).collect(),
            drops: drops.map(|(reason, tally)| (reason.to_string(), tally.packets)).collect(),
            sources: stats.sources.into_iter().map(source_counts).collect(),
            unpinned,
            quic,
            tcp,
        })
    }

    fn explain(&self, flow: &Flow) -> Result<Option<Explained>, PlaneError> {
        let frontend = Frontend {
            address: flow.service.ip(),
            protocol: protocol(flow.protocol),
            port: flow.service.port(),
        };
        let (client, port) = (flow.client.ip(), flow.client.port());
        let Flow { quic, server_id, .. } = *flow;
        let flow = ClientFlow { client, port, frontend, quic, server_id };
        Ok(self.shared().explain(&flow).map(explained))
    }

    fn sample(&mut self, sampling: Option<plane::Sampling>) -> Result<(), PlaneError> {
        self.samples = match sampling {
            Some(plane::Sampling { every, snaplen }) => {
                // Whose a frame is stands in its headers, however few bytes are asked for.
                let bytes = if snaplen == 0 { 0 } else { snaplen.max(HEADERS) };
                let samples = self.balancer().sample(&Sampling { one_in: every, bytes })?;
                Some((samples, snaplen))
            }
            None => {
                self.balancer().stop_sampling()?;
                None
            }
        };
        Ok(())
    }

    fn samples(&mut self, most: usize) -> Result<plane::Samples, PlaneError> {
        let Some((samples, snaplen)) = &mut self.samples else {
            return Err("no frames are sampled".into());
        };
        let snaplen = *snaplen;
        let taken: Vec<_> = std::iter::from_fn(|| samples.try_next()).take(most).collect();
        let lost = samples.lost()?;
        let frames = taken.into_iter().map(|one| self.sampled(one, snaplen)).collect();
        Ok(plane::Samples { frames, lost })
    }

    /// The program runs with all its effects: what it counts counts, and a flow that it would remember is
    /// remembered.
    fn simulate(&mut self, frame: &[u8]) -> Result<Simulated, PlaneError> {
        let before = self.shared().drops()?;
        let balanced = self.balancer().replay(frame)?;
        let services = self.shared().services();
        let sent = match balanced.fate {
            Fate::Transmit => Some(frame::Sent::of(frame, &balanced.frame, services)),
            _ => None,
        };
        let reason = match balanced.fate {
            Fate::Drop(Some(reason)) => Some(reason.to_string()),
            Fate::Drop(None) => risen(&before, &self.shared().drops()?),
            _ => None,
        };
        Ok(Simulated {
            verdict: verdict(balanced.fate, sent).to_owned(),
            reason,
            backend: sent.and_then(frame::Sent::backend),
            frame: if sent.is_some() { balanced.frame } else { Vec::new() },
        })
    }
}

/// Which field of the file takes the memory that there isn't.
fn no_memory(error: OpenError) -> PlaneError {
    let OpenError::Memory { table, bytes } = error else { return error.into() };
    match FIELDS.iter().find(|(spec, _)| spec.name == table) {
        Some(&(_, field)) => NoMemory { field, mebibytes: bytes.div_ceil(1 << 20) }.into(),
        None => error.into(),
    }
}

/// The fields by which large tables have their sizes.
const FIELDS: [(&MapSpec, &str); 10] = [
    (&maps::FRONTENDS, "limits.frontends"),
    (&maps::DISPLACEMENTS, "limits.frontends"),
    (&maps::SLOTS, "limits.slots"),
    (&maps::BACKENDS, "limits.backends"),
    (&maps::LOADS, "limits.backends"),
    (&maps::SOURCES, "limits.networks"),
    (&maps::TRACKED, "limits.flows"),
    (&maps::PINS, "limits.clients"),
    (&maps::NAT_PORTS, "nat.places4` and `nat.places6"),
    (&maps::NAT_FLOWS, "nat.places4` and `nat.places6"),
];

/// There is no memory for what a field says.
#[derive(Debug, Error)]
#[error("`{field}`: no memory for so many, of which one table alone takes {mebibytes} MiB")]
struct NoMemory {
    field: &'static str,
    mebibytes: u64,
}

/// What somebody has to write who gets an error about an interface.
fn in_terms_of_the_file(error: XdpError) -> PlaneError {
    match error {
        XdpError::Dispatcher { interface, programs, id } => {
            HasDispatcher { interface, programs: programs.join(", "), id }.into()
        }
        error => error.into(),
    }
}

/// The file is checked by its own `limits.idle`: one that is too short is that of tables which were there already.
fn as_it_was_made(error: lb::ApplyError) -> PlaneError {
    match error {
        lb::ApplyError::Idle { service, idle, longest } => {
            TooLong { service, idle, longest }.into()
        }
        error => error.into(),
    }
}

/// State that an earlier process left pinned was made for shorter silence.
#[derive(Debug, Error)]
#[error(
    "service {service}: its `idle` is {idle:?}, and the state that is pinned was made with a `limits.idle` of {longest:?}: write no more, or end the process and remove `pin` once its flows may end"
)]
struct TooLong {
    service: model::ServiceName,
    idle: Duration,
    longest: Duration,
}

/// An interface has libxdp's dispatcher, and the file asks for no place in it.
#[derive(Debug, Error)]
#[error(
    "interface {interface} has libxdp's dispatcher (id {id}), which runs [{programs}]: write `dispatcher: {{}}` to run beside them, or unload it (xdp-loader unload {interface} --all)"
)]
struct HasDispatcher {
    interface: String,
    programs: String,
    id: u32,
}

/// What became of the place that was asked for.
const fn dispatcher(beside: Beside) -> Dispatcher {
    match beside {
        Beside::Dispatched { position, programs } => Dispatcher::Place { position, programs },
        Beside::Nobody => Dispatcher::Alone,
        Beside::NotPermitted => Dispatcher::NotPermitted,
    }
}

const fn xdp(mode: Mode) -> XdpAttach {
    match mode {
        Mode::Any => XdpAttach::Any,
        Mode::Native => XdpAttach::Native,
        Mode::Generic => XdpAttach::Generic,
    }
}

const fn protocol(protocol: Protocol) -> model::Protocol {
    match protocol {
        Protocol::Tcp => model::Protocol::Tcp,
        Protocol::Udp => model::Protocol::Udp,
    }
}

fn said(applied: &Applied) -> Option<String> {
    let Applied { added, changed, removed, slots, .. } = applied;
    let text = format!(
        "services: {added} added, {changed} changed, {removed} removed; slots: {} moved at once, {} on their \
         way, {} wait for room",
        slots.at_once, slots.moving, slots.staged
    );
    (*applied != Applied::default()).then_some(text)
}

fn service_counts(stats: flowgate_services::ServiceStats) -> ServiceCounts {
    let [announced, moving, settling] = stats.moving;
    let pending = announced + stats.staged;
    let backends = stats.backends.iter();
    ServiceCounts {
        name: stats.name.clone(),
        slots: stats.slots as u32,
        moving_slots: (pending + moving + settling) as u32,
        pending_slots: pending as u32,
        tracked: stats.tracked as u64,
        refused: stats.refused,
        pinned: stats.pinned as u64,
        backends: backends
            .map(|(id, traffic)| BackendCounts {
                address: id.address,
                packets: traffic.packets,
                bytes: traffic.bytes,
                opened: traffic.opened,
                remembered: traffic.tracked,
            })
            .collect(),
    }
}

const fn source_counts(stats: flowgate_services::SourceStats) -> SourceCounts {
    let flowgate_services::SourceStats { address, retired, ports, taken } = stats;
    SourceCounts { address, retired, ports, taken }
}

fn explained(explained: flowgate_services::Explained) -> Explained {
    let why = match (explained.entry, explained.stage) {
        _ if explained.refused => "the service's source ranges refuse the client",
        _ if explained.translated.is_some() => "the flow has a port, and keeps it and its backend",
        _ if explained.named.backend().is_some() => "the packet's id names the backend",
        _ if explained.pin.is_some() => "the client's backend, by affinity",
        (Some(_), _) => "the flow is remembered: its slot has changed since it was opened",
        (None, Stage::Stable) => "the slot's backend, for every flow of it",
        (None, Stage::Announce) => "the slot's backend, until the announced change",
        (None, Stage::Move) => {
            "the slot's backend of before the change, unless this packet opens the flow"
        }
        (None, Stage::Settle) => "the slot's new backend: the flow isn't remembered",
    };
    Explained {
        backend: explained.backend().map(|id| id.address),
        translated: explained.translated.map(|one| (one.source, one.destination)),
        named: named(explained.named),
        service: explained.service,
        slot: explained.slot,
        why: why.to_owned(),
    }
}

const fn named(named: flowgate_services::Named) -> Option<Named> {
    use flowgate_services::Named as Found;
    match named {
        Found::Backend { server_id, backend } => {
            Some(Named::Backend { server_id, address: backend.address })
        }
        Found::Nobody { server_id } => Some(Named::Nobody { server_id }),
        Found::NoServerId => Some(Named::NoServerId),
        Found::Unread => Some(Named::Unread),
        _ => None,
    }
}

const fn verdict(fate: Fate, sent: Option<frame::Sent>) -> &'static str {
    match (fate, sent) {
        (Fate::Pass, _) => "passed",
        (Fate::Drop(_), _) => "dropped",
        (Fate::Transmit, Some(frame::Sent::Answer)) => "answered",
        (Fate::Transmit, _) => "forwarded",
    }
}

/// The one reason that was counted meanwhile; `None` if others' packets were dropped as well.
fn risen(before: &Drops, after: &Drops) -> Option<String> {
    let mut risen = after.iter().filter(|(reason, tally)| before.get(reason) != Some(tally));
    let (reason, _) = risen.next()?;
    risen.next().is_none().then(|| reason.to_string())
}

/// What was dropped, by reason.
type Drops = BTreeMap<DropReason, Tally>;

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(counts: &[(DropReason, u64)]) -> Drops {
        let tally = |packets| Tally { packets, bytes: packets * 60 };
        counts.iter().map(|&(reason, packets)| (reason, tally(packets))).collect()
    }

    #[test]
    fn a_table_without_memory_is_told_by_its_field() {
        let told = |table| no_memory(OpenError::Memory { table, bytes: 5 << 30 }).to_string();
        assert!(told(maps::NAT_PORTS.name).starts_with("`nat.places4` and `nat.places6`: "));
        assert!(told(maps::TRACKED.name).contains("`limits.flows`: no memory for so many"));
        assert!(told("HEAD").contains("HEAD, which takes 5120 MiB"));
    }

    #[test]
    fn the_one_reason_that_rose_is_told() {
        let before = drops(&[(DropReason::NoBackend, 3), (DropReason::Martian, 1)]);
        let told = |counts: &[(DropReason, u64)]| risen(&before, &drops(counts));
        let martian = told(&[(DropReason::NoBackend, 3), (DropReason::Martian, 2)]);
        assert_eq!(martian, Some(DropReason::Martian.to_string()));
        let new =
            told(&[(DropReason::NoBackend, 3), (DropReason::Martian, 1), (DropReason::TooBig, 1)]);
        assert_eq!(new, Some(DropReason::TooBig.to_string()));
        assert_eq!(told(&[(DropReason::NoBackend, 4), (DropReason::Martian, 2)]), None);
        assert_eq!(told(&[(DropReason::NoBackend, 3), (DropReason::Martian, 1)]), None);
    }
}

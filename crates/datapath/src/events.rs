//! Flow events: as a blocking iterator or as a stream, with the names of who decided.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use flowgate_abi::{
    DropReason,
    event::{Event, Kind},
    flow::NO_SLOT,
    policy::Judgement,
};
use flowgate_identity::NumericIdentity;
use flowgate_policy::{
    inventory::WorkloadRef,
    model::Response,
    outcome::{Outcome, Side},
    peer_key::PeerKey,
    plan::Plan,
    simulate::outcome,
};
use futures_core::Stream;
use tokio::time::Sleep;
use zerocopy::FromBytes;

use crate::sys::kernel;

/// How often the ring is looked into: programs wake its reader only once 64 KiB lie unread, since a
/// wake-up costs a packet a hundred times what the event does.
const INTERVAL: Duration = Duration::from_millis(10);

/// Something that happened to a flow.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// Since boot, suspended time left out (`CLOCK_MONOTONIC`), as of the last tick of 1 to 10 ms.
    pub at: Duration,
    /// What happened.
    pub kind: Kind,
    /// Why packets of it are dropped, if they are; for `Kept`, why they would be.
    pub reason: Option<DropReason>,
    /// Who opened the flow.
    pub source: FlowEnd,
    /// To whom.
    pub destination: FlowEnd,
    /// The IP protocol number.
    pub protocol: u8,
    /// The type of an ICMP query that opened the flow.
    pub icmp_type: u8,
    /// TCP flags of the packet that caused the event.
    pub tcp_flags: u8,
    /// The generation that decided.
    pub generation: u32,
    /// What was decided at each end, by which policies, what these name for the log, and what they tell
    /// the sender; `None`: the event is of a generation whose plan this process doesn't know (any more),
    /// or nothing was decided.
    pub outcome: Option<Outcome>,
    /// Interface index of the link on which the packet was seen; 0: none.
    pub ifindex: u32,
}

/// One end of a flow.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEnd {
    /// Its address.
    pub address: IpAddr,
    /// Its port in host byte order, or the identifier of an ICMP query.
    pub port: u16,
    /// Its identity. In a record whose plan isn't known, that of the world stands for any network: networks
    /// that a plan doesn't tell apart share a peer.
    pub identity: NumericIdentity,
    /// The workload, if it is local.
    pub workload: Option<WorkloadRef>,
    /// Packets that it has sent in this flow; for `Closed`, `Revoked`, `Rejudged` and `Kept`.
    pub packets: u32,
    /// Bytes that it has sent, from the Ethernet header on.
    pub bytes: u64,
}

impl fmt::Display for FlowEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(workload) = &self.workload {
            write!(f, "{workload} ")?;
        }
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}", self.port),
            IpAddr::V6(address) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

impl fmt::Display for FlowEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::New => "new",
            Kind::Denied => "denied",
            Kind::Closed => "closed",
            Kind::Rejudged => "rejudged",
            Kind::Revoked => "revoked",
            Kind::Kept => "kept",
        };
        write!(f, "{kind:8} {} -> {} {}", self.source, self.destination, protocol(self.protocol))?;
        if let Some(reason) = self.reason {
            write!(f, ": {reason}")?;
        }
        if let Some(outcome) = &self.outcome {
            for (name, side) in [("egress", &outcome.egress), ("ingress", &outcome.ingress)] {
                side_of(f, name, side)?;
            }
        }
        if matches!(self.kind, Kind::Closed | Kind::Revoked) {
            let (out, back) = (&self.source, &self.destination);
            write!(
                f,
                ", {}/{} packets, {}/{} bytes",
                out.packets, back.packets, out.bytes, back.bytes
            )?;
        }
        Ok(())
    }
}

fn side_of(f: &mut fmt::Formatter<'_>, name: &str, side: &Side) -> fmt::Result {
    let Side::Verdict { verdict, policies, staged, response, log } = side else { return Ok(()) };
    write!(f, ", {name} {verdict}")?;
    if *response != Response::Silence {
        write!(f, " with {response}")?;
    }
    for (index, policy) in policies.iter().enumerate() {
        write!(f, "{}{policy}", if index == 0 { " by " } else { " " })?;
    }
    if let Some(staged) = staged {
        write!(f, " (staged: {staged})")?;
    }
    for (index, value) in log.iter().enumerate() {
        write!(f, "{}{value}", if index == 0 { " (log: " } else { ", " })?;
    }
    if log.is_empty() { Ok(()) } else { f.write_str(")") }
}

fn protocol(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("protocol {other}"),
    }
}

/// Generations whose plans are kept for the events that still speak of them.
const PLANS: usize = 8;

/// What names an event needs: shared by the datapath, which writes it, and the reader of events.
#[derive(Debug, Default)]
pub(crate) struct Names {
    plans: VecDeque<(u32, Arc<Plan>)>,
    workloads: BTreeMap<u32, WorkloadRef>,
}

impl Names {
    /// The plan of a generation. It was published under its own number, or, after an epoch has wrapped,
    /// goes on under a later one in the same slot; the plan after it is in the other slot.
    fn plan_of(&self, generation: u32) -> Option<&Plan> {
        let same = |number: u32| {
            generation.checked_sub(number).is_some_and(|later| later.is_multiple_of(2))
        };
        let plans = self.plans.iter().filter(|(number, _)| same(*number));
        plans.max_by_key(|(number, _)| *number).map(|(_, plan)| &**plan)
    }
}

/// Shared names.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedNames(Arc<Mutex<Names>>);

impl SharedNames {
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn plan(&self, generation: u32, plan: &Arc<Plan>) {
        let mut names = self.lock();
        names.plans.retain(|(known, _)| *known != generation);
        names.plans.push_back((generation, Arc::clone(plan)));
        if names.plans.len() > PLANS {
            names.plans.pop_front();
        }
    }

    pub(crate) fn workload(&self, slot: u32, workload: &WorkloadRef) {
        self.lock().workloads.insert(slot, workload.clone());
    }

    /// An event with its names. `None`: it isn't one that this build knows.
    pub(crate) fn decode(&self, event: &Event) -> Option<FlowEvent> {
        let names = self.lock();
        named(event, names.plan_of(event.generation), &names.workloads)
    }
}

impl FlowEvent {
    /// Reads a record as the programs write it into the ring: an [`Event`]'s bytes. For whoever
    /// keeps records, or reads the ring without a datapath; [`Events`] knows the workloads, too.
    ///
    /// `plan` is the one of the event's generation, if it is known: it names the policies. `None`: the
    /// record isn't an event that this build knows.
    #[must_use]
    pub fn decode(record: &[u8], plan: Option<&Plan>) -> Option<Self> {
        named(&Event::read_from_bytes(record).ok()?, plan, &BTreeMap::new())
    }
}

fn named(
    event: &Event,
    plan: Option<&Plan>,
    workloads: &BTreeMap<u32, WorkloadRef>,
) -> Option<FlowEvent> {
    let decided = event.judgement != Judgement::NONE;
    Some(FlowEvent {
        at: Duration::from_nanos(event.timestamp),
        kind: Kind::from_number(event.kind)?,
        reason: DropReason::from_number(event.reason),
        source: end(workloads, plan, event, 0),
        destination: end(workloads, plan, event, 1),
        protocol: event.protocol,
        icmp_type: event.icmp_type,
        tcp_flags: event.tcp_flags,
        generation: event.generation,
        outcome: plan.filter(|_| decided).map(|plan| outcome(plan, event.judgement)),
        ifindex: event.ifindex,
    })
}

fn end(
    workloads: &BTreeMap<u32, WorkloadRef>,
    plan: Option<&Plan>,
    event: &Event,
    which: usize,
) -> FlowEnd {
    let (address, port, identity, slot) = if which == 0 {
        (event.source, event.source_port, event.source_identity, event.source_slot)
    } else {
        (
            event.destination,
            event.destination_port,
            event.destination_identity,
            event.destination_slot,
        )
    };
    let slot = u32::from(slot);
    let workload = (slot != NO_SLOT).then(|| workloads.get(&slot).cloned()).flatten();
    let (address, identity) = (address_of(event.family, address), NumericIdentity(identity));
    FlowEnd {
        address,
        port: port.get(),
        identity: plan
            .and_then(|plan| network_identity(plan, address, identity))
            .unwrap_or(identity),
        workload,
        packets: event.packets[which],
        bytes: event.bytes[which],
    }
}

/// The identity of the network around an address of the world.
fn network_identity(
    plan: &Plan,
    address: IpAddr,
    identity: NumericIdentity,
) -> Option<NumericIdentity> {
    let is_world = [NumericIdentity::WORLD_IPV4, NumericIdentity::WORLD_IPV6].contains(&identity);
    let peer = plan.peers.get(plan.peer_of(address).filter(|_| is_world)? as usize)?;
    matches!(peer.key, PeerKey::Network(_)).then_some(peer.identity)
}

pub(crate) fn address_of(family: u8, words: [u64; 2]) -> IpAddr {
    let [first, last] = words.map(u64::to_ne_bytes);
    if family == 4 {
        return Ipv4Addr::new(first[0], first[1], first[2], first[3]).into();
    }
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&first);
    octets[8..].copy_from_slice(&last);
    Ipv6Addr::from(octets).into()
}

/// Where events come from.
pub(crate) enum Source {
    Ring(RingBuf<MapData>),
    Channel(mpsc::Receiver<Event>),
}

/// The events of a datapath, in the order in which each CPU wrote them.
///
/// Reads without waiting ([`Events::try_next`]), waiting ([`Events::next_timeout`], and as an
/// [`Iterator`], which never ends), or as a [`Stream`] within a tokio runtime that has its timer
/// enabled. Events that nobody reads in time are counted as lost and never hold a packet up.
pub struct Events {
    source: Source,
    names: SharedNames,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    pub(crate) fn new(source: Source, names: SharedNames) -> Self {
        Self { source, names, sleep: None }
    }

    /// The next event that is there already.
    pub fn try_next(&mut self) -> Option<FlowEvent> {
        loop {
            let event = match &mut self.source {
                Source::Ring(ring) => kernel::next_event(ring)?,
                Source::Channel(channel) => channel.try_recv().ok()?,
            };
            if let Some(event) = self.names.decode(&event) {
                return Some(event);
            }
        }
    }

    /// The next event, if it comes in time.
    ///
    /// # Errors
    /// The ring couldn't be waited for.
    pub fn next_timeout(&mut self, timeout: Duration) -> io::Result<Option<FlowEvent>> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(event) = self.try_next() {
                return Ok(Some(event));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.wait(left.min(INTERVAL))?;
        }
    }

    fn wait(&self, time: Duration) -> io::Result<()> {
        match &self.source {
            Source::Ring(ring) => {
                kernel::wait_readable(ring, time.as_millis().max(1) as i32)?;
            }
            Source::Channel(_) => std::thread::sleep(time),
        }
        Ok(())
    }
}

/// Waits for each event.
impl Iterator for Events {
    type Item = FlowEvent;

    fn next(&mut self) -> Option<FlowEvent> {
        loop {
            if let Ok(Some(event)) = self.next_timeout(Duration::from_secs(1)) {
                return Some(event);
            }
        }
    }
}

impl Stream for Events {
    type Item = FlowEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<FlowEvent>> {
        loop {
            if let Some(event) = self.try_next() {
                self.sleep = None;
                return Poll::Ready(Some(event));
            }
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(INTERVAL)));
            match sleep.as_mut().poll(context) {
                Poll::Ready(()) => self.sleep = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

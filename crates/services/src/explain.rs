//! Why a flow has the backend that it has: read from the tables, without effect on them.

use std::net::IpAddr;

use flowgate_abi::{
    Addr6, Be16, Be32,
    lb::{CELLS, Frontend as Entry, MARK, Slot, Tracked},
};
use flowgate_pipeline::{
    V4, V6,
    family::Tuple,
    lb::{Balanceable, choose::Flow, tracking::Place},
};

use crate::{
    balancer::Balancer,
    frontends::target_of,
    life::Stage,
    model::{BackendId, Frontend, Protocol, ServiceName},
    quic::ConnectionId,
    running::Running,
    server_ids,
    store::Store,
    translated::Translated,
};

/// A flow, seen from its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientFlow {
    /// The client's address, of the frontend's family.
    pub client: IpAddr,
    /// The client's port.
    pub port: u16,
    /// Where it sends to.
    pub frontend: Frontend,
    /// The connection id of its packets, if it is of QUIC and that is known.
    pub quic: Option<ConnectionId>,
    /// The server id in its packets' option of TCP, if they have one and that is known.
    pub server_id: Option<u32>,
}

/// Why a flow has its backend. A packet that names a server itself, by its connection id
/// ([`crate::model::ServiceOptions::quic`]) or an option of TCP ([`crate::model::ServiceOptions::tcp_option`]), goes there,
/// unless full NAT has given its flow a port: who asks says which id ([`ClientFlow::quic`], [`ClientFlow::server_id`]), as
/// ids are of packets, not of flows.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The service.
    pub service: ServiceName,
    /// The flow's slot in the service's table.
    pub slot: u32,
    /// Where that slot is in its life.
    pub stage: Stage,
    /// Whom the slot gives to flows that have no entry and don't open.
    pub default: Option<BackendId>,
    /// Whom it gives to flows that open.
    pub fresh: Option<BackendId>,
    /// Whom the table says that the slot should give.
    pub target: Option<BackendId>,
    /// Whom the flow's entry names, if it has one.
    pub entry: Option<BackendId>,
    /// What its packets become, if full NAT has given it a port: it keeps that, and its backend.
    pub translated: Option<Translated>,
    /// Whom the id names that was asked about: of packets with short headers of QUIC, or of TCP that open nothing, which
    /// go there. Those of QUIC's handshakes don't if it is quarantined.
    pub named: Named,
    /// Whom the client's pin names, if the service has affinity and it has one: that one gets its packets, but for
    /// flows to which full NAT has given a port.
    pub pin: Option<BackendId>,
    /// The service's source ranges leave the client out: its packets are dropped, whatever else stands here.
    /// Not known of a service that was adopted and not applied since.
    pub refused: bool,
}

/// Whom the id names that was asked about.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// None was asked about.
    Unasked,
    /// No id of that kind says anything to the service.
    Unread,
    /// The connection id has no server id: it is of another config rotation, or too short.
    NoServerId,
    /// No backend that is listed has this server id: none ever had, or the one that had is gone.
    Nobody {
        /// The id.
        server_id: u32,
    },
    /// A backend that is listed.
    Backend {
        /// By this id.
        server_id: u32,
        /// Which.
        backend: BackendId,
    },
}

impl Named {
    /// The backend.
    #[must_use]
    pub const fn backend(self) -> Option<BackendId> {
        match self {
            Self::Backend { backend, .. } => Some(backend),
            _ => None,
        }
    }
}

impl Explained {
    /// The backend that gets the next packet of the flow, if that doesn't open it.
    #[must_use]
    pub fn backend(&self) -> Option<BackendId> {
        let translated = self.translated.map(|translated| translated.backend);
        translated
            .or(self.named.backend())
            .or(self.pin)
            .or(self.entry)
            .or(self.default)
            .filter(|_| !self.refused)
    }
}

impl<S: Store> Balancer<S> {
    /// Why a flow has its backend. `None`: no service has its frontend, or its ends are of two families.
    #[must_use]
    pub fn explain(&self, flow: &ClientFlow) -> Option<Explained> {
        let index = self.find_frontend(flow.frontend)?;
        let entry = self.store.frontend(index);
        let running = self.running.values().find(|running| running.number == entry.service)?;
        let refused = !running.service.sources.takes(flow.client);
        let (client, flow) = (flow, flow_of(&entry, flow)?);
        let slot = flow.slot - running.slots.start;
        let word = running.slot(&self.store, slot);
        let named = |number| running.members.named(number);
        let settings = self.store.settings();
        let place = Place::of(flow.slot, flow.hash, settings.tracked_mask);
        let tracked = |cell| self.store.tracked(cell);
        let found = if word.has(Slot::TRACK) { entry_at(&place, tracked) } else { None };
        let place = Place::of(flow.slot, flow.client, settings.pin_mask);
        let has_pins = entry.flags.load() & Entry::AFFINITY != 0;
        let pin = if has_pins { entry_at(&place, |cell| self.store.pin(cell)) } else { None };
        Some(Explained {
            service: running.service.name.clone(),
            slot,
            stage: Stage::of(word),
            default: named(word.default_backend()),
            fresh: named(word.fresh_backend()),
            target: named(u32::from(running.target[slot as usize])),
            entry: found.and_then(|entry| named(entry.backend())),
            named: running.named_by(&self.store, client),
            pin: pin.and_then(|pin| named(pin.backend())),
            translated: self.translated(running, client, flow.hash),
            refused,
        })
    }

    fn find_frontend(&self, frontend: Frontend) -> Option<u32> {
        let exact = self.directory.find(&self.store, &target_of(frontend));
        exact.or_else(|| {
            self.directory.find(&self.store, &target_of(Frontend { port: 0, ..frontend }))
        })
    }
}

/// A flow to a frontend; `None`: its ends are of two families.
fn flow_of(entry: &Entry, flow: &ClientFlow) -> Option<Flow> {
    let ports = (Be16::new(flow.port), Be16::new(flow.frontend.port));
    Some(match (flow.client, flow.frontend.address) {
        (IpAddr::V4(client), IpAddr::V4(_)) => {
            Flow::of::<V4>(entry, &tuple::<V4>(Be32::new(client.into()), ports))
        }
        (IpAddr::V6(client), IpAddr::V6(_)) => {
            Flow::of::<V6>(entry, &tuple::<V6>(Addr6::from_octets(client.octets()), ports))
        }
        _ => return None,
    })
}

/// The entry of a place, in a table of cells.
fn entry_at(place: &Place, cell: impl Fn(u32) -> Tracked) -> Option<Tracked> {
    let mut name = place.name;
    for bucket in place.buckets.map(|bucket| bucket * CELLS as u32) {
        let mut entries = (bucket..bucket + CELLS as u32).map(&cell);
        if let Some(entry) = entries.find(|entry| entry.is_taken() && entry.is(name)) {
            return Some(entry);
        }
        if cell(bucket + MARK as u32).0 == 0 {
            return None;
        }
        name = name.elsewhere();
    }
    None
}

fn tuple<F: Balanceable>(
    source: F::Addr,
    (source_port, destination_port): (Be16, Be16),
) -> Tuple<F::Addr> {
    Tuple { source, source_port, destination_port, ..Tuple::default() }
}

impl Running {
    /// Whom the packets of a flow name themselves.
    fn named_by<S: Store>(&self, store: &S, flow: &ClientFlow) -> Named {
        let server_id = match (self.service.protocol, flow.server_id, flow.quic) {
            (_, None, None) => return Named::Unasked,
            _ if server_ids::count(self.flags) == 0 => return Named::Unread,
            (Protocol::Tcp, Some(id), _) => Some(id),
            (Protocol::Udp, _, Some(id)) => id.server(self.flags),
            _ => return Named::Unread,
        };
        let Some(server_id) = server_id else { return Named::NoServerId };
        match self.server(store, server_id) {
            Some(backend) => Named::Backend { server_id, backend },
            None => Named::Nobody { server_id },
        }
    }

    /// Slots that aren't stable, by their stage.
    pub(crate) fn stages<S: Store>(&self, store: &S) -> [usize; 3] {
        let mut stages = [0; 3];
        for slot in self.moving.keys() {
            match Stage::of(self.slot(store, *slot)) {
                Stage::Announce => stages[0] += 1,
                Stage::Move => stages[1] += 1,
                Stage::Settle => stages[2] += 1,
                Stage::Stable => {}
            }
        }
        stages
    }
}

//! Server ids: by which the connection ids of QUIC name a service's backends.
//!
//! Not here: how a packet is read (`flowgate-pipeline`, `lb::quic`), and how servers make connection ids.
//!
//! Invariant: the word of a server id names the backend that is listed with it, or nobody.

use std::collections::BTreeMap;

use flowgate_abi::{
    Be16,
    lb::{NOBODY, QuicIds, Slot},
};
use flowgate_pipeline::lb::quic::id_in;

use crate::{
    TableSize,
    error::ServiceError,
    model::{BackendId, Protocol, Service},
    running::Running,
    store::Store,
};

/// How servers' connection ids name them: in plain text by draft-ietf-quic-load-balancers. The first octet of an
/// id begins with the config rotation, the server id follows in network byte order, then four octets or more of the
/// server's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuicServers {
    /// The first three bits of ids that name servers, 0 to 6; 7 says of an id that it names none.
    pub rotation: u8,
    /// Octets of a server id, 1 to 4.
    pub octets: u8,
    /// Server ids are below this power of two, from 16 to 16384. Each takes as much room as a slot.
    pub ids: u16,
}

impl Default for QuicServers {
    /// Rotation 0, ids of one octet, all 256 of them.
    fn default() -> Self {
        Self { rotation: 0, octets: 1, ids: 256 }
    }
}

impl QuicServers {
    /// As a frontend's flags say it.
    pub(crate) const fn flags(self) -> u32 {
        QuicIds::new(self.rotation as u32, self.octets as u32, self.ids.trailing_zeros()).0
    }

    /// What flags say.
    pub(crate) fn of(flags: u32) -> Option<Self> {
        let ids = QuicIds(flags);
        let (rotation, octets) = (ids.rotation() as u8, ids.octets() as u8);
        ids.is_some().then(|| Self { rotation, octets, ids: ids.count() as u16 })
    }

    const fn is_good(self) -> bool {
        let rotation = self.rotation < 7 && self.octets > 0 && self.octets < 5;
        rotation && self.ids.is_power_of_two() && self.ids >= 16 && self.ids <= 16384
    }
}

/// The destination's connection id in packets of QUIC with short headers: those of a connection that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Its octets, and zeroes.
    octets: [u8; Self::MOST],
    length: u8,
}

impl ConnectionId {
    /// Octets of the longest (RFC 9000, section 17.2).
    pub const MOST: usize = 20;

    /// Of its octets; `None`: they are more than [`ConnectionId::MOST`].
    #[must_use]
    pub fn new(id: &[u8]) -> Option<Self> {
        let mut octets = [0; Self::MOST];
        octets.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self { octets, length: id.len() as u8 })
    }

    /// Its octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets[..usize::from(self.length)]
    }

    /// The server id that it has, as a packet's reader sees it. One that is too short for it names nobody.
    fn server(&self, ids: QuicIds) -> Option<u32> {
        let [first, a, b, c, d, ..] = self.octets;
        let words = [[0, first], [a, b], [c, d]].map(|word| Be16::new(u16::from_be_bytes(word)));
        let id = id_in(words, ids);
        (u32::from(self.length) > ids.octets() && id < ids.count()).then_some(id)
    }
}

/// Words that a service needs for its slots and server ids.
pub(crate) fn room(size: TableSize, quic: Option<QuicServers>) -> u32 {
    QuicIds::start(size.slots()) + quic.map_or(0, |servers| servers.ids.into())
}

/// What is wrong with a service's server ids.
pub(crate) fn check(service: &Service) -> Result<(), ServiceError> {
    let name = || service.name.clone();
    let most = match service.options.quic {
        Some(_) if service.protocol != Protocol::Udp => {
            return Err(ServiceError::QuicIsUdp { service: name() });
        }
        Some(servers) if !servers.is_good() => {
            return Err(ServiceError::QuicServers { service: name(), servers });
        }
        Some(servers) => u32::from(servers.ids).min(1 << (8 * u32::from(servers.octets).min(2))),
        None => 0,
    };
    let mut taken = BTreeMap::new();
    for backend in &service.backends {
        let Some(id) = backend.server_id else { continue };
        let (service, backend) = (name(), backend.id());
        if u32::from(id) >= most {
            return Err(ServiceError::ServerId { service, backend, id, most });
        }
        if let Some(first) = taken.insert(id, backend) {
            return Err(ServiceError::DuplicateServerId { service, id, first, second: backend });
        }
    }
    Ok(())
}

impl Running {
    /// Writes whom server ids name.
    pub(crate) fn name_servers<S: Store>(&self, store: &mut S) {
        let Some(servers) = self.service.options.quic else { return };
        let listed = self.service.backends.iter().filter_map(|backend| {
            Some((u32::from(backend.server_id?), self.members.number(backend.id())?))
        });
        let listed: BTreeMap<u32, u32> = listed.collect();
        for id in 0..u32::from(servers.ids) {
            let number = listed.get(&id).copied().unwrap_or(NOBODY);
            let (word, place) = (Slot::stable(number), self.server(id));
            if store.slot(place) != word {
                store.set_slot(place, word);
            }
        }
    }

    /// The backend that a connection id names, if the service has such ids.
    pub(crate) fn whom<S: Store>(&self, store: &S, id: &ConnectionId) -> Option<BackendId> {
        let ids = QuicIds(self.flags);
        let place = ids.is_some().then(|| id.server(ids)).flatten()?;
        self.members.named(store.slot(self.server(place)).default_backend())
    }

    /// Where the word of a server id lies.
    fn server(&self, id: u32) -> u32 {
        self.slots.start + QuicIds::start(self.size.slots()) + id
    }
}

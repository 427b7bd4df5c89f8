//! Server ids: by which packets name a service's backends.
//!
//! Not here: how packets have them ([`crate::quic`], [`crate::tcp_option`]), and how they are read (`flowgate-pipeline`,
//! `lb::server_id`).
//!
//! Invariant: the word of a server id names the backend that is listed with it, or nobody.

use std::collections::BTreeMap;

use flowgate_abi::lb::{NOBODY, ServerIds, Slot};

use crate::{
    TableSize,
    error::ServiceError,
    model::{BackendId, QuicServers, Service, ServiceOptions, TcpServers},
    quic,
    running::Running,
    store::Store,
    tcp_option,
};

/// What is said of server ids, as a frontend's flags have it.
pub(crate) fn flags(options: &ServiceOptions) -> u32 {
    let quic = options.quic.map_or(0, QuicServers::flags);
    quic | options.tcp_option.map_or(0, TcpServers::flags)
}

/// How many server ids a service has, by its frontends' flags; 0: packets have none.
pub(crate) const fn count(flags: u32) -> u32 {
    let ids = ServerIds(flags);
    if ids.is_some() { ids.count() } else { 0 }
}

/// A server id fits a service's number of them: so many are no power of two from 16 to 16384.
pub(crate) const fn is_count(ids: u16) -> bool {
    ids.is_power_of_two() && ids >= 16 && ids <= 16384
}

/// Words that a service needs for its slots and server ids.
pub(crate) fn room(size: TableSize, flags: u32) -> u32 {
    ServerIds::start(size.slots()) + count(flags)
}

/// What is wrong with a service's server ids.
pub(crate) fn check(service: &Service) -> Result<(), ServiceError> {
    let most = quic::check(service)? + tcp_option::check(service)?;
    let mut taken = BTreeMap::new();
    for backend in &service.backends {
        let Some(id) = backend.server_id else { continue };
        let (service, backend) = (service.name.clone(), backend.id());
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
        let listed = self.service.backends.iter().filter_map(|backend| {
            Some((u32::from(backend.server_id?), self.members.number(backend.id())?))
        });
        let listed: BTreeMap<u32, u32> = listed.collect();
        for id in 0..count(flags(&self.service.options)) {
            let number = listed.get(&id).copied().unwrap_or(NOBODY);
            let (word, place) = (Slot::stable(number), self.word(id));
            if store.slot(place) != word {
                store.set_slot(place, word);
            }
        }
    }

    /// The backend that a server id names.
    pub(crate) fn server<S: Store>(&self, store: &S, id: u32) -> Option<BackendId> {
        let is_one = id < count(self.flags);
        let word = is_one.then(|| store.slot(self.word(id)))?;
        self.members.named(word.default_backend())
    }

    /// Where the word of a server id lies.
    fn word(&self, id: u32) -> u32 {
        self.slots.start + ServerIds::start(self.size.slots()) + id
    }
}

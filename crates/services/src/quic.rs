//! Server ids in connection ids of QUIC.
//!
//! Not here: whom an id names ([`crate::server_ids`]), how a packet is read (`flowgate-pipeline`, `lb::quic`), and how servers
//! make connection ids.

use flowgate_abi::{Be16, lb::QuicIds};
use flowgate_pipeline::lb::{quic::id_in, server_id::NO_ID};

use crate::{
    error::ServiceError,
    model::{Protocol, Service},
    server_ids,
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
        let count = server_ids::count(flags) as u16;
        ids.is_some().then_some(Self { rotation, octets, ids: count })
    }

    const fn is_good(self) -> bool {
        let rotation = self.rotation < 7 && self.octets > 0 && self.octets < 5;
        rotation && server_ids::is_count(self.ids)
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

    /// The server id that it has, as a packet's reader sees it; `None`: it is of another rotation, or too short.
    pub(crate) fn server(&self, flags: u32) -> Option<u32> {
        let ids = QuicIds(flags);
        let [first, a, b, c, d, ..] = self.octets;
        let words = [[0, first], [a, b], [c, d]].map(|word| Be16::new(u16::from_be_bytes(word)));
        let is_whole = ids.is_some() && u32::from(self.length) > ids.octets();
        Some(id_in(words, ids)).filter(|id| is_whole && *id != NO_ID)
    }
}

/// How many server ids a service has in connection ids; 0: none.
///
/// # Errors
/// It can have none, or not such ones.
pub(crate) fn check(service: &Service) -> Result<u32, ServiceError> {
    let name = || service.name.clone();
    match service.options.quic {
        Some(_) if service.protocol != Protocol::Udp => {
            Err(ServiceError::QuicIsUdp { service: name() })
        }
        Some(servers) if !servers.is_good() => {
            Err(ServiceError::QuicServers { service: name(), servers })
        }
        Some(servers) => {
            Ok(u32::from(servers.ids).min(1 << (8 * u32::from(servers.octets).min(2))))
        }
        None => Ok(0),
    }
}

//! Server ids in an option of TCP.
//!
//! Not here: whom an id names ([`crate::server_ids`]), how a packet is read (`flowgate-pipeline`, `lb::tcp_option`), and who
//! writes the option (`flowgate-datapath`, `server_id`).

use flowgate_abi::lb::TcpOption;

use crate::{
    error::ServiceError,
    model::{Forwarding, Protocol, Service},
    server_ids,
};

/// How segments name their servers: by an option of six octets, its kind, its length, and the server id in 32 bits, the
/// lowest octet first, as Katran's programs write it on little-endian machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpServers {
    /// The option's kind: one that nothing else means ([`TcpServers::is_kind`]).
    pub kind: u8,
    /// Server ids are below this power of two, from 16 to 16384. Each takes as much room as a slot.
    pub ids: u16,
}

impl Default for TcpServers {
    /// Katran's kind, 0xb7, and 256 ids.
    fn default() -> Self {
        Self { kind: 0xb7, ids: 256 }
    }
}

impl TcpServers {
    /// A kind that IANA has assigned to no other option: 35 to 252 but for 69, 172 and 174. Those of experiments (RFC 6994),
    /// 253 and 254, begin with an identifier of their own.
    #[must_use]
    pub const fn is_kind(kind: u8) -> bool {
        kind >= 35 && kind <= 252 && !matches!(kind, 69 | 172 | 174)
    }

    /// As a frontend's flags say it.
    pub(crate) const fn flags(self) -> u32 {
        TcpOption::new(self.kind, self.ids.trailing_zeros()).0
    }

    /// What flags say.
    pub(crate) fn of(flags: u32) -> Option<Self> {
        let (option, ids) = (TcpOption(flags), server_ids::count(flags));
        option.is_some().then(|| Self { kind: option.kind(), ids: ids as u16 })
    }
}

/// How many server ids a service has in options; 0: none.
///
/// # Errors
/// It can have none, or not such ones.
pub(crate) fn check(service: &Service) -> Result<u32, ServiceError> {
    let name = || service.name.clone();
    match service.options.tcp_option {
        Some(_) if service.protocol != Protocol::Tcp => {
            Err(ServiceError::OptionIsTcp { service: name() })
        }
        Some(_) if service.forwarding == Forwarding::Snat => {
            Err(ServiceError::OptionBySnat { service: name() })
        }
        Some(TcpServers { kind, ids })
            if !TcpServers::is_kind(kind) || !server_ids::is_count(ids) =>
        {
            Err(ServiceError::TcpServers { service: name(), servers: TcpServers { kind, ids } })
        }
        Some(servers) => Ok(servers.ids.into()),
        None => Ok(0),
    }
}

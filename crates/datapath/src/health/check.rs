//! One check, and those under way.

use std::{net::SocketAddr, sync::Arc};

use flowgate_abi::{Addr6, Be16, Shared64, lb::Target, probe::Probe};
use flowgate_services::{
    Uplink, line_to,
    model::{Backend, Forwarding, Service},
};

use super::CheckError;
use crate::sys::health::Table;

/// What a check goes through.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// The service, whose protocol needn't be the check's.
    pub service: &'a Service,
    /// Who is checked.
    pub backend: &'a Backend,
    /// Which of the service's addresses is asked, at which port.
    pub destination: SocketAddr,
    /// How packets leave for backends, as the balancer has it.
    pub uplink: &'a Uplink,
}

/// Has checks go through tunnels; cheap to clone.
#[derive(Clone, Debug)]
pub struct Checks {
    table: Arc<Table>,
}

impl Checks {
    pub(super) const fn new(table: Arc<Table>) -> Self {
        Self { table }
    }

    /// From now on, what a socket that is bound to `own_port` (of TCP, or of UDP if `udp`) sends to the
    /// backend's own address and the destination's port goes through the backend's tunnel to the destination.
    /// The port has to be the socket's alone.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub fn begin(
        &self,
        check: &Check<'_>,
        own_port: u16,
        udp: bool,
    ) -> Result<UnderWay, CheckError> {
        let Check { service, backend, destination, .. } = *check;
        let (address, backend_address) = (destination.ip(), backend.address);
        if !matches!(service.forwarding, Forwarding::Tunnel | Forwarding::Gue { .. }) {
            return Err(CheckError::NoTunnel { service: service.name.to_string() });
        }
        if address.is_ipv4() != backend_address.is_ipv4() {
            return Err(CheckError::Mixed { address, backend: backend_address });
        }
        let (protocol, family) = (if udp { 17 } else { 6 }, if address.is_ipv4() { 4 } else { 6 });
        let kind = Target::kind(Be16::new(own_port), protocol, family);
        let written = self.table.insert(kind, probe(check));
        written.map_err(|source| CheckError::Table { source })?;
        Ok(UnderWay { table: Arc::clone(&self.table), kind })
    }
}

fn probe(check: &Check<'_>) -> Probe {
    let Check { service, backend, destination, uplink } = *check;
    Probe {
        service: Addr6::wide(destination.ip()),
        backend: Addr6::wide(backend.address),
        line: line_to(service, backend, destination.ip(), uplink),
        sent: Shared64::new(0),
        port: Be16::new(destination.port()),
        unused: [0; 6],
    }
}

/// A check under way. Close its socket first, then drop this: what the socket sends in closing goes through the
/// tunnel as well.
#[must_use]
#[derive(Debug)]
pub struct UnderWay {
    table: Arc<Table>,
    kind: u64,
}

impl UnderWay {
    /// Whether packets have gone into the tunnel. If none has, they left by an interface to which
    /// [`Tunnels`](super::Tunnels) isn't attached, straight to the backend.
    ///
    /// # Errors
    /// The table couldn't be read.
    pub fn sent(&self) -> Result<bool, crate::TableError> {
        self.table.sent(self.kind)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.table.remove(self.kind);
    }
}

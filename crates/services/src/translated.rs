//! What full NAT has made of flows: of one flow, and how many ports of each source are taken.
//!
//! Read from the tables, without effect on them. Not here: who frees ports (`nat.rs`). Tested by `tests/nat`.

use std::net::{IpAddr, SocketAddr};

use flowgate_abi::{
    Addr6, Be16,
    lb::{
        CELLS,
        nat::{GROUP, Mapping, Source},
    },
};
use flowgate_pipeline::lb::nat::table::Place;

use crate::{
    balancer::Balancer,
    explain::ClientFlow,
    model::BackendId,
    nat::narrow,
    places::occupied,
    running::Running,
    store::{NatFlow, Store},
};

/// A flow as its backend knows it, with full NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// From where its packets come to the backend: a source of the balancer's, and the flow's port.
    pub source: SocketAddr,
    /// Where they go.
    pub destination: SocketAddr,
    /// Whose that is.
    pub backend: BackendId,
}

/// How many ports of a source flows have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceStats {
    /// The source.
    pub address: IpAddr,
    /// It isn't wanted any more: new flows get no port of it, and it is gone with the last that has one.
    pub retired: bool,
    /// Its ports.
    pub ports: usize,
    /// Those among them that are taken: by a flow, or by one that has ended and wasn't swept yet.
    pub taken: usize,
}

impl<S: Store> Balancer<S> {
    /// How many ports of each source are taken, in the order in which the tables have them.
    #[must_use]
    pub fn sources(&self) -> Vec<SourceStats> {
        let each = self.store.settings().nat_groups_each;
        let of = |(address, number): (IpAddr, u32)| {
            let groups = number * each..(number + 1) * each;
            SourceStats {
                address,
                retired: self.ports.places.is_retired(&address),
                ports: (each * GROUP) as usize,
                taken: groups.map(|group| self.store.taken(group).count_ones() as usize).sum(),
            }
        };
        occupied(&self.store).map(of).collect()
    }

    /// What becomes of a flow with this hash; `None`: it has no port.
    pub(crate) fn translated(
        &self,
        running: &Running,
        flow: &ClientFlow,
        hash: u64,
    ) -> Option<Translated> {
        let place = Place::of(hash, self.store.settings().nat_mask);
        let cells = |bucket| (0..CELLS).map(move |cell| self.store.mapping(bucket, cell));
        let name = Mapping::new(hash, 0);
        let mut found = cells(place.first).chain(cells(place.second));
        let port = found.find(|word| word.0 != 0 && word.is(name))?.index();
        let described = self.store.flow(port);
        if !self.store.life(port).lives() || !is_of(&described, flow) {
            return None;
        }
        let end = |words, port: u16| {
            SocketAddr::new(address(words, flow.client.is_ipv4()), Be16::from_raw(port).get())
        };
        let backend = running.members.named(described.number)?;
        let destination = end(described.backend, described.ports.backend());
        (backend.address == destination.ip()).then(|| Translated {
            source: end(described.source, described.ports.source()),
            destination,
            backend,
        })
    }
}

/// A port's flow is this one.
fn is_of(described: &NatFlow, flow: &ClientFlow) -> bool {
    let words = |address| {
        let Addr6 { first, last } = Addr6::wide(address);
        [first, last]
    };
    let ports = [described.ports.client(), described.ports.service()];
    described.client == words(flow.client)
        && described.service == words(flow.frontend.address)
        && ports == [flow.port, flow.frontend.port].map(|port| Be16::new(port).raw())
        && described.way.protocol() == flow.frontend.protocol.number()
}

fn address([first, last]: [u64; 2], is_v4: bool) -> IpAddr {
    narrow(Source { address: Addr6 { first, last }, ..Source::default() }, is_v4)
}

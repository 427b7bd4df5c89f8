//! Taking over what a store already holds: empty tables, or those of an earlier process.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use flowgate_abi::endpoint::Leaf;
use flowgate_identity::Ipcache;
use ipnet::IpNet;
use thiserror::Error;

use super::{
    Binding, EndpointAddress, Installer, Store, capacity_of,
    nodes::{self, Nodes},
    numbers::Numbers,
};
use crate::ipcache;

impl<S: Store> Installer<S> {
    /// Takes over a store. What runs in it goes on as it is: the first plan that is applied replaces
    /// it in the usual steps, and endpoints that are there may be claimed by
    /// [`Installer::attach`].
    ///
    /// # Errors
    /// The tables couldn't be read or written.
    pub fn adopt(mut store: S) -> Result<Self, S::Error> {
        let (nodes, ipcache) = Nodes::adopt(&mut store)?;
        let bindings = bindings(&store)?;
        let mut numbers = Numbers::new(store.settings().peers);
        for (_, leaf) in ipcache.iter() {
            if let Some(peer) = leaf.as_peer() {
                numbers.occupy(peer);
            }
        }
        for slot in bindings.keys() {
            let row = store.endpoint(*slot);
            numbers.occupy(row.peer4);
            numbers.occupy(row.peer6);
        }
        let capacity = capacity_of(&store);
        let mut installer = Self {
            store,
            capacity,
            ipcache,
            nodes,
            numbers,
            bindings,
            plan: None,
            line: 0,
            open: BTreeSet::new(),
            strays: None,
            robbed: BTreeSet::new(),
        };
        installer.finish_renumbering();
        installer.drop_orphans()?;
        installer.finish_detaching()?;
        Ok(installer)
    }

    /// A process that was killed while it gave the running generation another number has written that
    /// into the head alone: without this, no flow could begin.
    fn finish_renumbering(&mut self) {
        match self.store.active() {
            0 => {}
            active => self.store.renumber(active & 1, active),
        }
    }

    /// A process that was killed while it detached has left the peers of the slot's addresses there,
    /// and their epochs as they were: whoever gets an address next would inherit its connections.
    fn finish_detaching(&mut self) -> Result<(), S::Error> {
        for (ifindex, slot) in self.store.links()? {
            if self.store.endpoint(slot).ifindex != ifindex {
                self.store.set_link(ifindex, None)?;
            }
        }
        let slots = 0..=self.store.settings().endpoint_mask;
        let left = slots.map(|slot| (slot, self.store.endpoint(slot)));
        let left: Vec<_> =
            left.filter(|(_, row)| row.ifindex == 0 && (row.peer4, row.peer6) != (0, 0)).collect();
        if left.is_empty() {
            return Ok(());
        }
        // Then no packet is under way that has found the address where it was.
        self.store.grace_period()?;
        let robbed: BTreeSet<u32> =
            left.iter().flat_map(|(_, row)| [row.peer4, row.peer6]).collect();
        robbed.into_iter().for_each(|peer| self.bump_epoch(peer));
        left.iter().for_each(|(slot, _)| self.store.set_endpoint_peers(*slot, 0, 0));
        Ok(())
    }

    /// Addresses that lead to a slot whose endpoint is gone, or is another one: their process was
    /// killed while it detached. Left alone, the slot's next owner would lend them its identity.
    fn drop_orphans(&mut self) -> Result<(), S::Error> {
        let owned = |net: &IpNet, slot: u32| {
            let binding = self.bindings.get(&slot);
            binding.is_some_and(|binding| binding.prefixes().any(|own| own == *net))
        };
        let orphans: Vec<IpNet> = self
            .ipcache
            .iter()
            .filter(|(net, leaf)| leaf.as_endpoint().is_some_and(|slot| !owned(net, slot)))
            .map(|(net, _)| net)
            .collect();
        self.remove_prefixes(&orphans)
    }
}

/// Why networks couldn't be restored.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum RestoreError<E: std::error::Error + 'static> {
    /// They don't fit; nothing was written.
    #[error("nodes of the ipcache: {needed} are needed, there are {have}")]
    NoRoom {
        /// Nodes that they need.
        needed: usize,
        /// Nodes that there are.
        have: usize,
    },
    /// The tables couldn't be written.
    #[error("the tables couldn't be accessed: {0}")]
    Store(#[source] E),
}

/// Writes the ipcache of a store that has none yet and is to be adopted: what an earlier process has left
/// in another form.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore<S: Store>(
    store: &mut S,
    networks: Vec<(IpNet, Leaf)>,
) -> Result<(), RestoreError<S::Error>> {
    let mut networks: Ipcache<Leaf> = networks.into_iter().collect();
    let (needed, have) = (ipcache::nodes(&networks), nodes::capacity(store));
    if needed > have {
        return Err(RestoreError::NoRoom { needed, have });
    }
    let changed: Vec<IpNet> = networks.iter().map(|(network, _)| network).collect();
    let (mut nodes, _) = Nodes::adopt(store).map_err(RestoreError::Store)?;
    nodes.write(store, &mut networks, &changed).map_err(RestoreError::Store)
}

fn bindings<S: Store>(store: &S) -> Result<BTreeMap<u32, Binding>, S::Error> {
    let linked: Vec<u32> = store.links()?.into_iter().map(|(_, slot)| slot).collect();
    let slots = 0..=store.settings().endpoint_mask;
    let taken = slots.filter_map(|slot| {
        let row = store.endpoint(slot);
        let address = EndpointAddress {
            ifindex: row.ifindex,
            v4: (row.addr4.raw() != 0).then(|| Ipv4Addr::from(row.addr4.get())),
            v6: (row.addr6.octets() != [0; 16]).then(|| row.addr6.octets().into()),
            mac: row.mac,
            router_mac: row.router_mac,
            flags: row.flags,
        };
        let binding = Binding { workload: None, address, linked: linked.contains(&slot) };
        (row.ifindex != 0).then_some((slot, binding))
    });
    Ok(taken.collect())
}

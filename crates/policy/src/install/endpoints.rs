//! Endpoints: which slot, and whose.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowgate_abi::{
    Addr6, Be32, Mac,
    endpoint::{Endpoint, Leaf},
    policy::EndpointPolicy,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{EndpointRow, InstallError, Installer, Store};
use crate::inventory::WorkloadRef;

/// Where an endpoint is and how it is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointAddress {
    /// The host side's interface index, not 0.
    pub ifindex: u32,
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// Its own Ethernet address.
    pub mac: Mac,
    /// Its router's Ethernet address: that of the host side.
    pub router_mac: Mac,
    /// `Endpoint::REDIRECT_PEER` and its like. With `Endpoint::NODE` it is this node itself.
    pub flags: u32,
}

/// An endpoint in its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Whose it is; `None`: adopted, and nobody has claimed it yet.
    pub workload: Option<WorkloadRef>,
    /// Where it is.
    pub address: EndpointAddress,
    /// Its interface index is found by the hash, not by its low bits.
    pub linked: bool,
}

impl EndpointAddress {
    /// Its addresses as prefixes.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> + use<> {
        let v4 = self.v4.map(|a| IpNet::V4(Ipv4Net::from(a)));
        let v6 = self.v6.map(|a| IpNet::V6(Ipv6Net::from(a)));
        v4.into_iter().chain(v6)
    }

    /// Addresses in pairs of an IPv4 and an IPv6 one, each pair an endpoint's.
    pub fn pairs(addresses: &[IpAddr]) -> Vec<(Option<Ipv4Addr>, Option<Ipv6Addr>)> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in addresses {
            match address {
                IpAddr::V4(address) => v4.push(*address),
                IpAddr::V6(address) => v6.push(*address),
            }
        }
        let count = v4.len().max(v6.len());
        (0..count).map(|index| (v4.get(index).copied(), v6.get(index).copied())).collect()
    }
}

impl EndpointAddress {
    /// Its policies where no plan has any: a workload is closed, a node open, lest nobody could tend it.
    pub(super) const fn without_policy(&self) -> u32 {
        if self.flags & Endpoint::NODE == 0 { 0 } else { EndpointPolicy::OPEN }
    }
}

impl Binding {
    /// Its addresses as prefixes.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> + use<> {
        self.address.prefixes()
    }
}

impl<S: Store> Installer<S> {
    /// Binds a workload to an interface. The endpoint is closed (`EndpointNotReady`) until a plan is
    /// applied that contains it, and a node's is open; flows of its addresses' earlier owners are judged
    /// again.
    ///
    /// A workload may have several endpoints: one for each interface, each with at most one address of
    /// either family.
    ///
    /// An endpoint that was adopted is claimed if interface and addresses are the same; it stays as
    /// open as it was.
    ///
    /// # Errors
    /// The interface or an address has an endpoint already, or there is no room.
    pub fn attach(
        &mut self,
        workload: WorkloadRef,
        address: EndpointAddress,
    ) -> Result<u32, InstallError<S::Error>> {
        self.stray(address.prefixes());
        if let Some(slot) = self.claim(&workload, &address) {
            return Ok(slot);
        }
        self.check_free(&workload, &address)?;
        let (slot, linked) = self.choose_slot(address.ifindex)?;
        let binding = Binding { workload: Some(workload), address, linked };
        let policy = address.without_policy();
        // What may fail comes first: the slot is free, so the link leads nowhere yet.
        if linked {
            self.store.set_link(address.ifindex, Some(slot)).map_err(InstallError::Store)?;
        }
        for slots in 0..2 {
            self.store.set_endpoint_policy(slots, slot, policy, policy);
        }
        let robbed: Vec<u32> = binding.prefixes().filter_map(|net| self.peer_at(&net)).collect();
        self.store.set_endpoint(slot, &row(&address));
        self.bindings.insert(slot, binding);
        for peer in robbed {
            self.bump_epoch(peer);
        }
        Ok(slot)
    }

    /// Takes endpoints off: nothing passes them any more, and their addresses belong to whoever has
    /// the prefix around them. Returns how many there were.
    ///
    /// # Errors
    /// The tables couldn't be written.
    pub fn detach(&mut self, slots: &[u32]) -> Result<usize, InstallError<S::Error>> {
        let mut robbed = Vec::new();
        let before = self.bindings.len();
        for slot in slots {
            let Some(binding) = self.bindings.get(slot).cloned() else { continue };
            self.stray(binding.prefixes());
            let peers = self.store.endpoint(*slot);
            robbed.extend([peers.peer4, peers.peer6]);
            self.close(*slot, &binding).map_err(InstallError::Store)?;
            self.bindings.remove(slot);
        }
        // Twice: a packet that found the old leaf before it went may store the first epoch.
        for _ in 0..2 {
            for peer in &robbed {
                self.bump_epoch(*peer);
            }
            self.settle_grace()?;
        }
        Ok(before - self.bindings.len())
    }

    fn close(&mut self, slot: u32, binding: &Binding) -> Result<(), S::Error> {
        self.store.clear_endpoint(slot);
        self.open.remove(&slot);
        for slots in 0..2 {
            self.store.set_endpoint_policy(slots, slot, 0, 0);
        }
        if binding.linked {
            self.store.set_link(binding.address.ifindex, None)?;
        }
        let own = |net: &IpNet| self.ipcache.get(*net) == Some(&Leaf::endpoint(slot));
        let own: Vec<IpNet> = binding.prefixes().filter(own).collect();
        self.remove_prefixes(&own)
    }

    /// Waits for a grace period, after which what was given back may be used again.
    pub(super) fn settle_grace(&mut self) -> Result<(), InstallError<S::Error>> {
        self.pass_grace().map_err(InstallError::Store)
    }

    pub(super) fn pass_grace(&mut self) -> Result<(), S::Error> {
        self.store.grace_period()?;
        self.numbers.reclaim();
        self.nodes.reclaim();
        Ok(())
    }

    fn claim(&mut self, workload: &WorkloadRef, address: &EndpointAddress) -> Option<u32> {
        let (slot, binding) = self.bindings.iter_mut().find(|(_, binding)| {
            let same = (binding.address.ifindex, binding.address.v4, binding.address.v6)
                == (address.ifindex, address.v4, address.v6);
            same && binding.workload.as_ref().is_none_or(|owner| owner == workload)
        })?;
        binding.workload = Some(workload.clone());
        Some(*slot)
    }

    fn check_free(
        &self,
        workload: &WorkloadRef,
        address: &EndpointAddress,
    ) -> Result<(), InstallError<S::Error>> {
        for binding in self.bindings.values() {
            if binding.address.ifindex == address.ifindex {
                let owner = binding.workload.clone().unwrap_or_else(|| workload.clone());
                let ifindex = address.ifindex;
                return Err(InstallError::InterfaceTaken { ifindex, workload: owner });
            }
            let own: Vec<IpNet> = binding.prefixes().collect();
            if let Some(net) = address.prefixes().find(|net| own.contains(net)) {
                let owner = binding.workload.clone().unwrap_or_else(|| workload.clone());
                return Err(InstallError::AddressTaken { address: net.addr(), workload: owner });
            }
        }
        Ok(())
    }

    /// The slot of the index's low bits, else any free one, which the hash then leads to.
    fn choose_slot(&self, ifindex: u32) -> Result<(u32, bool), InstallError<S::Error>> {
        let mask = self.store.settings().endpoint_mask;
        let free = |slot: &u32| !self.bindings.contains_key(slot);
        let own = ifindex & mask;
        if free(&own) {
            return Ok((own, false));
        }
        let other = (0..=mask).rev().find(free);
        other.map(|slot| (slot, true)).ok_or(InstallError::NoSlot { capacity: mask + 1 })
    }
}

fn row(address: &EndpointAddress) -> EndpointRow {
    EndpointRow {
        ifindex: address.ifindex,
        flags: address.flags,
        addr4: address.v4.map_or(Be32::default(), |a| Be32::new(a.into())),
        addr6: address.v6.map_or(Addr6::default(), |a| Addr6::from_octets(a.octets())),
        peer4: 0,
        peer6: 0,
        mac: address.mac,
        router_mac: address.router_mac,
    }
}

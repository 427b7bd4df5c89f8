//! Workloads that join or leave the running generation, without another one.

use std::{net::IpAddr, sync::Arc};

use flowgate_abi::endpoint::Leaf;
use ipnet::IpNet;

use super::{Binding, InstallError, Installer, Store, extend::tabled};
use crate::{inventory::WorkloadRef, plan::PlannedEndpoint, roster::Placement};

impl<S: Store> Installer<S> {
    /// Lets a workload join the running generation: its addresses get their peers, and its endpoints,
    /// if any are attached, their policies. Returns how many entries were written: a constant for each
    /// address, whatever the plan. Flows that its addresses had under their former peers are judged
    /// again.
    ///
    /// Call [`Installer::settle`] some time afterwards.
    ///
    /// # Errors
    /// The placement is of another plan than the running one, or its addresses don't fit; nothing was
    /// written. Or a table couldn't be written: then addresses that are still without their peer stay
    /// what they were.
    pub fn add(&mut self, placement: &Placement) -> Result<usize, InstallError<S::Error>> {
        let plan = self.plan.as_ref().filter(|plan| Arc::ptr_eq(plan, &placement.plan));
        let plan = plan.ok_or(InstallError::OtherPlan)?;
        let number = |peer: u32| self.numbers.of(&plan.peers[peer as usize].key);
        let peers: Option<Vec<(IpNet, u32)>> = placement
            .peers
            .iter()
            .map(|(address, peer)| Some((IpNet::from(*address), number(*peer)?)))
            .collect();
        let peers = peers.ok_or(InstallError::OtherPlan)?;
        let PlannedEndpoint { egress, ingress, .. } = placement.endpoint;
        let (egress, ingress) = (tabled(plan, egress), tabled(plan, ingress));
        self.check_nodes(peers.iter().map(|(net, _)| *net))?;
        self.stray(peers.iter().map(|(net, _)| *net));
        let PlannedEndpoint { workload, addresses, .. } = &placement.endpoint;
        let slots = match placement.is_here() {
            true => self.slots_of(workload, addresses),
            false => Vec::new(),
        };
        let mut written = 0;
        for (net, peer) in &peers {
            written += self.join(net, *peer, owner(&slots, net))?;
        }
        for (slot, _) in &slots {
            self.store.set_endpoint_policy(self.store.active() & 1, *slot, egress, ingress);
            self.open.insert(*slot);
        }
        Ok(written + slots.len())
    }

    /// Lets a workload leave the running generation: its addresses belong to whatever is around them.
    /// Its endpoints, if any are attached, are closed. Returns how many addresses left.
    ///
    /// Call [`Installer::settle`] some time afterwards.
    ///
    /// # Errors
    /// A table couldn't be written.
    pub fn remove(
        &mut self,
        workload: &WorkloadRef,
        addresses: &[IpAddr],
    ) -> Result<usize, InstallError<S::Error>> {
        self.stray(addresses.iter().map(|address| IpNet::from(*address)));
        let slots = self.slots_of(workload, addresses);
        for (slot, _) in &slots {
            self.store.set_endpoint_policy(self.store.active() & 1, *slot, 0, 0);
            self.open.remove(slot);
        }
        let mut left = 0;
        for net in addresses.iter().map(|address| IpNet::from(*address)) {
            left += usize::from(self.leave(&net, owner(&slots, &net))?);
        }
        Ok(left)
    }

    /// Ends what [`Installer::add`] and [`Installer::remove`] began: a packet that met an address's
    /// former peer just before may have tracked a flow under it just after, and is judged again too.
    /// Waits for a grace period if there is anything to do, some milliseconds on a kernel.
    ///
    /// # Errors
    /// The kernel refused to say.
    pub fn settle(&mut self) -> Result<(), S::Error> {
        if self.robbed.is_empty() {
            return Ok(());
        }
        self.pass_grace()?;
        for peer in std::mem::take(&mut self.robbed) {
            self.bump_epoch(peer);
        }
        Ok(())
    }

    pub(super) fn rob(&mut self, peer: u32) {
        self.bump_epoch(peer);
        self.robbed.insert(peer);
    }

    pub(super) fn join(
        &mut self,
        net: &IpNet,
        peer: u32,
        owner: Option<u32>,
    ) -> Result<usize, InstallError<S::Error>> {
        let robbed = self.peer_at(net).filter(|robbed| *robbed != peer);
        let leaf = match owner {
            Some(slot) => {
                self.set_endpoint_peer(slot, net, peer);
                Leaf::endpoint(slot)
            }
            None => Leaf::peer(peer),
        };
        self.set_prefixes(&[(*net, leaf)]).map_err(InstallError::Store)?;
        if let Some(robbed) = robbed {
            self.rob(robbed);
        }
        Ok(1 + usize::from(leaf.as_endpoint().is_some()))
    }

    /// An address of an endpoint or of nobody's leaves its peer. `false`: it had none of its own.
    pub(super) fn leave(
        &mut self,
        net: &IpNet,
        owner: Option<u32>,
    ) -> Result<bool, InstallError<S::Error>> {
        let Some(peer) = self.ipcache.get(*net).and_then(|_| self.peer_at(net)) else {
            return Ok(false);
        };
        self.remove_prefixes(&[*net]).map_err(InstallError::Store)?;
        if let Some(slot) = owner {
            self.set_endpoint_peer(slot, net, 0);
        }
        self.rob(peer);
        Ok(true)
    }

    /// The endpoints of a workload whose addresses are all among these.
    fn slots_of(&self, workload: &WorkloadRef, addresses: &[IpAddr]) -> Vec<(u32, Binding)> {
        let mine = |binding: &Binding| {
            binding.workload.as_ref() == Some(workload)
                && binding.prefixes().all(|net| addresses.contains(&net.addr()))
        };
        let bindings = self.bindings.iter().filter(|(_, binding)| mine(binding));
        bindings.map(|(slot, binding)| (*slot, binding.clone())).collect()
    }
}

fn owner(slots: &[(u32, Binding)], net: &IpNet) -> Option<u32> {
    let owns = |binding: &Binding| binding.prefixes().any(|own| own == *net);
    slots.iter().find(|(_, binding)| owns(binding)).map(|(slot, _)| *slot)
}

//! An extension of the running plan, written into the running generation.
//!
//! Invariant: a cell is written before anything leads to it: decisions, then the cells that name
//! them, then the classes of peers that nobody is, then addresses. So at every single write each
//! address is who it was or who it becomes, and is decided about accordingly. Tested in
//! `tests/extension.rs` after every write, and by killing the process at each.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use flowgate_abi::policy::EndpointPolicy;
use ipnet::IpNet;

use super::{
    Binding, InstallError, Installer, Store,
    apply::identities,
    concern::{Concern, peer_in},
};
use crate::{
    cost::{Overflow, Table},
    extension::Extension,
    plan::Plan,
};

/// Columns that a generation has beside those of its plan, if there is room.
const SPARE: usize = 256;

/// What changes of addresses, worked out before anything is written.
struct Changes {
    leaving: Vec<IpNet>,
    /// With the numbers of their peers.
    joining: Vec<(IpNet, u32)>,
}

impl<S: Store> Installer<S> {
    /// Brings the running generation to an extension of its plan, without another generation: of
    /// policy it takes a cell for each policy of endpoints and each new class of peers, whatever the
    /// number of workloads and rules. Endpoints that are attached and that the extended plan contains
    /// are opened, those that it doesn't contain closed. Flows that addresses had under their former
    /// peers are judged again; all others go on as they are.
    ///
    /// The extended plan is the running one afterwards; who joined by [`Installer::add`] and isn't in
    /// it has left. Call [`Installer::settle`] some time later. An extension that is already there may
    /// be written again, for endpoints attached since.
    ///
    /// Returns how many entries were written.
    ///
    /// # Errors
    /// The extension is of another plan than the running one ([`InstallError::NotRunning`]), or doesn't
    /// fit: nothing was written, and the plan is to be applied. Or a table couldn't be written: the call
    /// may be repeated.
    pub fn extend(&mut self, extension: &Extension) -> Result<usize, InstallError<S::Error>> {
        let running = self.plan.as_ref().ok_or(InstallError::NotRunning)?;
        let is_there = Arc::ptr_eq(running, &extension.plan);
        if !is_there && !extension.extends(running) {
            return Err(InstallError::NotRunning);
        }
        let plan = &extension.plan;
        let concern = self.concern(extension, is_there);
        let planned = concern.networks.iter().filter(|net| peer_in(plan, net).is_some());
        self.check_nodes(planned.copied())?;
        let mut written = if is_there { 0 } else { self.extend_tables(extension, &concern)? };
        // What is left half done from here on is looked at as a whole.
        self.strays = None;
        let owners = concern.owners(self);
        let changes = self.changes(plan, &concern, &owners);
        written += self.shut(plan, &concern);
        written += self.leave_all(&changes.leaving, &owners)?;
        written += self.regroup(plan, &concern);
        written += self.join_all(&changes.joining, &owners)?;
        self.give_back(plan, &concern);
        written += self.open(plan);
        self.has_settled_all();
        Ok(written)
    }

    fn extend_tables(
        &mut self,
        extension: &Extension,
        concern: &Concern<'_>,
    ) -> Result<usize, InstallError<S::Error>> {
        let (before, plan) = (&extension.running, &extension.plan);
        plan.fits_at(&extension.cost, &self.capacity)?;
        self.check_line(plan)?;
        let new: Vec<_> = match concern.extension {
            Some(known) => known.delta.new.iter().map(|at| &plan.peers[*at]).collect(),
            None => plan.peers.iter().filter(|p| self.numbers.of(&p.key).is_none()).collect(),
        };
        let numbers: Vec<u32> = self.numbers.vacant().take(new.len()).collect();
        if numbers.len() < new.len() {
            let (needed, have) = (new.len(), numbers.len());
            return Err(InstallError::PeersInTransition { needed, have });
        }
        let slot = self.store.active() & 1;
        let cells =
            self.extend_decisions(slot, before, plan) + self.extend_rows(slot, before, plan);
        let numbered: Vec<_> = new.iter().copied().zip(numbers.iter().copied()).collect();
        self.own(&numbered);
        for (peer, number) in numbered {
            self.store.set_peer_class(slot, number, peer.class);
            self.numbers.name(peer.key.clone(), number);
        }
        let identities = match concern.extension.filter(|known| !known.delta.shares) {
            Some(known) => self.rename_alone(plan, known),
            None => self.rename(before, plan),
        };
        self.plan = Some(Arc::clone(plan));
        Ok(cells + new.len() + identities)
    }

    /// Writes the identities that are others than before, or of peers that are new.
    fn rename(&mut self, before: &Plan, plan: &Plan) -> usize {
        let numbered = |plan: &Plan| {
            let peers = plan.peers.iter();
            let peers = peers.filter_map(|peer| Some((peer, self.numbers.of(&peer.key)?)));
            identities(&peers.collect::<Vec<_>>())
        };
        let (before, after) = (numbered(before), numbered(plan));
        let changed = after.into_iter().filter(|(number, now)| before.get(number) != Some(now));
        let changed: Vec<_> = changed.collect();
        for (number, identity) in &changed {
            self.store.set_identity(*number, identity.0);
        }
        changed.len()
    }

    /// The same, where none of them shares its number.
    fn rename_alone(&mut self, plan: &Plan, extension: &Extension) -> usize {
        let delta = &extension.delta;
        let mut written = 0;
        for peer in delta.new.iter().chain(&delta.renamed).map(|at| &plan.peers[*at]) {
            if let Some(number) = self.numbers.of(&peer.key) {
                self.store.set_identity(number, peer.identity.0);
                written += 1;
            }
        }
        written
    }

    fn check_line(&self, plan: &Plan) -> Result<(), Overflow> {
        let groups = plan.groups();
        let (needed, have) = (groups * self.line, self.capacity.row_cells);
        if plan.line() <= self.line && needed <= have {
            return Ok(());
        }
        // As another generation it would have room.
        let needed = needed.max(groups * plan.line());
        let have = have.min(groups * self.line);
        Err(Overflow { table: Table::RowCells, needed, have, top: Vec::new() })
    }

    fn extend_decisions(&mut self, slot: u32, before: &Plan, plan: &Plan) -> usize {
        let decisions = &plan.decisions[before.decisions.len()..];
        let cells = &plan.decision[before.decision.len()..];
        if !cells.is_empty() {
            self.store.set_decisions(slot, before.decisions.len() as u32, decisions);
            self.store.set_decision_cells(slot, before.decision.len() as u32, cells);
        }
        decisions.len() + cells.len()
    }

    /// New columns of groups that are there, and new groups.
    fn extend_rows(&mut self, slot: u32, before: &Plan, plan: &Plan) -> usize {
        let (was, width) = (before.peer_classes as usize, plan.peer_classes as usize);
        let groups = before.row.len() / was;
        let mut written = 0;
        for (group, cells) in plan.row.chunks(width).enumerate().skip(1) {
            let from = if group < groups { was } else { 0 };
            let cells = &cells[from..];
            if !cells.is_empty() {
                self.store.set_rows(slot, (group * self.line + from) as u32, cells);
            }
            written += cells.len();
            if plan.is_narrow() && from == 0 {
                let end = plan.end_of_line(group);
                let first = (group + 1) * self.line - end.len();
                self.store.set_rows(slot, first as u32, &end);
                written += end.len();
            }
        }
        written
    }

    /// Addresses that lead elsewhere than a plan says.
    fn changes(&self, plan: &Plan, concern: &Concern<'_>, owners: &HashMap<IpNet, u32>) -> Changes {
        let is_there = |net: &IpNet, peer: u32| {
            let Some(leaf) = self.ipcache.get(*net) else { return false };
            let owned = leaf.as_endpoint() == owners.get(net).copied();
            owned && self.peer_of(*leaf, matches!(net, IpNet::V6(_))) == Some(peer)
        };
        let (mut leaving, mut joining) = (Vec::new(), Vec::new());
        for net in &concern.networks {
            match peer_in(plan, net) {
                None if self.ipcache.get(*net).is_some() => leaving.push(*net),
                None => {}
                Some(peer) => {
                    let number = self.numbers.of(&plan.peers[peer as usize].key);
                    joining.extend(number.filter(|n| !is_there(net, *n)).map(|n| (*net, n)));
                }
            }
        }
        Changes { leaving, joining }
    }

    /// Closes the endpoints that a plan doesn't have.
    fn shut(&mut self, plan: &Plan, concern: &Concern<'_>) -> usize {
        let is_gone = |slot: &&u32| {
            let binding = &self.bindings[*slot];
            concern.has(binding) && planned(binding, plan).is_none()
        };
        let gone: Vec<u32> = self.open.iter().filter(is_gone).copied().collect();
        for &endpoint in &gone {
            let none = self.bindings[&endpoint].address.without_policy();
            self.store.set_endpoint_policy(self.store.active() & 1, endpoint, none, none);
            self.open.remove(&endpoint);
        }
        gone.len()
    }

    /// Who joined by [`Installer::add`] has had the policies of somebody who may be gone: groups that get
    /// no more columns.
    fn regroup(&mut self, plan: &Plan, concern: &Concern<'_>) -> usize {
        let concerned = self.open.iter().map(|slot| (*slot, &self.bindings[slot]));
        let concerned = concerned.filter(|(_, binding)| concern.has(binding));
        let policies: Vec<_> =
            concerned.filter_map(|(slot, binding)| Some((slot, planned(binding, plan)?))).collect();
        for (slot, (egress, ingress)) in &policies {
            self.store.set_endpoint_policy(self.store.active() & 1, *slot, *egress, *ingress);
        }
        policies.len()
    }

    fn leave_all(
        &mut self,
        leaving: &[IpNet],
        owners: &HashMap<IpNet, u32>,
    ) -> Result<usize, InstallError<S::Error>> {
        for network in leaving {
            self.leave(network, owners.get(network).copied())?;
        }
        Ok(leaving.len())
    }

    fn join_all(
        &mut self,
        joining: &[(IpNet, u32)],
        owners: &HashMap<IpNet, u32>,
    ) -> Result<usize, InstallError<S::Error>> {
        let mut written = 0;
        for (network, peer) in joining {
            written += self.join(network, *peer, owners.get(network).copied())?;
        }
        Ok(written)
    }

    /// Gives back the numbers of peers that nobody is any more.
    fn give_back(&mut self, plan: &Plan, concern: &Concern<'_>) {
        if let Some(known) = concern.extension.filter(|known| !known.delta.shares) {
            for number in self.numbers.retire_keys(&known.delta.gone) {
                self.rob(number);
            }
            return;
        }
        let keep = plan.peers.iter().filter_map(|peer| self.numbers.of(&peer.key)).collect();
        for peer in self.numbers.retire(&keep) {
            self.rob(peer);
        }
    }

    /// Opens the endpoints of a plan that are attached and closed.
    fn open(&mut self, plan: &Plan) -> usize {
        let closed = self.bindings.keys().filter(|slot| !self.open.contains(slot));
        let closed: Vec<u32> = closed.copied().collect();
        let slot = self.store.active() & 1;
        let mut opened = 0;
        for endpoint in closed {
            let Some((egress, ingress)) = planned(&self.bindings[&endpoint], plan) else {
                continue;
            };
            self.store.set_endpoint_policy(slot, endpoint, egress, ingress);
            self.open.insert(endpoint);
            opened += 1;
        }
        opened
    }

    /// Slots of the endpoints that a plan has with their addresses.
    pub(super) fn slots_of_plan(&self, plan: &Plan) -> BTreeSet<u32> {
        let bindings = self.bindings.iter();
        let planned = bindings.filter(|(_, binding)| planned(binding, plan).is_some());
        planned.map(|(slot, _)| *slot).collect()
    }

    /// How far the groups of a plan's rows lie apart: with room for more classes of peers if the
    /// table has some.
    pub(super) fn line_for(&self, plan: &Plan) -> usize {
        let (least, groups) = (plan.line(), plan.groups());
        let room = self.capacity.row_cells / (groups + groups / 8 + 2);
        let line = (least + SPARE).min(room).max(least);
        // Odd, as it is at least.
        if plan.is_narrow() { line - (line - least) % 2 } else { line }
    }
}

/// The policies of an endpoint in a plan that has it with its addresses, as the tables have them.
pub(super) fn planned(binding: &Binding, plan: &Plan) -> Option<(u32, u32)> {
    let workload = binding.workload.as_ref()?;
    let known = plan.endpoints.binary_search_by(|one| one.workload.cmp(workload)).ok()?;
    let planned = &plan.endpoints[known];
    let has_all = binding.prefixes().all(|net| planned.addresses.contains(&net.addr()));
    has_all.then_some((tabled(plan, planned.egress), tabled(plan, planned.ingress)))
}

/// An endpoint policy of a plan, as the tables have it.
pub(super) fn tabled(plan: &Plan, policy: u32) -> u32 {
    let narrow = if plan.is_narrow() { EndpointPolicy::NARROW } else { 0 };
    let scattered = if plan.is_scattered() { EndpointPolicy::SCATTERED } else { 0 };
    policy | narrow | scattered
}

//! An extension of the running plan, written into the running generation.
//!
//! Invariant: a cell is written before anything leads to it: decisions, then the cells that name
//! them, then the classes of peers that nobody is, then addresses. So at every single write each
//! address is who it was or who it becomes, and is decided about accordingly. Tested in
//! `tests/extension.rs` after every write.

use std::{collections::BTreeSet, sync::Arc};

use super::{Binding, InstallError, Installer, Store};
use crate::{
    cost::{Overflow, Table},
    extension::Extension,
    plan::Plan,
};

/// Columns that a generation has beside those of its plan, if there is room.
const SPARE: usize = 256;

impl<S: Store> Installer<S> {
    /// Lets those join the running generation whom an extension has beside it, without another
    /// generation: of policy a cell for each policy of endpoints and each new class of peers, whatever
    /// the number of workloads and rules. Endpoints that are attached and that the extended plan
    /// contains are opened. Flows that the addresses had under their former peers are judged again.
    ///
    /// The extended plan is the running one afterwards. Call [`Installer::settle`] some time later; an
    /// extension that is already there may be written again, for endpoints attached since.
    ///
    /// Returns how many entries were written.
    ///
    /// # Errors
    /// The extension is of another plan than the running one, or doesn't fit: nothing was written. Or a
    /// table couldn't be written: the call may be repeated.
    pub fn extend(&mut self, extension: &Extension) -> Result<usize, InstallError<S::Error>> {
        let running = self.plan.as_ref().ok_or(InstallError::OtherPlan)?;
        let is_there = Arc::ptr_eq(running, &extension.plan);
        if !is_there && !extension.extends(running) {
            return Err(InstallError::OtherPlan);
        }
        self.check_nodes(extension.joining.iter().map(|(network, _)| *network))?;
        let written = if is_there { 0 } else { self.extend_tables(extension)? };
        Ok(written + self.join_all(extension)? + self.open(&extension.plan))
    }

    fn extend_tables(&mut self, extension: &Extension) -> Result<usize, InstallError<S::Error>> {
        let (before, plan) = (&extension.running, &extension.plan);
        plan.fits(&self.capacity)?;
        self.check_columns(plan)?;
        let new = plan.peers.iter().filter(|peer| self.numbers.of(&peer.key).is_none());
        let new: Vec<_> = new.collect();
        let numbers: Vec<u32> = self.numbers.vacant().take(new.len()).collect();
        if numbers.len() < new.len() {
            let (needed, have) = (new.len(), numbers.len());
            return Err(InstallError::PeersInTransition { needed, have });
        }
        let slot = self.store.active() & 1;
        let cells =
            self.extend_decisions(slot, before, plan) + self.extend_rows(slot, before, plan);
        for (peer, number) in new.iter().zip(&numbers) {
            self.store.set_identity(*number, peer.identity.0);
            self.store.set_peer_class(slot, *number, peer.class);
            self.numbers.name(peer.key.clone(), *number);
        }
        self.plan = Some(Arc::clone(plan));
        Ok(cells + 2 * new.len())
    }

    fn check_columns(&self, plan: &Plan) -> Result<(), Overflow> {
        let groups = plan.row.len() / plan.peer_classes as usize;
        let (needed, have) = (groups * self.columns, self.capacity.row_cells);
        if plan.peer_classes as usize <= self.columns && needed <= have {
            return Ok(());
        }
        // As another generation it would have room.
        let needed = needed.max(plan.row.len());
        let have = have.min(groups * self.columns);
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
                self.store.set_rows(slot, (group * self.columns + from) as u32, cells);
            }
            written += cells.len();
        }
        written
    }

    fn join_all(&mut self, extension: &Extension) -> Result<usize, InstallError<S::Error>> {
        let slots: Vec<(u32, Binding)> =
            self.bindings.iter().map(|(slot, binding)| (*slot, binding.clone())).collect();
        let mut written = 0;
        for (network, peer) in &extension.joining {
            let key = &extension.plan.peers[*peer as usize].key;
            let number = self.numbers.of(key).ok_or(InstallError::OtherPlan)?;
            written += self.join(network, number, &slots)?;
        }
        Ok(written)
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
    pub(super) fn columns_for(&self, plan: &Plan) -> usize {
        let width = plan.peer_classes as usize;
        let groups = plan.row.len() / width;
        let room = self.capacity.row_cells / (groups + groups / 8 + 2);
        (width + SPARE).min(room).max(width)
    }
}

/// The policies of an endpoint in a plan that has it with its addresses.
pub(super) fn planned(binding: &Binding, plan: &Plan) -> Option<(u32, u32)> {
    let workload = binding.workload.as_ref()?;
    let known = plan.endpoints.binary_search_by(|one| one.workload.cmp(workload)).ok()?;
    let planned = &plan.endpoints[known];
    let has_all = binding.prefixes().all(|net| planned.addresses.contains(&net.addr()));
    has_all.then_some((planned.egress, planned.ingress))
}

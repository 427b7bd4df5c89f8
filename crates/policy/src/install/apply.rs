//! Applying a plan: the steps of the module's header, in their order.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use flowgate_abi::{endpoint::Leaf, policy::Generation};
use flowgate_identity::{Ipcache, NumericIdentity};
use ipnet::IpNet;

use super::{GenerationHead, InstallError, Installer, Store, extend::planned};
use crate::{
    inventory::WorkloadRef,
    ipcache::{self, MOST_NODES},
    peer_key::PeerKey,
    plan::{Plan, PlannedPeer},
    shares::Share,
};

/// What became visible.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The generation's number.
    pub generation: u32,
    /// Endpoints that have a policy now.
    pub ready: Vec<WorkloadRef>,
    /// Endpoints that the plan doesn't contain, or not with their addresses: nothing passes them.
    pub closed: Vec<WorkloadRef>,
    /// Prefixes of the ipcache that were written.
    pub moved: usize,
}

/// How the addresses of one prefix change their peer.
struct Move {
    /// The peer number during the transition: in the running generation it has the class that the
    /// addresses have had so far.
    via: u32,
    /// The peer number afterwards; `None`: the prefix goes.
    last: Option<u32>,
}

/// The transition from the running tables to a plan, worked out before anything is written.
struct Transition {
    /// Number of each peer of the plan; peers of one share have one.
    numbers: Vec<u32>,
    /// Numbers that exist only during the transition, with the plan's peer that each stands for.
    passing: Vec<(u32, u32)>,
    /// Classes that new numbers get in the running generation.
    expand: BTreeMap<u32, u16>,
    /// Every prefix of the running ipcache and of the plan's.
    moves: BTreeMap<IpNet, Move>,
}

impl Transition {
    /// Each number with who it stands for.
    fn planned<'a>(&self, plan: &'a Plan) -> Vec<(&'a PlannedPeer, u32)> {
        let mut planned = self.last(plan);
        planned.extend(
            self.passing.iter().map(|(number, peer)| (&plan.peers[*peer as usize], *number)),
        );
        planned
    }

    /// The plan's peers with their numbers.
    fn last<'a>(&self, plan: &'a Plan) -> Vec<(&'a PlannedPeer, u32)> {
        plan.peers.iter().zip(self.numbers.iter().copied()).collect()
    }

    fn identities(&self, plan: &Plan) -> BTreeMap<u32, NumericIdentity> {
        let mut identities = identities(&self.last(plan));
        for (number, peer) in &self.passing {
            let last = self.numbers[*peer as usize];
            identities.insert(*number, identities[&last]);
        }
        identities
    }
}

/// The identity of each number: that of its peer, or the world's of those who share it.
pub(super) fn identities(peers: &[(&PlannedPeer, u32)]) -> BTreeMap<u32, NumericIdentity> {
    let mut identities = BTreeMap::new();
    for &(peer, number) in peers {
        identities
            .entry(number)
            .and_modify(|shared| *shared = world(&peer.key))
            .or_insert(peer.identity);
    }
    identities
}

/// The identity of networks that share a number.
const fn world(key: &PeerKey) -> NumericIdentity {
    match key.network() {
        IpNet::V4(_) => NumericIdentity::WORLD_IPV4,
        IpNet::V6(_) => NumericIdentity::WORLD_IPV6,
    }
}

/// The part of a transition that grows prefix by prefix.
struct Draft {
    /// Classes in the running generation of numbers that are in use.
    known: BTreeMap<u32, u16>,
    /// Free numbers.
    vacant: std::vec::IntoIter<u32>,
    /// Numbers for the transition alone, by the number afterwards and the class so far.
    passing: BTreeMap<(u32, u16), (u32, u32)>,
    /// Classes that new numbers get in the running generation.
    expand: BTreeMap<u32, u16>,
    /// Numbers that would have been needed and weren't free.
    missing: usize,
}

impl Draft {
    fn new<S: Store>(installer: &Installer<S>, numbers: &[u32]) -> Self {
        let slot = installer.store.active() & 1;
        let known = numbers.iter().copied().filter(|number| installer.numbers.is_used(*number));
        let taken: BTreeSet<u32> = numbers.iter().copied().collect();
        let vacant: Vec<u32> =
            installer.numbers.vacant().filter(|number| !taken.contains(number)).collect();
        Self {
            known: known.map(|number| (number, installer.store.peer_class(slot, number))).collect(),
            vacant: vacant.into_iter(),
            passing: BTreeMap::new(),
            expand: BTreeMap::new(),
            missing: 0,
        }
    }

    /// The number under which addresses move to a peer of the plan without leaving the class that
    /// they have in the running generation: the peer's own, or one for the transition.
    fn number_with(&mut self, class: u16, peer: u32, last: u32) -> u32 {
        let so_far = self.known.get(&last).or_else(|| self.expand.get(&last)).copied();
        match so_far {
            Some(known) if known == class => last,
            None => {
                self.expand.insert(last, class);
                last
            }
            Some(_) => self.passing_number(class, peer, last),
        }
    }

    fn passing_number(&mut self, class: u16, peer: u32, last: u32) -> u32 {
        if let Some((number, _)) = self.passing.get(&(last, class)) {
            return *number;
        }
        let Some(number) = self.vacant.next() else {
            self.missing += 1;
            return 0;
        };
        self.passing.insert((last, class), (number, peer));
        self.expand.insert(number, class);
        number
    }
}

impl<S: Store> Installer<S> {
    /// Publishes a plan as one generation. Packets see the old one or the new one, never a mixture.
    ///
    /// # Errors
    /// The plan doesn't fit, or has policies for a node that isn't attached, and nothing was written; or a
    /// table couldn't be written: then [`Installer::generation`] says whether the old generation runs on or
    /// the new one does.
    pub fn apply(&mut self, plan: &Arc<Plan>) -> Result<Applied, InstallError<S::Error>> {
        plan.fits(&self.capacity)?;
        self.attached_nodes(plan)?;
        let transition = self.transition(plan)?;
        self.strays = None;
        self.own(&transition.planned(plan));
        let generation = next(self.store.active());
        let (ready, closed) = self.write_generation(plan, generation, &transition);
        let moved = self.expand(plan, &transition).map_err(InstallError::Store)?;
        self.settle_grace()?;
        self.store.set_active(generation);
        self.plan = Some(Arc::clone(plan));
        self.line = self.line_for(plan);
        self.open = self.slots_of_plan(plan);
        self.settle_grace()?;
        self.contract(&transition).map_err(InstallError::Store)?;
        self.has_settled_all();
        Ok(Applied { generation, ready, closed, moved })
    }

    /// Workloads may be attached later, and are closed until then; a node would be open.
    fn attached_nodes(&self, plan: &Plan) -> Result<(), InstallError<S::Error>> {
        let bound: BTreeSet<&WorkloadRef> =
            self.bindings.values().filter_map(|binding| binding.workload.as_ref()).collect();
        let ends = plan.endpoints.iter().map(|end| &end.workload);
        match ends.filter(|end| !bound.contains(end)).find_map(WorkloadRef::as_node) {
            Some(node) => Err(InstallError::NodeNotAttached { node: Arc::clone(node) }),
            None => Ok(()),
        }
    }

    fn transition(&self, plan: &Plan) -> Result<Transition, InstallError<S::Error>> {
        let wanted: Ipcache<u32> = plan.ipcache.iter().map(|(net, peer)| (*net, *peer)).collect();
        let running = self.ipcache.iter().map(|(net, _)| net);
        let prefixes: BTreeSet<IpNet> = running.chain(plan.ipcache.iter().map(|p| p.0)).collect();
        self.check_nodes(prefixes.iter().copied())?;
        let numbers = self.number_peers(plan)?;
        let mut draft = Draft::new(self, &numbers);
        let mut moves = BTreeMap::new();
        for net in prefixes {
            let Some((_, peer)) = wanted.around(net) else { continue };
            let last = numbers[*peer as usize];
            let via = match self.class_so_far(&net, last) {
                None => last,
                Some(class) => draft.number_with(class, *peer, last),
            };
            moves.insert(net, Move { via, last: wanted.get(net).is_some().then_some(last) });
        }
        let Draft { passing, expand, missing, .. } = draft;
        if missing > 0 {
            let have = passing.len();
            return Err(InstallError::PeersInTransition { needed: have + missing, have });
        }
        Ok(Transition { numbers, passing: passing.into_values().collect(), expand, moves })
    }

    /// The class that a prefix's addresses have in the running generation, if they move at all.
    fn class_so_far(&self, net: &IpNet, last: u32) -> Option<u16> {
        let active = self.store.active();
        let peer = self.peer_at(net)?;
        if active == 0 || peer == last {
            return None;
        }
        Some(self.store.peer_class(active & 1, peer))
    }

    /// The number of each peer of a plan: one for each share, those in use going on.
    fn number_peers(&self, plan: &Plan) -> Result<Vec<u32>, InstallError<S::Error>> {
        let shares: Vec<Share> = plan.shares().collect();
        let mut numbers = self.continued(plan, &shares);
        let new: BTreeSet<Share> =
            shares.iter().filter(|share| !numbers.contains_key(*share)).copied().collect();
        let vacant: Vec<u32> = self.numbers.vacant().take(new.len()).collect();
        if vacant.len() < new.len() {
            let (needed, have) = (new.len(), vacant.len());
            return Err(InstallError::PeersInTransition { needed, have });
        }
        numbers.extend(new.into_iter().zip(vacant));
        Ok(shares.iter().map(|share| numbers[share]).collect())
    }

    /// Numbers in use that go on, each as the share that most of its keys have now; after adoption, when
    /// keys aren't known, of its prefixes. So little moves, and a restart doesn't need all numbers twice.
    fn continued(&self, plan: &Plan, shares: &[Share]) -> HashMap<Share, u32> {
        let mut votes: BTreeMap<(Share, u32), usize> = BTreeMap::new();
        for (peer, number) in self.peers_so_far(plan) {
            *votes.entry((shares[peer], number)).or_default() += 1;
        }
        let mut votes: Vec<_> = votes.into_iter().collect();
        // The sort is stable: among equals the first share.
        votes.sort_by_key(|(_, count)| Reverse(*count));
        let (mut continued, mut taken) = (HashMap::new(), BTreeSet::from([0]));
        for ((share, number), _) in votes {
            if !continued.contains_key(&share) && taken.insert(number) {
                continued.insert(share, number);
            }
        }
        continued
    }

    /// A number goes on with the owner that it had. Where none is known (tables of an earlier version), with
    /// any, unless the plan would keep connections that another owner had.
    fn may_inherit(&self, plan: &Plan, peer: u32, number: u32) -> bool {
        let owner = plan.peers[peer as usize].key.owner(self.store.settings().hash_seed);
        match self.store.owner(number) {
            0 => !plan.keep_established,
            had => had == owner,
        }
    }

    /// Peers of a plan with numbers that they have already.
    fn peers_so_far(&self, plan: &Plan) -> Vec<(usize, u32)> {
        if self.numbers.has_keys() {
            let peers = plan.peers.iter().enumerate();
            return peers
                .filter_map(|(index, peer)| Some((index, self.numbers.of(&peer.key)?)))
                .collect();
        }
        let wanted: Ipcache<u32> = plan.ipcache.iter().copied().collect();
        let prefixes = self.ipcache.iter();
        prefixes
            .filter_map(|(net, leaf)| {
                let (_, peer) = wanted.around(net)?;
                let number = self.peer_of(*leaf, matches!(net, IpNet::V6(_)))?;
                self.may_inherit(plan, *peer, number).then_some((*peer as usize, number))
            })
            .collect()
    }

    /// There are nodes for more networks, beside those that are there.
    pub(super) fn check_nodes(
        &self,
        networks: impl Iterator<Item = IpNet>,
    ) -> Result<(), InstallError<S::Error>> {
        let new: Vec<IpNet> = networks.filter(|net| self.ipcache.get(*net).is_none()).collect();
        let have = self.capacity.ipcache_nodes;
        if self.nodes.used() + MOST_NODES * new.len() <= have {
            return Ok(());
        }
        let running = self.ipcache.iter().map(|(net, _)| net);
        let both: Ipcache<()> = running.chain(new).map(|net| (net, ())).collect();
        match ipcache::nodes(&both) {
            needed if needed > have => Err(InstallError::TrieInTransition { needed, have }),
            _ => Ok(()),
        }
    }

    /// Before anything else: numbers that no address leads to get their owners. What had them before has
    /// nothing to do with these. May give the running generation another number.
    pub(super) fn own(&mut self, peers: &[(&PlannedPeer, u32)]) {
        for &(peer, number) in peers {
            let owner = peer.key.owner(self.store.settings().hash_seed);
            if self.store.owner(number) != owner {
                self.bump_epoch(number);
                self.store.set_owner(number, owner);
            }
        }
    }

    /// Step 1: the slot that no packet reads.
    fn write_generation(
        &mut self,
        plan: &Plan,
        generation: u32,
        transition: &Transition,
    ) -> (Vec<WorkloadRef>, Vec<WorkloadRef>) {
        let slot = generation & 1;
        self.store.set_generation(slot, GenerationHead::default());
        for peer in 0..self.store.settings().peers {
            self.store.set_peer_class(slot, peer, 0);
        }
        for (peer, number) in plan.peers.iter().zip(&transition.numbers) {
            self.store.set_peer_class(slot, *number, peer.class);
        }
        for (number, peer) in &transition.passing {
            self.store.set_peer_class(slot, *number, plan.peers[*peer as usize].class);
        }
        for (table, classes) in plan.port_class.iter().enumerate() {
            self.store.set_port_class(slot, table as u32, classes);
        }
        let line = self.line_for(plan);
        self.store.set_rows(slot, 0, &spread(plan, line));
        self.store.set_decision_cells(slot, 0, &plan.decision);
        self.store.set_decisions(slot, 0, &plan.decisions);
        let outcome = self.write_endpoint_policies(plan, slot);
        self.store.set_generation(slot, head(plan, generation, line));
        outcome
    }

    fn write_endpoint_policies(
        &mut self,
        plan: &Plan,
        slot: u32,
    ) -> (Vec<WorkloadRef>, Vec<WorkloadRef>) {
        let (mut ready, mut closed) = (Vec::new(), Vec::new());
        for endpoint in 0..=self.store.settings().endpoint_mask {
            let Some(binding) = self.bindings.get(&endpoint) else {
                self.store.set_endpoint_policy(slot, endpoint, 0, 0);
                continue;
            };
            let policies = planned(binding, plan);
            let none = binding.address.without_policy();
            let (egress, ingress) = policies.unwrap_or((none, none));
            self.store.set_endpoint_policy(slot, endpoint, egress, ingress);
            match policies {
                Some(_) => ready.extend(binding.workload.clone()),
                None if none == 0 => closed.extend(binding.workload.clone()),
                None => {}
            }
        }
        (ready, closed)
    }

    /// Step 2: classes first, then addresses; no verdict of the running generation changes.
    fn expand(&mut self, plan: &Plan, transition: &Transition) -> Result<usize, S::Error> {
        let running = self.store.active() & 1;
        for (number, identity) in transition.identities(plan) {
            self.store.set_identity(number, identity.0);
        }
        for (number, class) in &transition.expand {
            self.store.set_peer_class(running, *number, *class);
        }
        let keys = plan.peers.iter().map(|peer| peer.key.clone());
        self.numbers.rename(keys.zip(transition.numbers.iter().copied()).collect());
        for (number, _) in &transition.passing {
            self.numbers.occupy(*number);
        }
        let owners = self.local_prefixes();
        let moves = transition.moves.iter().map(|(net, step)| (*net, step.via));
        self.place(moves, &owners)
    }

    /// Step 4: only the new generation is read now.
    fn contract(&mut self, transition: &Transition) -> Result<(), S::Error> {
        let owners = self.local_prefixes();
        let stay = transition.moves.iter().filter_map(|(net, step)| Some((*net, step.last?)));
        self.place(stay, &owners)?;
        let go = transition.moves.iter().filter(|(_, step)| step.last.is_none());
        let go: Vec<IpNet> = go.map(|(net, _)| *net).collect();
        self.remove_prefixes(&go)?;
        for (net, slot) in go.iter().filter_map(|net| Some((net, *owners.get(net)?))) {
            self.set_endpoint_peer(slot, net, 0);
        }
        let mut keep: BTreeSet<u32> = transition.numbers.iter().copied().collect();
        keep.remove(&0);
        // The others' flows are of earlier generations. They are judged again anyhow, and remember by their
        // number whose they were.
        let passing: BTreeSet<u32> = transition.passing.iter().map(|(number, _)| *number).collect();
        for peer in self.numbers.retire(&keep).into_iter().filter(|peer| passing.contains(peer)) {
            self.bump_epoch(peer);
        }
        Ok(())
    }

    /// Which slot owns a whole address.
    pub(super) fn local_prefixes(&self) -> HashMap<IpNet, u32> {
        let slots = self.bindings.iter();
        slots.flat_map(|(slot, binding)| binding.prefixes().map(|net| (net, *slot))).collect()
    }

    /// Gives prefixes their peers: through its endpoint if it is a local one's. Returns how many had
    /// others.
    fn place(
        &mut self,
        prefixes: impl Iterator<Item = (IpNet, u32)>,
        owners: &HashMap<IpNet, u32>,
    ) -> Result<usize, S::Error> {
        let mut moved = Vec::new();
        for (net, peer) in prefixes {
            let leaf = match owners.get(&net) {
                Some(slot) => {
                    self.set_endpoint_peer(*slot, &net, peer);
                    Leaf::endpoint(*slot)
                }
                None => Leaf::peer(peer),
            };
            if self.ipcache.get(net) != Some(&leaf) {
                moved.push((net, leaf));
            }
        }
        self.set_prefixes(&moved)?;
        Ok(moved.len())
    }

    pub(super) fn set_endpoint_peer(&mut self, slot: u32, net: &IpNet, peer: u32) {
        let row = self.store.endpoint(slot);
        match net {
            IpNet::V4(_) => self.store.set_endpoint_peers(slot, peer, row.peer6),
            IpNet::V6(_) => self.store.set_endpoint_peers(slot, row.peer4, peer),
        }
    }
}

/// The head of a plan's generation, whose groups of rows lie so far apart.
fn head(plan: &Plan, number: u32, line: usize) -> GenerationHead {
    let flags = if plan.keep_established { Generation::KEEP_ESTABLISHED } else { 0 };
    let flags = Generation::with_columns(flags, plan.tail() as u16);
    GenerationHead { number, line: line as u32, step: plan.step, flags }
}

/// The row cells of a plan, with so many for each group; those that are spare lead to row 0.
fn spread(plan: &Plan, line: usize) -> Vec<u16> {
    let groups = plan.row.chunks(plan.peer_classes as usize);
    let mut cells = vec![0; groups.len() * line];
    for (cells, group) in cells.chunks_mut(line).zip(groups) {
        cells[..group.len()].copy_from_slice(group);
    }
    for (group, cells) in cells.chunks_mut(line).enumerate() {
        cells[line - plan.tail()..].copy_from_slice(&plan.end_of_line(group));
    }
    cells
}

/// The generation after another; never 0.
const fn next(generation: u32) -> u32 {
    match generation.wrapping_add(1) {
        0 => 2,
        next => next,
    }
}

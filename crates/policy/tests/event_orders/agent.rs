//! An agent over flowgate's parts, as small as it can be.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use flowgate_abi::endpoint::Endpoint;
use flowgate_conformance::{attended::Attended, generate::Case, room};
use flowgate_identity::LocalAllocator;
use flowgate_policy::{
    compile::Compiler,
    host::HostTables,
    install::{EndpointAddress, Installer},
    inventory::{Workload, WorkloadRef},
    plan::Plan,
    roster::Roster,
};

use crate::{
    history::{HERE, of_node, options},
    verdicts::{Watch, World},
};

/// What the agent knows, and the tables in which it has put it.
pub(crate) struct Agent {
    installer: Installer<Attended<HostTables, Watch>>,
    /// The state that the running generation is of, and who has joined it; `None`: not known (any more).
    running: Option<(Case, Roster)>,
    /// What is true, whatever the agent knows.
    world: World,
    interfaces: u32,
    pub(crate) placed: usize,
    pub(crate) removed: usize,
    pub(crate) applied: usize,
}

impl Agent {
    pub(crate) fn start(watch: Watch) -> Self {
        let store = Attended::with(room::tables(), watch);
        let mut agent = Self {
            installer: Installer::adopt(store).expect("host tables"),
            running: None,
            world: World::default(),
            interfaces: 0,
            placed: 0,
            removed: 0,
            applied: 0,
        };
        agent.attach(&WorkloadRef::node(HERE), &of_node());
        agent
    }

    /// The process is killed, and another one takes over what is in the tables, and the node's links.
    pub(crate) fn restart(self) -> Self {
        let installer = Installer::adopt(self.installer.into_store()).expect("host tables");
        let mut next = Self { installer, running: None, ..self };
        let links: Vec<_> = next.installer.bindings().map(|(_, b)| b.address).collect();
        for address in links {
            let own = next
                .world
                .links
                .iter()
                .find(|(_, own)| address.prefixes().all(|prefix| own.contains(&prefix.addr())));
            let id = own.expect("a link of the node's").0.clone();
            next.installer.attach(id, address).expect("it is there");
        }
        next.settled();
        next
    }

    /// A pod's link has come, or the node's uplink.
    pub(crate) fn attach(&mut self, id: &WorkloadRef, addresses: &[IpAddr]) {
        let mut after = self.world.clone();
        after.links.insert(id.clone(), addresses.to_vec());
        self.step(after);
        for (v4, v6) in EndpointAddress::pairs(addresses) {
            self.interfaces += 1;
            let ifindex = 100 + self.interfaces;
            let flags = if id.as_node().is_some() { Endpoint::NODE } else { 0 };
            let address = EndpointAddress { ifindex, v4, v6, flags, ..EndpointAddress::default() };
            let own = address.prefixes().map(|prefix| (prefix.addr(), ifindex));
            self.installer.store_mut().attendant.interfaces.extend(own);
            self.installer.attach(id.clone(), address).expect("room");
        }
        self.settled();
        let known =
            |(state, _): &(Case, Roster)| state.inventory.workloads.iter().any(|p| p.id == *id);
        if let Some((state, _)) = self.running.take_if(|running| known(running)) {
            self.apply(state);
        }
    }

    /// A pod's link has gone.
    pub(crate) fn detach(&mut self, id: &WorkloadRef) {
        let mut after = self.world.clone();
        let addresses = after.links.remove(id).expect("a link of the node's");
        if after.known.remove(id) {
            after.vacant.extend(&addresses);
        }
        self.step(after);
        let interfaces = &mut self.installer.store_mut().attendant.interfaces;
        interfaces.retain(|address, _| !addresses.contains(address));
        let slots = self.installer.bindings().filter(|(_, b)| b.workload.as_ref() == Some(id));
        let slots: Vec<u32> = slots.map(|(slot, _)| slot).collect();
        self.installer.detach(&slots).expect("host tables");
        self.settled();
    }

    /// The next state is known.
    pub(crate) fn advance(&mut self, state: Case) {
        let now = self.running.as_ref().map(|(now, _)| now);
        let joining = now.and_then(|now| more(now, &state));
        let leaving = now.and_then(|now| more(&state, now));
        if joining.is_some_and(|pods| self.place(&state, &pods)) {
            return;
        }
        match leaving {
            Some(pods) => self.remove(&state, &pods),
            None => self.apply(state),
        }
    }

    /// Compiles and applies.
    fn apply(&mut self, state: Case) {
        let mut compiler = Compiler::new(LocalAllocator::new());
        let plan = compiler.compile(&state.inventory, &state.policies, &options());
        let plan: Arc<Plan> = Arc::new(plan.expect("a sound state"));
        let mut after = World { state: Some(state.clone()), ..self.world.clone() };
        after.known = after.links.keys().cloned().collect();
        after.vacant = BTreeSet::new();
        self.step(after);
        let _ = self.installer.apply(&plan).expect("fits");
        self.running = Some((state, Roster::new(&plan)));
        self.applied += 1;
        self.settled();
    }

    /// Lets pods join the running generation. `false`: one is unlike all that it knows.
    fn place(&mut self, state: &Case, pods: &[Workload]) -> bool {
        let Some((_, roster)) = &mut self.running else { return false };
        let labels = |pod: &Workload| state.inventory.namespace_labels(&pod.id.namespace);
        let placements: Result<Vec<_>, _> =
            pods.iter().map(|pod| roster.add(pod, &labels(pod))).collect();
        let Ok(placements) = placements else { return false };
        let mut after = World { state: Some(state.clone()), ..self.world.clone() };
        let linked = pods.iter().filter(|pod| after.links.contains_key(&pod.id));
        after.known.extend(linked.map(|pod| pod.id.clone()).collect::<Vec<_>>());
        after.vacant.retain(|address| pods.iter().all(|pod| !pod.addresses.contains(address)));
        self.step(after);
        for placement in &placements {
            self.installer.add(placement).expect("room");
        }
        self.installer.settle().expect("host tables");
        self.placed += placements.len();
        if let Some((running, _)) = &mut self.running {
            running.clone_from(state);
        }
        self.settled();
        true
    }

    /// Has pods leave the running generation.
    fn remove(&mut self, state: &Case, pods: &[Workload]) {
        let mut after = World { state: Some(state.clone()), ..self.world.clone() };
        after.known.retain(|id| pods.iter().all(|pod| pod.id != *id));
        self.step(after);
        for pod in pods {
            let mut rosters = self.running.iter_mut().map(|(_, roster)| roster);
            // A pod on its node's network isn't one of the roster, and its addresses stay the node's.
            if rosters.any(|roster| roster.remove(&pod.id, &pod.addresses)) {
                self.installer.remove(&pod.id, &pod.addresses).expect("host tables");
            }
        }
        self.installer.settle().expect("host tables");
        self.running.iter_mut().for_each(|(running, _)| running.clone_from(state));
        self.removed += pods.len();
        self.settled();
    }

    /// Something is about to change.
    fn step(&mut self, after: World) {
        let watch = &mut self.installer.store_mut().attendant;
        watch.between(&self.world, &after);
        self.world = after;
    }

    /// It has changed.
    fn settled(&mut self) {
        let (tables, watch) = self.installer.store_mut().parts();
        watch.settled(tables, &self.world);
    }

    /// It has come to this state.
    pub(crate) fn is_at(&self, state: &Case) {
        let by_name = |case: &Case| {
            let mut case = case.clone();
            case.inventory.workloads.sort_by(|a, b| a.id.cmp(&b.id));
            case.policies.sort_by(|a, b| a.id.cmp(&b.id));
            case.inventory.nodes.sort_by(|a, b| a.name.cmp(&b.name));
            case
        };
        let running = self.running.as_ref().map(|(running, _)| by_name(running));
        assert_eq!(running, Some(by_name(state)));
    }

    /// To addresses whose link went under a process that had taken it over nothing passes until the next plan.
    pub(crate) fn fill_vacancies(&mut self) {
        if self.world.vacant.is_empty() {
            return;
        }
        if let Some((state, _)) = self.running.take() {
            self.apply(state);
        }
    }

    pub(crate) fn denied_at_node(&self) -> usize {
        let store = self.installer.store();
        store.attendant.denied_at_node(store.tables())
    }

    pub(crate) fn decisions(&self) -> Vec<bool> {
        let store = self.installer.store();
        store.attendant.decisions(store.tables())
    }
}

/// The pods by which a state is more than another one; `None`: it differs otherwise.
fn more(before: &Case, after: &Case) -> Option<Vec<Workload>> {
    let (then, now) = (&before.inventory, &after.inventory);
    let known = |id: &WorkloadRef| then.workloads.iter().find(|pod| pod.id == *id);
    let (old, new): (Vec<_>, Vec<_>) =
        now.workloads.iter().cloned().partition(|pod| known(&pod.id).is_some());
    let same =
        old.len() == then.workloads.len() && old.iter().all(|pod| known(&pod.id) == Some(pod));
    let policies = before.policies.len() == after.policies.len()
        && after.policies.iter().all(|policy| before.policies.contains(policy));
    let nodes = then.nodes.len() == now.nodes.len()
        && now.nodes.iter().all(|node| then.nodes.contains(node));
    (same && policies && nodes && then.namespaces == now.namespaces).then_some(new)
}

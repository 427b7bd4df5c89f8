//! The census: workloads, nodes and namespaces as they are now, each found once.
//!
//! Not here: peers, which depend on the networks that policies name ([`super::population`]).
//! Invariant: a workload's kind and named ports are those of its present labels, its namespace's
//! present labels and its present ports.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use flowgate_identity::Labels;

use crate::{
    compile::{
        error::{CompileError, Owner},
        interned::Interned,
        kinds::{KindId, Kinds, NamespaceId},
    },
    inventory::{Inventory, Node, Workload, WorkloadRef},
    options::Options,
    peer_key::NamedPorts,
};

/// A number of a set of named ports.
pub(super) type PortsId = u32;
/// A number of a node with its labels.
pub(super) type NodeId = u32;

/// Whose an address is, as far as policies can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    /// A workload of that kind, with those named ports.
    Workload(KindId, PortsId),
    /// A node, or a host-network workload on it.
    Node(NodeId),
}

/// What all that declare no named ports have.
pub(super) const NO_PORTS: PortsId = 0;

/// A node at which policies may be enforced here.
#[derive(Clone, Debug)]
pub(super) struct Station {
    pub(super) name: Arc<str>,
    pub(super) labels: Labels,
    /// In the node's order, then those of its host-network workloads.
    pub(super) addresses: Vec<IpAddr>,
}

/// A workload with an address of its own.
#[derive(Clone, Debug)]
pub(super) struct Resident {
    pub(super) workload: Workload,
    pub(super) kind: KindId,
    pub(super) ports: PortsId,
    /// Its kind among those that have endpoints, if it is an endpoint.
    pub(super) subject: Option<KindId>,
}

/// Who there is.
#[derive(Clone, Debug)]
pub(super) struct Census {
    options: Options,
    namespaces: BTreeMap<Arc<str>, Labels>,
    nodes: BTreeMap<Arc<str>, Node>,
    residents: BTreeMap<WorkloadRef, Resident>,
    /// Host-network workloads, and those that have no address yet.
    others: BTreeMap<WorkloadRef, Workload>,
    /// Kinds of all workloads.
    pub(super) kinds: Kinds,
    /// Kinds of endpoints alone: what policies apply to.
    pub(super) subjects: Kinds,
    /// The namespaces as they are labelled now, among all kinds and among those of endpoints.
    present: HashMap<Arc<str>, [Option<NamespaceId>; 2]>,
    pub(super) ports: Interned<NamedPorts>,
    pub(super) node_states: Interned<(Arc<str>, Labels)>,
}

impl Census {
    pub(super) fn new(options: Options) -> Self {
        let mut ports = Interned::default();
        ports.intern(&NamedPorts::default());
        Self {
            options,
            namespaces: BTreeMap::new(),
            nodes: BTreeMap::new(),
            residents: BTreeMap::new(),
            others: BTreeMap::new(),
            kinds: Kinds::default(),
            subjects: Kinds::default(),
            present: HashMap::new(),
            ports,
            node_states: Interned::default(),
        }
    }

    /// Takes over an inventory, in which nothing may be twice.
    pub(super) fn fill(&mut self, inventory: &Inventory) -> Result<(), CompileError> {
        for (name, labels) in &inventory.namespaces {
            self.set_namespace(name, Some(labels.clone()));
        }
        for node in &inventory.nodes {
            if self.nodes.insert(node.name.clone(), node.clone()).is_some() {
                return Err(CompileError::DuplicateNode { node: node.name.clone() });
            }
        }
        for workload in &inventory.workloads {
            if self.workload(&workload.id).is_some() {
                return Err(CompileError::DuplicateWorkload { workload: workload.id.clone() });
            }
            self.set_workload(workload.clone());
        }
        Ok(())
    }

    pub(super) const fn options(&self) -> &Options {
        &self.options
    }

    /// The workloads with an address of their own, sorted by name.
    pub(super) fn residents(&self) -> impl Iterator<Item = &Resident> {
        self.residents.values()
    }

    /// A workload, whether or not it has an address of its own.
    pub(super) fn workload(&self, name: &WorkloadRef) -> Option<&Workload> {
        self.residents.get(name).map(|one| &one.workload).or_else(|| self.others.get(name))
    }

    /// Adds a workload, or puts it in the place of the one of that name.
    pub(super) fn set_workload(&mut self, workload: Workload) {
        self.remove_workload(&workload.id);
        let name = workload.id.clone();
        if workload.host_network || workload.addresses.is_empty() {
            self.others.insert(name, workload);
        } else {
            let resident = self.settle(workload);
            self.residents.insert(name, resident);
        }
    }

    pub(super) fn remove_workload(&mut self, name: &WorkloadRef) -> Option<Workload> {
        let resident = self.residents.remove(name).map(|resident| resident.workload);
        resident.or_else(|| self.others.remove(name))
    }

    fn settle(&mut self, workload: Workload) -> Resident {
        let local = self.options.local_node.as_ref();
        let is_endpoint = self.options.endpoints.contains(workload.node.as_ref(), local);
        let namespace = &workload.id.namespace;
        let kind = self.namespace(namespace, false);
        let kind = self.kinds.intern(kind, &workload.labels);
        let subject = is_endpoint.then(|| self.namespace(namespace, true));
        let subject = subject.map(|id| self.subjects.intern(id, &workload.labels));
        let ports = self.ports.intern(&NamedPorts::of(&workload));
        Resident { kind, ports, subject, workload }
    }

    /// The present number of a namespace, among all kinds or among those of endpoints.
    fn namespace(&mut self, name: &Arc<str>, of_endpoints: bool) -> NamespaceId {
        let known = self.present.get(name).and_then(|ids| ids[usize::from(of_endpoints)]);
        if let Some(known) = known {
            return known;
        }
        let labels = Inventory::labels_among(&self.namespaces, name);
        let kinds = if of_endpoints { &mut self.subjects } else { &mut self.kinds };
        let id = kinds.namespace(name, &labels);
        self.present.entry(name.clone()).or_default()[usize::from(of_endpoints)] = Some(id);
        id
    }

    /// Labels a namespace, known or not; its workloads become others. `None`: it has no labels but its
    /// name.
    pub(super) fn set_namespace(&mut self, name: &Arc<str>, labels: Option<Labels>) {
        match labels {
            Some(labels) => self.namespaces.insert(name.clone(), labels),
            None => self.namespaces.remove(name),
        };
        self.present.remove(name);
        let first = WorkloadRef { namespace: name.clone(), name: "".into() };
        let inside = self.residents.range(first..).take_while(|(id, _)| id.namespace == *name);
        let inside: Vec<Workload> = inside.map(|(_, one)| one.workload.clone()).collect();
        inside.into_iter().for_each(|workload| self.set_workload(workload));
    }

    pub(super) fn set_node(&mut self, node: Node) {
        self.nodes.insert(node.name.clone(), node);
    }

    pub(super) fn remove_node(&mut self, name: &Arc<str>) -> bool {
        self.nodes.remove(name).is_some()
    }

    /// By kind of endpoint: there is one.
    pub(super) fn subjects_there(&self) -> Vec<bool> {
        let mut there = vec![false; self.subjects.len() as usize];
        for kind in self.residents.values().filter_map(|resident| resident.subject) {
            there[kind as usize] = true;
        }
        there
    }

    /// The nodes that have an address and whose policies are enforced here, sorted by name.
    pub(super) fn stations(&self) -> Vec<Station> {
        let local = self.options.local_node.as_ref();
        let here = |name: &Arc<str>| self.options.endpoints.contains(Some(name), local);
        let nodes =
            self.node_addresses().into_iter().filter(|(name, all)| here(name) && !all.is_empty());
        nodes.map(|(name, all)| self.station(name, &all)).collect()
    }

    fn station(&self, name: Arc<str>, all: &BTreeSet<IpAddr>) -> Station {
        let node = self.nodes.get(&name);
        let mut addresses = node.map_or_else(Vec::new, |node| node.addresses.clone());
        let own: BTreeSet<IpAddr> = addresses.iter().copied().collect();
        addresses.extend(all.difference(&own));
        let labels = node.map_or_else(Labels::new, |node| node.labels.clone());
        Station { name, labels, addresses }
    }

    /// The same, and nothing remembered of what was.
    pub(super) fn renewed(&self) -> Self {
        let mut census = Self {
            namespaces: self.namespaces.clone(),
            nodes: self.nodes.clone(),
            others: self.others.clone(),
            ..Self::new(self.options.clone())
        };
        for resident in self.residents.values() {
            census.set_workload(resident.workload.clone());
        }
        census
    }

    /// Everything as an inventory.
    pub(super) fn inventory(&self) -> Inventory {
        let residents = self.residents.values().map(|one| &one.workload);
        Inventory {
            namespaces: self.namespaces.clone(),
            workloads: residents.chain(self.others.values()).cloned().collect(),
            nodes: self.nodes.values().cloned().collect(),
        }
    }

    /// Who holds each address; sorted, no address twice.
    ///
    /// # Errors
    /// [`CompileError::SharedAddress`].
    pub(super) fn holders(&mut self) -> Result<Vec<(IpAddr, Holder)>, CompileError> {
        let mut held = Vec::with_capacity(self.residents.len());
        for (name, addresses) in self.node_addresses() {
            let labels = self.nodes.get(&name).map_or_else(Labels::new, |node| node.labels.clone());
            let node = Holder::Node(self.node_states.intern(&(name.clone(), labels)));
            held.extend(addresses.into_iter().map(|a| (a, node, Owner::Node(name.clone()))));
        }
        for Resident { workload, kind, ports, .. } in self.residents.values() {
            if workload.id.as_node().is_some() {
                return Err(CompileError::NoNamespace { name: workload.id.name.clone() });
            }
            let holder = Holder::Workload(*kind, *ports);
            let owner = || Owner::Workload(workload.id.clone());
            held.extend(workload.addresses.iter().map(|&address| (address, holder, owner())));
        }
        // Stable: of two owners the one that came first is named first.
        held.sort_by_key(|(address, ..)| *address);
        for pair in held.windows(2) {
            let ((address, _, first), (other, _, second)) = (&pair[0], &pair[1]);
            if address == other && first != second {
                let (first, second) = (first.clone(), second.clone());
                return Err(CompileError::SharedAddress { address: *address, first, second });
            }
        }
        held.dedup_by_key(|(address, ..)| *address);
        Ok(held.into_iter().map(|(address, holder, _)| (address, holder)).collect())
    }

    /// Nodes by name, with the addresses of the host-network workloads on them.
    fn node_addresses(&self) -> BTreeMap<Arc<str>, BTreeSet<IpAddr>> {
        let named = self.nodes.values();
        let mut nodes: BTreeMap<Arc<str>, BTreeSet<IpAddr>> = named
            .map(|node| (node.name.clone(), node.addresses.iter().copied().collect()))
            .collect();
        for workload in self.others.values().filter(|workload| workload.host_network) {
            if let Some(node) = &workload.node {
                nodes.entry(node.clone()).or_default().extend(&workload.addresses);
            }
        }
        nodes
    }
}

//! Workloads that come between two compilations: placed in the running plan, without a new one.
//!
//! A plan decides by combinations, not by names: namespace and its labels, own labels, named ports,
//! node, and the networks that policies name. A workload whose combination the plan has already met
//! changes no table of policy; its addresses join the peers of that combination. This is a constant
//! number of writes, whatever the number of workloads and rules
//! ([`Installer::add`](crate::install::Installer::add)).
//!
//! Not here: combinations that the plan doesn't know. They need a compilation, and say so.
//! Invariant: a placed workload is decided about exactly as in a plan that was compiled with it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use flowgate_identity::{Ipcache, Labels};
use ipnet::IpNet;
use thiserror::Error;

use crate::{
    inventory::{Workload, WorkloadRef},
    peer_key::{NamedPorts, PeerKey},
    plan::{Plan, PlannedEndpoint},
};

/// Why a workload can't be placed. Nothing has changed then.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlaceError {
    /// The plan hasn't met its combination: compile a plan with it.
    #[error("the plan knows no workload like {workload}: {what}; compile a plan with it")]
    Unknown {
        /// The workload.
        workload: WorkloadRef,
        /// What is new about it.
        what: Novelty,
    },
    /// There is a workload of that name already.
    #[error("workload {workload} is there already")]
    Duplicate {
        /// The name.
        workload: WorkloadRef,
    },
    /// One of its addresses has an owner already.
    #[error("{address} of {workload} has an owner already")]
    SharedAddress {
        /// The address.
        address: IpAddr,
        /// The workload.
        workload: WorkloadRef,
    },
    /// It has no address of its own: it is its node, or has none yet.
    #[error("workload {workload} has no address of its own")]
    NoAddress {
        /// The workload.
        workload: WorkloadRef,
    },
}

/// What is new about a combination.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Novelty {
    /// Its labels, its namespace's labels, its named ports or its node.
    #[error("its labels, its namespace, its named ports or its node are new")]
    Combination,
    /// An address of such a workload in that network.
    #[error("none like it has an address in {0}")]
    Network(IpNet),
}

/// A workload's place in a plan.
#[derive(Clone, Debug)]
pub struct Placement {
    pub(crate) plan: Arc<Plan>,
    pub(crate) endpoint: PlannedEndpoint,
    /// Each address with its peer: an index into the plan's peers.
    pub(crate) peers: Vec<(IpAddr, u32)>,
}

impl Placement {
    /// The endpoint, as the plan would have it. Both policies are 0 if the plan has none for such a workload:
    /// it is on another node, and a peer alone.
    #[must_use]
    pub const fn endpoint(&self) -> &PlannedEndpoint {
        &self.endpoint
    }

    /// The plan has an endpoint for such a workload.
    pub(crate) fn is_here(&self) -> bool {
        (self.endpoint.egress, self.endpoint.ingress) != ELSEWHERE
    }
}

/// What is decided about a combination: egress and ingress policy.
type Policies = (u32, u32);

/// Of a workload for which the plan has no endpoint: nothing.
const ELSEWHERE: Policies = (0, 0);

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    Node,
    Workload(WorkloadRef),
    /// A workload's for which the plan has no endpoint, and so no name.
    Elsewhere,
}

/// Labels, named ports and node of workloads that nothing tells apart, but for their addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Combination {
    namespace: Arc<str>,
    namespace_labels: Labels,
    labels: Labels,
    ports: NamedPorts,
    node: Option<Arc<str>>,
}

/// Who is in a plan, and who has joined it since; made once for each plan.
///
/// ```
/// # use flowgate_identity::{Labels, LocalAllocator};
/// # use flowgate_policy::{compile::Compiler, inventory::*, options::Options, roster::Roster};
/// # let workload = |name: &str, address: &str| Workload {
/// #     id: WorkloadRef { namespace: "shop".into(), name: name.into() },
/// #     labels: Labels::from_iter([("app", "web")]),
/// #     addresses: vec![address.parse().unwrap()],
/// #     ports: vec![],
/// #     node: None,
/// #     host_network: false,
/// # };
/// let inventory = Inventory { workloads: vec![workload("web-0", "198.18.0.1")], ..Default::default() };
/// let plan = Compiler::new(LocalAllocator::new()).compile(&inventory, &[], &Options::default())?;
/// let mut roster = Roster::new(&plan.into());
/// let second = workload("web-1", "198.18.0.2");
/// let placement = roster.add(&second, &inventory.namespace_labels(&second.id.namespace))?;
/// assert_eq!(placement.endpoint().workload, second.id);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Roster {
    plan: Arc<Plan>,
    /// The networks that policies name.
    networks: Ipcache<()>,
    policies: HashMap<Combination, Policies>,
    workloads: HashSet<WorkloadRef>,
    owned: BTreeMap<IpAddr, Owner>,
}

impl Roster {
    /// Those whom a plan was compiled with.
    #[must_use]
    pub fn new(plan: &Arc<Plan>) -> Self {
        let named = plan.networks.iter().flat_map(|(_, networks)| networks).copied();
        let routes = plan.ipcache.iter().map(|(network, _)| *network);
        let routes = routes.filter(|network| network.prefix_len() == 0);
        let mut roster = Self {
            plan: Arc::clone(plan),
            networks: named.chain(routes).map(|network| (network, ())).collect(),
            policies: HashMap::new(),
            workloads: HashSet::new(),
            owned: BTreeMap::new(),
        };
        for endpoint in &plan.endpoints {
            roster.note(endpoint);
        }
        for (network, peer) in &plan.ipcache {
            let address = network.addr();
            match plan.peers.get(*peer as usize).map(|peer| &peer.key) {
                // Also if the node is an endpoint: it doesn't leave as workloads do.
                Some(PeerKey::Node { .. }) => drop(roster.owned.insert(address, Owner::Node)),
                Some(PeerKey::Workload { .. }) => {
                    roster.owned.entry(address).or_insert(Owner::Elsewhere);
                }
                _ => {}
            }
        }
        roster
    }

    fn note(&mut self, endpoint: &PlannedEndpoint) {
        self.workloads.insert(endpoint.workload.clone());
        for &address in &endpoint.addresses {
            self.owned.insert(address, Owner::Workload(endpoint.workload.clone()));
        }
        let Some(peer) = endpoint.peer4.or(endpoint.peer6) else { return };
        let PeerKey::Workload { namespace, namespace_labels, labels, ports, .. } =
            &self.plan.peers[peer as usize].key
        else {
            return;
        };
        let combination = Combination {
            namespace: namespace.clone(),
            namespace_labels: namespace_labels.clone(),
            labels: labels.clone(),
            ports: ports.clone(),
            node: endpoint.node.clone(),
        };
        self.policies.insert(combination, (endpoint.egress, endpoint.ingress));
    }

    /// Places a workload; it counts as one of the roster from now on. `namespace_labels` are those of
    /// its namespace ([`Inventory::namespace_labels`](crate::inventory::Inventory::namespace_labels)).
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn add(
        &mut self,
        workload: &Workload,
        namespace_labels: &Labels,
    ) -> Result<Placement, PlaceError> {
        self.check(workload)?;
        let placement = self.place(workload, namespace_labels)?;
        self.workloads.insert(workload.id.clone());
        for &address in &workload.addresses {
            self.owned.insert(address, Owner::Workload(workload.id.clone()));
        }
        Ok(placement)
    }

    /// Forgets a workload. `false`: there was none of that name, and the addresses are nobody's or others'.
    ///
    /// A plan for one node has no names of the workloads on others: of these the address says that there is
    /// one.
    pub fn remove(&mut self, workload: &WorkloadRef, addresses: &[IpAddr]) -> bool {
        let mut known = self.workloads.remove(workload);
        for address in addresses {
            let is_theirs = match self.owned.get(address) {
                Some(Owner::Workload(owner)) => owner == workload,
                Some(Owner::Elsewhere) => true,
                Some(Owner::Node) | None => false,
            };
            if is_theirs {
                self.owned.remove(address);
                known = true;
            }
        }
        known
    }

    fn check(&self, workload: &Workload) -> Result<(), PlaceError> {
        let name = || workload.id.clone();
        if self.workloads.contains(&workload.id) {
            return Err(PlaceError::Duplicate { workload: name() });
        }
        if workload.host_network || workload.addresses.is_empty() {
            return Err(PlaceError::NoAddress { workload: name() });
        }
        match workload.addresses.iter().find(|address| self.owned.contains_key(address)) {
            Some(&address) => Err(PlaceError::SharedAddress { address, workload: name() }),
            None => Ok(()),
        }
    }

    fn place(&self, workload: &Workload, labels: &Labels) -> Result<Placement, PlaceError> {
        let unknown = |what| PlaceError::Unknown { workload: workload.id.clone(), what };
        let combination = Combination {
            namespace: workload.id.namespace.clone(),
            namespace_labels: labels.clone(),
            labels: workload.labels.clone(),
            ports: NamedPorts::of(workload),
            node: workload.node.clone(),
        };
        let known = match self.is_here(workload) {
            true => self.policies.get(&combination).copied(),
            false => Some(ELSEWHERE),
        };
        let (egress, ingress) = known.ok_or_else(|| unknown(Novelty::Combination))?;
        let mut peers = Vec::with_capacity(workload.addresses.len());
        for &address in &workload.addresses {
            let network = self.network(address);
            let peer = self.peer(&combination, network);
            peers.push((address, peer.ok_or_else(|| unknown(Novelty::Network(network)))?));
        }
        let first = |v4: bool| peers.iter().find(|(a, _)| a.is_ipv4() == v4).map(|(_, peer)| *peer);
        let endpoint = PlannedEndpoint {
            workload: workload.id.clone(),
            addresses: workload.addresses.clone(),
            peer4: first(true),
            peer6: first(false),
            node: workload.node.clone(),
            egress,
            ingress,
        };
        Ok(Placement { plan: Arc::clone(&self.plan), endpoint, peers })
    }

    fn is_here(&self, workload: &Workload) -> bool {
        let Plan { scope, local_node, .. } = &*self.plan;
        scope.contains(workload.node.as_ref(), local_node.as_ref())
    }

    /// The longest network that policies name around an address, or the default route.
    fn network(&self, address: IpAddr) -> IpNet {
        self.networks.lookup(address).map_or(IpNet::from(address), |(network, ())| network)
    }

    fn peer(&self, combination: &Combination, network: IpNet) -> Option<u32> {
        let key = PeerKey::Workload {
            namespace: combination.namespace.clone(),
            namespace_labels: combination.namespace_labels.clone(),
            labels: combination.labels.clone(),
            ports: combination.ports.clone(),
            network,
        };
        let found = self.plan.peers.binary_search_by(|peer| peer.key.cmp(&key)).ok()?;
        u32::try_from(found).ok()
    }
}

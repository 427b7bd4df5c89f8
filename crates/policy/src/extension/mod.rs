//! A plan that knows others than the running one and decides about all whom both know as that one
//! does: the same in the running one's numbers, so that what is new is all that has to be written.
//!
//! A workload of a combination that nobody has met adds a peer; if rules tell it apart from everybody
//! else, a class, which is a column of the rows; if it is an endpoint with policies of its own, a
//! group of rows. Numbers that are there stay what they are, and those of who has left stay empty. A
//! plan for which this can't be says so, and is applied as a generation of its own.
//!
//! Not here: writing it ([`Installer::extend`](crate::install::Installer::extend)).
//! Invariant: the extended plan decides about every flow as the plan that it was made of, and each
//! cell of the running plan is in it unchanged. Tested over generated cases (`tests/extension.rs`).

mod delta;
mod matched;
mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowgate_abi::policy::PortTable;
use ipnet::IpNet;
use thiserror::Error;

use crate::{
    cost::Cost,
    inventory::WorkloadRef,
    peer_key::PeerKey,
    plan::{Plan, PlannedEndpoint, PlannedPeer},
};
pub(crate) use delta::Delta;
use matched::Matched;
use rows::Rows;

/// Why a plan can't extend the running one: apply it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotAnExtension {
    /// It was made for another node.
    #[error("the plan is another node's; apply it")]
    LocalNode,
    /// It keeps established flows, and the running one doesn't, or the other way round.
    #[error("the plans differ in `keep_established`; apply it")]
    KeepEstablished,
    /// The rows of one of the plans lie in one another's gaps
    /// ([`Options::narrow_cells`](crate::options::Options::narrow_cells)), where none can be added.
    #[error("the plan is scattered, or the running one; apply it")]
    Scattered,
    /// Policies select a node that they don't select in the running plan, or not any more: what it
    /// has let through so far has to be judged again.
    #[error("policies begin or cease to select node {node}; apply the plan")]
    Node {
        /// The node.
        node: Arc<str>,
    },
    /// Policies name a network that the running plan doesn't know, or not any more.
    #[error("policies name {network} in one of the plans alone; apply the plan")]
    Network {
        /// The network.
        network: IpNet,
    },
    /// Rules tell services apart that are one to the running plan (in a narrow one: to an endpoint's
    /// policies), as where the first peer joins whom rules let use a port that nobody was let use before. A
    /// class of services is a cell of every row of decisions, and these lie side by side: another one moves
    /// them all, which takes a generation.
    #[error("port {port} of {table:?} is told apart from others, which is new; apply the plan")]
    Service {
        /// The port table.
        table: PortTable,
        /// Port (host byte order), ICMP type or protocol, as the port table has it.
        port: u16,
    },
    /// Rules tell peers apart that are one to the running plan.
    #[error("peers inside {network} are told apart, which is new; apply the plan")]
    Peers {
        /// The longest network that policies name around one of the peers.
        network: IpNet,
    },
    /// An endpoint's policies differ from those that it has in the running plan, or from those of
    /// endpoints that share them there.
    #[error("the policies of {workload} are others; apply the plan")]
    Policies {
        /// The endpoint.
        workload: WorkloadRef,
    },
    /// More numbers are needed than the tables have.
    #[error("there are no numbers left for what is new; apply the plan")]
    Numbers,
}

/// A plan in the numbers of the running one, of which it says nothing else.
#[derive(Clone, Debug)]
pub struct Extension {
    pub(crate) running: Arc<Plan>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) cost: Cost,
    /// What is new in it, so that writing it looks at nothing else.
    pub(crate) delta: Delta,
}

impl Extension {
    /// What of `next` the running plan lacks. Workloads may have come, gone, or have got other
    /// addresses; about those that stay nothing may be decided otherwise.
    ///
    /// It takes time in proportion to both plans, and no lock: only writing it concerns packets.
    ///
    /// ```
    /// # use flowgate_identity::{Labels, LocalAllocator};
    /// # use flowgate_policy::{compile::Session, inventory::*, options::Options, extension::Extension};
    /// # let workload = |name: &str, app: &str, address: &str| Workload {
    /// #     id: WorkloadRef { namespace: "shop".into(), name: name.into() },
    /// #     labels: Labels::from_iter([("app", app)]),
    /// #     addresses: vec![address.parse().unwrap()],
    /// #     ports: vec![],
    /// #     node: None,
    /// #     host_network: false,
    /// # };
    /// let mut session = Session::new(LocalAllocator::new(), Options::default());
    /// session.set_workload(workload("web-0", "web", "198.18.0.1"));
    /// let running = session.plan()?;
    /// session.set_workload(workload("db-0", "db", "198.18.0.2"));
    /// let extension = Extension::of(&running, &*session.plan()?)?;
    /// assert_eq!(extension.plan().endpoints.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`NotAnExtension`] says what the running plan decides otherwise, or can't express.
    pub fn of(running: &Arc<Plan>, next: &Plan) -> Result<Self, NotAnExtension> {
        if running.local_node != next.local_node {
            return Err(NotAnExtension::LocalNode);
        }
        if running.is_scattered() || next.is_scattered() {
            return Err(NotAnExtension::Scattered);
        }
        if running.keep_established != next.keep_established {
            return Err(NotAnExtension::KeepEstablished);
        }
        same_nodes(running, next)?;
        same_networks(running, next)?;
        let services = services(running, next)?;
        let known = Matched::peers(running, next);
        let known_ends = Matched::endpoints(running, next);
        let classes = classes(running, next, &known)?;
        let groups = groups(running, next, &known_ends)?;
        let mut rows = Rows::new(running, next, services, &groups)?;
        let row = rows.cells(&groups, &classes)?;
        let Rows { decision, columns, made, .. } = rows;
        let plan = Plan {
            endpoints: endpoints(running, next, &groups, &known_ends),
            peers: peers(running, next, &classes, &known)?,
            ipcache: next.ipcache.clone(),
            peer_classes: count(classes.next_of.len())?,
            port_classes: running.port_classes,
            port_class: running.port_class.clone(),
            row,
            decision,
            step: running.step,
            columns,
            scattered: Vec::new(),
            decisions: made.decisions,
            cookies: made.cookies,
            networks: next.networks.clone(),
            local_node: next.local_node.clone(),
            keep_established: next.keep_established,
            scope: next.scope,
        };
        let delta = Delta::of(running, &plan, &known, &known_ends);
        let cost = plan.cost();
        Ok(Self { running: Arc::clone(running), plan: Arc::new(plan), cost, delta })
    }

    /// It was made of this plan, which it lets others join.
    #[must_use]
    pub fn extends(&self, running: &Arc<Plan>) -> bool {
        Arc::ptr_eq(&self.running, running)
    }

    /// The plan that runs once the extension was installed.
    #[must_use]
    pub const fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }
}

/// The nodes that policies select are the same.
fn same_nodes(running: &Plan, next: &Plan) -> Result<(), NotAnExtension> {
    let nodes = |plan: &Plan| -> BTreeSet<Arc<str>> {
        plan.endpoints.iter().filter_map(|one| one.workload.as_node()).cloned().collect()
    };
    match nodes(running).symmetric_difference(&nodes(next)).next() {
        Some(node) => Err(NotAnExtension::Node { node: Arc::clone(node) }),
        None => Ok(()),
    }
}

/// What isn't an address alone is the same, and belongs to whom it belonged.
fn same_networks(running: &Plan, next: &Plan) -> Result<(), NotAnExtension> {
    let networks = |plan: &Plan| -> BTreeMap<IpNet, PeerKey> {
        let routes = plan.ipcache.iter().filter(|(net, _)| net.prefix_len() < net.max_prefix_len());
        routes.map(|(net, peer)| (*net, plan.peers[*peer as usize].key.clone())).collect()
    };
    let (before, after) = (networks(running), networks(next));
    let mut all = before.keys().chain(after.keys());
    match all.find(|network| before.get(network) != after.get(network)) {
        Some(&network) => Err(NotAnExtension::Network { network }),
        None => Ok(()),
    }
}

/// By port class of the running plan: that of the next one.
fn services(running: &Plan, next: &Plan) -> Result<Vec<u16>, NotAnExtension> {
    let mut of_next = vec![None; running.port_classes as usize];
    let tables = [PortTable::Tcp, PortTable::Udp, PortTable::Sctp, PortTable::Other];
    for ((table, before), after) in
        tables.into_iter().zip(&running.port_class).zip(&next.port_class)
    {
        for (port, (&before, &after)) in (0..=u16::MAX).zip(before.iter().zip(after)) {
            if *of_next[usize::from(before)].get_or_insert(after) != after {
                return Err(NotAnExtension::Service { table, port });
            }
        }
    }
    Ok(of_next.into_iter().map(Option::unwrap_or_default).collect())
}

/// Which numbers of two plans stand for the same. Number 0 is the same in all plans.
struct Pairs {
    /// By the next plan's number.
    of_next: Vec<Option<u32>>,
    /// By the extended plan's number; those of the running plan come first.
    next_of: Vec<Option<u32>>,
}

impl Pairs {
    fn new(running: usize, next: usize) -> Self {
        let mut pairs = Self { of_next: vec![None; next], next_of: vec![None; running] };
        pairs.pair(0, 0);
        pairs
    }

    /// `false`: the running plan's number stands for another one of the next plan, too.
    fn pair(&mut self, running: u32, next: u32) -> bool {
        self.of_next[next as usize].get_or_insert(running);
        *self.next_of[running as usize].get_or_insert(next) == next
    }

    /// A number behind those of the running plan, if it has none yet.
    fn extend(&mut self, next: u32) {
        let known = &mut self.of_next[next as usize];
        if known.is_none() {
            *known = u32::try_from(self.next_of.len()).ok();
            self.next_of.push(Some(next));
        }
    }

    fn known(&self, next: u32) -> u32 {
        self.of_next[next as usize].unwrap_or_default()
    }
}

fn classes(running: &Plan, next: &Plan, known: &Matched) -> Result<Pairs, NotAnExtension> {
    let mut pairs = Pairs::new(running.peer_classes as usize, next.peer_classes as usize);
    for (at, before) in known.both() {
        let peer = &next.peers[at];
        if !pairs.pair(running.peers[before].class.into(), peer.class.into()) {
            return Err(NotAnExtension::Peers { network: peer.key.network() });
        }
    }
    next.peers.iter().for_each(|peer| pairs.extend(peer.class.into()));
    Ok(pairs)
}

fn groups(running: &Plan, next: &Plan, known: &Matched) -> Result<Pairs, NotAnExtension> {
    let mut pairs = Pairs::new(running.groups(), next.groups());
    for (at, before) in known.both() {
        let (PlannedEndpoint { egress, ingress, .. }, one) =
            (&running.endpoints[before], &next.endpoints[at]);
        if !pairs.pair(*egress, one.egress) || !pairs.pair(*ingress, one.ingress) {
            return Err(NotAnExtension::Policies { workload: one.workload.clone() });
        }
    }
    for one in &next.endpoints {
        pairs.extend(one.egress);
        pairs.extend(one.ingress);
    }
    Ok(pairs)
}

/// Who is in the running plan keeps its groups, even where the next plan has one group for several of them:
/// nobody writes them anew.
fn endpoints(running: &Plan, next: &Plan, groups: &Pairs, known: &Matched) -> Vec<PlannedEndpoint> {
    let endpoint = |(one, before): (&PlannedEndpoint, &Option<usize>)| {
        let (egress, ingress) = match before.map(|before| &running.endpoints[before]) {
            Some(before) => (before.egress, before.ingress),
            None => (groups.known(one.egress), groups.known(one.ingress)),
        };
        PlannedEndpoint { egress, ingress, ..one.clone() }
    };
    next.endpoints.iter().zip(&known.of_next).map(endpoint).collect()
}

/// Likewise, with their classes.
fn peers(
    running: &Plan,
    next: &Plan,
    classes: &Pairs,
    known: &Matched,
) -> Result<Vec<PlannedPeer>, NotAnExtension> {
    let peer = |(peer, before): (&PlannedPeer, &Option<usize>)| {
        let class = match before {
            Some(before) => running.peers[*before].class,
            None => u16::try_from(classes.known(peer.class.into()))
                .map_err(|_| NotAnExtension::Numbers)?,
        };
        Ok(PlannedPeer { class, ..peer.clone() })
    };
    next.peers.iter().zip(&known.of_next).map(peer).collect()
}

fn count(numbers: usize) -> Result<u32, NotAnExtension> {
    u32::try_from(numbers).map_err(|_| NotAnExtension::Numbers)
}

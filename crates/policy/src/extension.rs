//! A plan that knows more workloads than the running one and decides about all others as that one
//! does: the same in the running one's numbers, so that what is new is all that has to be written.
//!
//! A workload of a combination that nobody has met adds a peer; if rules tell it apart from everybody
//! else, a class, which is a column of the rows; if it is an endpoint with policies of its own, a
//! group of rows. Numbers that are there stay what they are. A plan for which this can't be says so
//! and is applied as a generation of its own.
//!
//! Not here: writing it ([`Installer::extend`](crate::install::Installer::extend)).
//! Invariant: the extended plan decides about every flow as the plan that it was made of, and each
//! cell of the running plan is in it unchanged. Tested over generated cases (`tests/extension.rs`).

use std::{collections::HashMap, sync::Arc};

use flowgate_abi::policy::{Decision, PortTable};
use ipnet::IpNet;
use thiserror::Error;

use crate::{
    inventory::WorkloadRef,
    plan::{Cookie, Plan, PlannedEndpoint, PlannedPeer},
};

/// Why a plan can't extend the running one: apply it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotAnExtension {
    /// It lacks addresses that the running plan has.
    #[error("{network} isn't in the plan any more; apply it")]
    Left {
        /// The addresses.
        network: IpNet,
    },
    /// Addresses belong to another combination than in the running plan.
    #[error(
        "{network} belongs to another combination of labels, ports and networks; apply the plan"
    )]
    Moved {
        /// The addresses.
        network: IpNet,
    },
    /// Policies name a network that the running plan doesn't know.
    #[error("policies name {network}, which is new; apply the plan")]
    Network {
        /// The network.
        network: IpNet,
    },
    /// Rules tell services apart that are one to the running plan.
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
    /// Addresses that the running plan doesn't have, each with its peer in the extended one.
    pub(crate) joining: Vec<(IpNet, u32)>,
}

impl Extension {
    /// What of `next` the running plan lacks.
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
        let joining = joining(running, next)?;
        let services = services(running, next)?;
        let classes = classes(running, next)?;
        let groups = groups(running, next)?;
        let mut rows = Rows::new(running, next, services);
        let row = rows.cells(&groups, &classes)?;
        let Rows { decision, made, .. } = rows;
        let plan = Plan {
            endpoints: next.endpoints.iter().map(|one| endpoint(one, &groups)).collect(),
            peers: peers(next, &classes)?,
            ipcache: next.ipcache.clone(),
            peer_classes: count(classes.next_of.len())?,
            port_classes: running.port_classes,
            port_class: running.port_class.clone(),
            row,
            decision,
            decisions: made.decisions,
            cookies: made.cookies,
            networks: next.networks.clone(),
            local_node: next.local_node.clone(),
        };
        Ok(Self { running: Arc::clone(running), plan: Arc::new(plan), joining })
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

/// The addresses that are new; all others belong to whom they belonged.
fn joining(running: &Plan, next: &Plan) -> Result<Vec<(IpNet, u32)>, NotAnExtension> {
    let mut before = running.ipcache.iter().peekable();
    let mut joining = Vec::new();
    for &(network, peer) in &next.ipcache {
        match before.next_if(|(known, _)| *known <= network) {
            Some(&(known, _)) if known < network => {
                return Err(NotAnExtension::Left { network: known });
            }
            Some(&(_, owner)) => {
                if running.peers[owner as usize].key != next.peers[peer as usize].key {
                    return Err(NotAnExtension::Moved { network });
                }
            }
            None if network.prefix_len() < network.max_prefix_len() => {
                return Err(NotAnExtension::Network { network });
            }
            None => joining.push((network, peer)),
        }
    }
    match before.next() {
        Some(&(network, _)) => Err(NotAnExtension::Left { network }),
        None => Ok(joining),
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

fn classes(running: &Plan, next: &Plan) -> Result<Pairs, NotAnExtension> {
    let mut pairs = Pairs::new(running.peer_classes as usize, next.peer_classes as usize);
    for peer in &next.peers {
        let known = running.peers.binary_search_by(|known| known.key.cmp(&peer.key));
        let Ok(known) = known else { continue };
        if !pairs.pair(running.peers[known].class.into(), peer.class.into()) {
            return Err(NotAnExtension::Peers { network: peer.key.network() });
        }
    }
    next.peers.iter().for_each(|peer| pairs.extend(peer.class.into()));
    Ok(pairs)
}

fn groups(running: &Plan, next: &Plan) -> Result<Pairs, NotAnExtension> {
    let count = |plan: &Plan| plan.row.len() / plan.peer_classes as usize;
    let mut pairs = Pairs::new(count(running), count(next));
    for one in &next.endpoints {
        let known = running.endpoints.binary_search_by(|known| known.workload.cmp(&one.workload));
        let Ok(known) = known else { continue };
        let PlannedEndpoint { egress, ingress, .. } = running.endpoints[known];
        if !pairs.pair(egress, one.egress) || !pairs.pair(ingress, one.ingress) {
            return Err(NotAnExtension::Policies { workload: one.workload.clone() });
        }
    }
    for one in &next.endpoints {
        pairs.extend(one.egress);
        pairs.extend(one.ingress);
    }
    Ok(pairs)
}

fn endpoint(next: &PlannedEndpoint, groups: &Pairs) -> PlannedEndpoint {
    let (egress, ingress) = (groups.known(next.egress), groups.known(next.ingress));
    PlannedEndpoint { egress, ingress, ..next.clone() }
}

fn peers(next: &Plan, classes: &Pairs) -> Result<Vec<PlannedPeer>, NotAnExtension> {
    let peer = |peer: &PlannedPeer| {
        let class = u16::try_from(classes.known(peer.class.into()));
        Ok(PlannedPeer { class: class.map_err(|_| NotAnExtension::Numbers)?, ..peer.clone() })
    };
    next.peers.iter().map(peer).collect()
}

fn count(numbers: usize) -> Result<u32, NotAnExtension> {
    u32::try_from(numbers).map_err(|_| NotAnExtension::Numbers)
}

/// Rows of the next plan as rows of the extended one.
struct Rows<'a> {
    running: &'a Plan,
    next: &'a Plan,
    /// By port class of the running plan: that of the next one.
    services: Vec<u16>,
    /// By row of the next plan.
    of_next: Vec<Option<u16>>,
    /// The decision cells of the extended plan.
    decision: Vec<u16>,
    made: Decisions<'a>,
}

impl<'a> Rows<'a> {
    fn new(running: &'a Plan, next: &'a Plan, services: Vec<u16>) -> Self {
        Self {
            running,
            next,
            services,
            of_next: vec![None; next.decision.len() / next.port_classes as usize],
            decision: running.decision.clone(),
            made: Decisions::new(running, next),
        }
    }

    /// The row cells of the extended plan. Cells that are there come first: all rows of theirs are.
    fn cells(&mut self, groups: &Pairs, classes: &Pairs) -> Result<Vec<u16>, NotAnExtension> {
        let width = self.running.peer_classes as usize;
        let mut cells = vec![0; groups.next_of.len() * classes.next_of.len()];
        let extended = cells.chunks_mut(classes.next_of.len());
        for ((cells, before), group) in
            extended.zip(self.running.row.chunks(width)).zip(&groups.next_of)
        {
            cells[..width].copy_from_slice(before);
            let Some(group) = *group else { continue };
            for (&row, class) in before.iter().zip(&classes.next_of) {
                if class.is_some_and(|class| !self.is(row, self.next_cell(group, class))) {
                    return Err(self.others(group));
                }
            }
        }
        for (number, (cells, group)) in
            cells.chunks_mut(classes.next_of.len()).zip(&groups.next_of).enumerate()
        {
            let Some(group) = *group else { continue };
            let is_new = number >= self.running.row.len() / width;
            let from = if is_new { 0 } else { width };
            for (cell, class) in cells[from..].iter_mut().zip(&classes.next_of[from..]) {
                let Some(class) = *class else { continue };
                *cell = self.row(self.next_cell(group, class))?;
            }
        }
        Ok(cells)
    }

    fn next_cell(&self, group: u32, class: u32) -> u16 {
        self.next.row[(group * self.next.peer_classes + class) as usize]
    }

    fn others(&self, group: u32) -> NotAnExtension {
        let mut endpoints = self.next.endpoints.iter();
        let one = endpoints.find(|one| one.egress == group || one.ingress == group);
        one.map_or(NotAnExtension::Numbers, |one| NotAnExtension::Policies {
            workload: one.workload.clone(),
        })
    }

    /// A row of the running plan is that row of the next one.
    fn is(&mut self, running: u16, next: u16) -> bool {
        if let Some(known) = self.of_next[usize::from(next)] {
            return known == running;
        }
        let width = self.services.len();
        let same = self
            .translated(next)
            .is_ok_and(|cells| cells == self.decision[usize::from(running) * width..][..width]);
        if same {
            self.of_next[usize::from(next)] = Some(running);
        }
        same
    }

    /// The number of a row of the next plan, which is added if it is new.
    fn row(&mut self, next: u16) -> Result<u16, NotAnExtension> {
        if let Some(known) = self.of_next[usize::from(next)] {
            return Ok(known);
        }
        let cells = self.translated(next)?;
        let mut rows = self.decision.chunks(self.services.len());
        let (known, all) = (rows.position(|row| row == cells), self.decision.len() / cells.len());
        let number = u16::try_from(known.unwrap_or(all)).map_err(|_| NotAnExtension::Numbers)?;
        if known.is_none() {
            self.decision.extend(cells);
        }
        self.of_next[usize::from(next)] = Some(number);
        Ok(number)
    }

    fn translated(&mut self, next: u16) -> Result<Vec<u16>, NotAnExtension> {
        let width = self.next.port_classes as usize;
        let cells = &self.next.decision[usize::from(next) * width..][..width];
        self.services.iter().map(|&class| self.made.number(cells[usize::from(class)])).collect()
    }
}

/// Decisions of the next plan as those of the extended one.
struct Decisions<'a> {
    next: &'a Plan,
    /// By number in the next plan.
    of_next: Vec<Option<u16>>,
    numbers: HashMap<(Decision, Arc<Cookie>), u16>,
    cookie_numbers: HashMap<Arc<Cookie>, u32>,
    decisions: Vec<Decision>,
    cookies: Vec<Arc<Cookie>>,
}

impl<'a> Decisions<'a> {
    fn new(running: &Plan, next: &'a Plan) -> Self {
        let (decisions, cookies) = (running.decisions.clone(), running.cookies.clone());
        let numbers = decisions.iter().zip(0..);
        Self {
            next,
            of_next: vec![None; next.decisions.len()],
            numbers: numbers.map(|(&one, number)| (nameless(one, &cookies), number)).collect(),
            cookie_numbers: cookies.iter().cloned().zip(0..).collect(),
            decisions,
            cookies,
        }
    }

    fn number(&mut self, next: u16) -> Result<u16, NotAnExtension> {
        if let Some(known) = self.of_next[usize::from(next)] {
            return Ok(known);
        }
        let decision = nameless(self.next.decisions[usize::from(next)], &self.next.cookies);
        let number = match self.numbers.get(&decision) {
            Some(&known) => known,
            None => self.add(decision)?,
        };
        self.of_next[usize::from(next)] = Some(number);
        Ok(number)
    }

    fn add(&mut self, decision: (Decision, Arc<Cookie>)) -> Result<u16, NotAnExtension> {
        let number = u16::try_from(self.decisions.len()).map_err(|_| NotAnExtension::Numbers)?;
        let next = count(self.cookies.len())?;
        let cookie = *self.cookie_numbers.entry(Arc::clone(&decision.1)).or_insert(next);
        if cookie == next {
            self.cookies.push(Arc::clone(&decision.1));
        }
        self.decisions.push(Decision { cookie, ..decision.0 });
        self.numbers.insert(decision, number);
        Ok(number)
    }
}

/// A decision with its cookie instead of the cookie's number.
fn nameless(decision: Decision, cookies: &[Arc<Cookie>]) -> (Decision, Arc<Cookie>) {
    (Decision { cookie: 0, ..decision }, Arc::clone(&cookies[decision.cookie as usize]))
}

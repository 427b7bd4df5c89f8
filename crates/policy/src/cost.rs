//! What a plan costs, and whether it fits: known before anything is installed.
//!
//! Not here: the memory of connections, endpoints' links and events, which no plan changes.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
};

use flowgate_abi::endpoint::Peer;
use flowgate_abi::ipcache::{Node, ROOTS};
use flowgate_abi::policy::{Decision, EndpointPolicy, PortTable, Scattered};
use flowgate_identity::Ipcache;
use ipnet::IpNet;
use thiserror::Error;

use crate::{
    ipcache::{self, MOST_NODES},
    model::PolicyRef,
    plan::Plan,
};

/// The cells of a scattered plan's column.
const PAIR: usize = Scattered::PAIR as usize;

/// What a plan costs.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Endpoints.
    pub endpoints: usize,
    /// Peers' numbers: networks of a family that the plan doesn't tell apart share one.
    pub peers: usize,
    /// Peer classes, the reserved one included.
    pub peer_classes: usize,
    /// Port classes, the reserved one included.
    pub port_classes: usize,
    /// Endpoint policies, the reserved one included.
    pub endpoint_policies: usize,
    /// Distinct rows, the reserved one included.
    pub rows: usize,
    /// Cells of 2 bytes: endpoint policies times peer classes, in a narrow plan with the port classes.
    pub row_cells: usize,
    /// Cells of 2 bytes: rows times port classes, in a narrow plan times those that their endpoint policies
    /// tell apart.
    pub decision_cells: usize,
    /// Distinct decisions, the reserved one included.
    pub decisions: usize,
    /// Prefixes of IPv4 in the ipcache.
    pub prefixes4: usize,
    /// Prefixes of IPv6 in the ipcache.
    pub prefixes6: usize,
    /// Nodes of the ipcache, those of the roots left out.
    pub ipcache_nodes: usize,
    /// The bytes of what is counted here, in one generation; the kernel rounds up.
    pub bytes: usize,
}

/// How much room the tables have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Endpoints.
    pub endpoints: usize,
    /// Peers.
    pub peers: usize,
    /// Row cells of one generation.
    pub row_cells: usize,
    /// Decision cells of one generation.
    pub decision_cells: usize,
    /// Decisions of one generation.
    pub decisions: usize,
    /// Nodes of the ipcache, those of the roots and the spare ones left out.
    pub ipcache_nodes: usize,
}

/// A table that a plan fills.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// [`Capacity::endpoints`].
    Endpoints,
    /// [`Capacity::peers`].
    Peers,
    /// [`Capacity::row_cells`].
    RowCells,
    /// [`Capacity::decision_cells`].
    DecisionCells,
    /// [`Capacity::decisions`].
    Decisions,
    /// [`Capacity::ipcache_nodes`].
    IpcacheNodes,
}

impl Table {
    /// All tables.
    pub const ALL: &[Self] = &[
        Self::Endpoints,
        Self::Peers,
        Self::RowCells,
        Self::DecisionCells,
        Self::Decisions,
        Self::IpcacheNodes,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Endpoints => "endpoints",
            Self::Peers => "peers",
            Self::RowCells => "row_cells",
            Self::DecisionCells => "decision_cells",
            Self::Decisions => "decisions",
            Self::IpcacheNodes => "ipcache_nodes",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Endpoints => "endpoints",
            Self::Peers => "peers",
            Self::RowCells => "row cells",
            Self::DecisionCells => "decision cells",
            Self::Decisions => "decisions",
            Self::IpcacheNodes => "ipcache nodes",
        })
    }
}

/// A plan doesn't fit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the plan needs {needed} {table}, there is room for {have}{}", Listed(.top))]
pub struct Overflow {
    /// What there is too little of.
    pub table: Table,
    /// How many the plan needs.
    pub needed: usize,
    /// How many there are.
    pub have: usize,
    /// The policies that cost most of it, with how many are theirs or shared with others; the
    /// dearest first, at most [`Overflow::TOP`]. Empty if workloads alone are the cause.
    pub top: Vec<(PolicyRef, usize)>,
}

impl Overflow {
    /// How many policies an overflow names.
    pub const TOP: usize = 5;
}

struct Listed<'a>(&'a [(PolicyRef, usize)]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (policy, count)) in self.0.iter().enumerate() {
            let lead = if index == 0 { "; dearest: " } else { ", " };
            write!(f, "{lead}{policy} ({count})")?;
        }
        Ok(())
    }
}

impl Plan {
    /// What the plan costs.
    #[must_use]
    pub fn cost(&self) -> Cost {
        let (rows, ipcache_nodes) = (1 + self.rows().len(), self.nodes());
        let cost = Cost { rows, ipcache_nodes, ..self.cost_of_policy() };
        Cost { bytes: cost.count_bytes(), ..cost }
    }

    /// The cost without what has to be counted: rows, the ipcache's nodes, and bytes.
    fn cost_of_policy(&self) -> Cost {
        let prefixes6 = self.ipcache.iter().filter(|(network, _)| is_v6(network)).count();
        Cost {
            endpoints: self.endpoints.len(),
            peers: self.distinct_shares(),
            peer_classes: self.peer_classes as usize,
            port_classes: self.port_classes as usize,
            endpoint_policies: self.groups(),
            rows: 0,
            row_cells: self.groups() * self.line(),
            decision_cells: self.decision.len(),
            decisions: self.decisions.len(),
            prefixes4: self.ipcache.len() - prefixes6,
            prefixes6,
            ipcache_nodes: 0,
            bytes: 0,
        }
    }

    /// Whether there is room for the plan.
    ///
    /// # Errors
    ///
    /// [`Overflow`] names the first table that is too small, and who fills it.
    pub fn fits(&self, capacity: &Capacity) -> Result<(), Overflow> {
        let mut cost = self.cost_of_policy();
        // Counted if they might not fit.
        if MOST_NODES * self.ipcache.len() > capacity.ipcache_nodes {
            cost.ipcache_nodes = self.nodes();
        }
        self.fits_at(&cost, capacity)
    }

    /// The same, where the cost is known already.
    pub(crate) fn fits_at(&self, cost: &Cost, capacity: &Capacity) -> Result<(), Overflow> {
        let tables = [
            (Table::Endpoints, cost.endpoints, capacity.endpoints),
            (Table::Peers, cost.peers, capacity.peers),
            (Table::RowCells, cost.row_cells, capacity.row_cells),
            (Table::DecisionCells, cost.decision_cells, capacity.decision_cells),
            (Table::Decisions, cost.decisions, capacity.decisions),
            (Table::IpcacheNodes, cost.ipcache_nodes, capacity.ipcache_nodes),
        ];
        match tables.into_iter().find(|(_, needed, have)| needed > have) {
            None => Ok(()),
            Some((table, needed, have)) => {
                Err(Overflow { table, needed, have, top: self.dearest(table) })
            }
        }
    }

    fn nodes(&self) -> usize {
        nodes(self.ipcache.iter().map(|(network, _)| *network))
    }

    fn dearest(&self, table: Table) -> Vec<(PolicyRef, usize)> {
        let shares = match table {
            Table::Endpoints => Vec::new(),
            Table::Peers => self.by_peers(),
            Table::IpcacheNodes => self.by_networks(|networks| nodes(networks.iter().copied())),
            Table::RowCells => self.by_endpoint_policies(),
            Table::DecisionCells => self.by_rows(),
            Table::Decisions => self.by_decisions(),
        };
        let mut shares: Vec<_> = shares.into_iter().filter(|(_, share)| *share > 0).collect();
        shares.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
        shares.truncate(Overflow::TOP);
        shares
    }

    fn by_networks(&self, count: impl Fn(&[IpNet]) -> usize) -> Vec<(PolicyRef, usize)> {
        self.networks.iter().map(|(policy, networks)| (policy.clone(), count(networks))).collect()
    }

    fn by_peers(&self) -> Vec<(PolicyRef, usize)> {
        let shares = self.shares_by_network();
        self.by_networks(|networks| {
            let here = networks.iter().filter_map(|network| shares.get(network)).flatten();
            here.collect::<HashSet<_>>().len()
        })
    }

    fn by_decisions(&self) -> Vec<(PolicyRef, usize)> {
        let cookies = self.decisions.iter().map(|decision| BTreeSet::from([decision.cookie]));
        self.tally(cookies.map(|cookies| (cookies, 1)))
    }

    /// A row is there because of the policies that allow something in it.
    fn by_rows(&self) -> Vec<(PolicyRef, usize)> {
        let allows = |decision: &Decision| !decision.is_default();
        if self.is_scattered() {
            let areas = self.areas().into_iter().flat_map(own);
            return self.tally(areas.map(|cell| (self.cookies_of([cell], allows), PAIR)));
        }
        let rows = self.rows().into_iter().map(|(group, row)| self.cells(group, row));
        self.tally(rows.map(|row| (self.cookies_of(row.iter().copied(), allows), row.len())))
    }

    /// A group of rows is there because of the policies that isolate.
    fn by_endpoint_policies(&self) -> Vec<(PolicyRef, usize)> {
        let groups: Vec<BTreeSet<u32>> = match self.is_scattered() {
            true => self.cookies_of_areas(),
            false => self.cookies_of_lines(),
        };
        self.tally(groups.into_iter().map(|cookies| (cookies, self.line())))
    }

    fn cookies_of_areas(&self) -> Vec<BTreeSet<u32>> {
        let all = self.scattered.iter().zip(self.areas());
        let cookies = |(told, area): (&Scattered, _)| {
            let rests = (1..).map(|row| told.record(row)).take_while(|at| *at < told.area);
            let rests = rests.map(|at| self.decision[at as usize]);
            self.cookies_of(rests.chain(own(area)), |_| true)
        };
        all.map(cookies).collect()
    }

    /// By endpoint policy of a scattered plan: the pairs of its rows.
    fn areas(&self) -> Vec<&[u16]> {
        let ends = self.scattered.iter().skip(1).map(|next| next.record(1) as usize);
        let ends = ends.chain([self.decision.len()]);
        let areas = self.scattered.iter().zip(ends);
        // Policy 0 has no rows.
        let area = |(told, end): (&Scattered, usize)| match told.stride {
            0 => &[][..],
            _ => &self.decision[told.area as usize..end],
        };
        areas.map(area).collect()
    }

    fn cookies_of_lines(&self) -> Vec<BTreeSet<u32>> {
        let rows = self.rows().into_iter();
        let cookies = |cells: Cow<'_, [u16]>| self.cookies_of(cells.iter().copied(), |_| true);
        let rows: HashMap<u16, BTreeSet<u32>> =
            rows.map(|(group, row)| (row, cookies(self.cells(group, row)))).collect();
        let lines = self.row.chunks(self.peer_classes as usize);
        let distinct = lines.map(|line| line.iter().copied().collect::<BTreeSet<u16>>());
        let all = |line: BTreeSet<u16>| {
            line.into_iter().filter_map(|row| rows.get(&row)).flatten().copied().collect()
        };
        distinct.map(all).collect()
    }

    /// The rows, but for row 0, each with the first endpoint policy that has it.
    fn rows(&self) -> Vec<(u32, u16)> {
        let mut seen = vec![u32::MAX; 1 << 16];
        seen[0] = 0;
        let mut rows = Vec::new();
        for (group, line) in (0..).zip(self.row.chunks(self.peer_classes as usize)).skip(1) {
            // The numbers of a scattered plan are their group's.
            let known = |seen: u32| seen != u32::MAX && (!self.is_scattered() || seen == group);
            for &row in line[1..].iter().filter(|row| **row != 0) {
                if !known(std::mem::replace(&mut seen[usize::from(row)], group)) {
                    rows.push((group, row));
                }
            }
        }
        rows
    }

    fn cookies_of(
        &self,
        cells: impl IntoIterator<Item = u16>,
        which: impl Fn(&Decision) -> bool,
    ) -> BTreeSet<u32> {
        let decisions = cells.into_iter().map(|number| &self.decisions[usize::from(number)]);
        decisions.filter(|decision| which(decision)).map(|decision| decision.cookie).collect()
    }

    /// How often each policy occurs, each time with its weight.
    fn tally(
        &self,
        cookies: impl Iterator<Item = (BTreeSet<u32>, usize)>,
    ) -> Vec<(PolicyRef, usize)> {
        let mut shares: BTreeMap<&PolicyRef, usize> = BTreeMap::new();
        for (cookies, weight) in cookies {
            let sets = cookies.into_iter().filter_map(|cookie| self.cookies.get(cookie as usize));
            let policies: BTreeSet<&PolicyRef> = sets.flat_map(|set| &set.policies).collect();
            for policy in policies {
                *shares.entry(policy).or_default() += weight;
            }
        }
        shares.into_iter().map(|(policy, share)| (policy.clone(), share)).collect()
    }
}

impl Cost {
    fn count_bytes(&self) -> usize {
        let cells = self.row_cells + self.decision_cells + self.peers;
        let ports = PortTable::COUNT * PortTable::PORTS;
        (cells + ports) * size_of::<u16>()
            + self.decisions * size_of::<Decision>()
            + self.endpoints * size_of::<EndpointPolicy>()
            + self.peers * size_of::<Peer>()
            + (ROOTS as usize + self.ipcache_nodes) * size_of::<Node>()
    }
}

/// What the pairs of an area decide, but for gaps.
fn own(area: &[u16]) -> impl Iterator<Item = u16> + '_ {
    area.chunks_exact(PAIR).filter(|pair| pair[0] != 0).map(|pair| pair[1])
}

const fn is_v6(network: &IpNet) -> bool {
    matches!(network, IpNet::V6(_))
}

fn nodes(networks: impl Iterator<Item = IpNet>) -> usize {
    ipcache::nodes(&networks.map(|network| (network, ())).collect::<Ipcache<()>>())
}

#[cfg(test)]
mod tests {
    use flowgate_identity::{LocalAllocator, Selector};

    use super::*;
    use crate::{
        compile::Compiler,
        inventory::{Inventory, Workload, WorkloadRef},
        model::{
            NamespaceSelector, Peer, Peers, Policy, PolicyKind, Port, PortMatch, Ports, Protocol,
            Rule, WorkloadSelector,
        },
        options::Options,
    };

    const ROOMY: Capacity = Capacity {
        endpoints: 16,
        peers: 64,
        row_cells: 4096,
        decision_cells: 4096,
        decisions: 256,
        ipcache_nodes: 256,
    };

    fn policy(name: &str, networks: &[&str], ports: &[u16]) -> Policy {
        let peers = networks
            .iter()
            .map(|network| Peer::Cidr { cidr: network.parse().unwrap(), except: Vec::new() });
        let ports = ports
            .iter()
            .map(|&port| Port { protocol: Protocol::Tcp, port: PortMatch::Range(port, port) });
        let rule = Rule::allow(Peers::OneOf(peers.collect()), Ports::of(ports));
        let id =
            PolicyRef { kind: PolicyKind::NetworkPolicy, namespace: "a".into(), name: name.into() };
        let subject = WorkloadSelector {
            namespaces: NamespaceSelector::Named("a".into()),
            labels: Selector::everything(),
        };
        Policy { ingress: Some(vec![rule]), ..Policy::new(id, subject) }
    }

    fn plan() -> Plan {
        let workload = Workload {
            id: WorkloadRef { namespace: "a".into(), name: "web".into() },
            labels: flowgate_identity::Labels::new(),
            addresses: vec!["198.18.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            ports: Vec::new(),
            node: None,
            host_network: false,
        };
        let inventory = Inventory { workloads: vec![workload], ..Inventory::default() };
        let policies = [
            policy("cheap", &["203.0.113.0/24"], &[80]),
            policy("dear", &["198.51.100.0/25", "198.51.100.128/26", "2001:db8:1::/48"], &[80, 81]),
        ];
        let mut compiler = Compiler::new(LocalAllocator::new());
        compiler.compile(&inventory, &policies, &Options::default()).unwrap()
    }

    #[test]
    fn the_cost_counts_what_the_tables_hold() {
        let cost = plan().cost();
        // The networks of the dear policy share a number in each family.
        assert_eq!((cost.endpoints, cost.peers), (1, 7));
        assert_eq!((cost.prefixes4, cost.prefixes6), (5, 3));
        // Those of 198.18.0.1, 203.0.113.0/24, 198.51.100.0/25 and /26, 2001:db8:1::/48, and two for
        // 2001:db8::1, which is longer than a key.
        assert_eq!(cost.ipcache_nodes, 5);
        assert_eq!((cost.peer_classes, cost.port_classes), (4, 3));
        assert_eq!((cost.endpoint_policies, cost.rows), (3, 5));
        assert_eq!((cost.row_cells, cost.decision_cells), (12, 15));
        // Unreachable, default allow, default deny, and one for each policy that allows.
        assert_eq!(cost.decisions, 5);
        assert!(cost.bytes > (PortTable::COUNT * PortTable::PORTS) * 2 + 64 * ROOTS as usize);
    }

    #[test]
    fn what_has_room_fits() {
        assert_eq!(plan().fits(&ROOMY), Ok(()));
    }

    #[test]
    fn each_table_overflows_by_name_and_says_who_fills_it() {
        let few = [
            (Table::Endpoints, Capacity { endpoints: 0, ..ROOMY }, None),
            (Table::Peers, Capacity { peers: 6, ..ROOMY }, Some(2)),
            (Table::RowCells, Capacity { row_cells: 11, ..ROOMY }, Some(4)),
            (Table::DecisionCells, Capacity { decision_cells: 14, ..ROOMY }, Some(3)),
            (Table::Decisions, Capacity { decisions: 4, ..ROOMY }, Some(2)),
            (Table::IpcacheNodes, Capacity { ipcache_nodes: 4, ..ROOMY }, Some(2)),
        ];
        for (table, capacity, dearest) in few {
            let overflow = plan().fits(&capacity).unwrap_err();
            assert_eq!(overflow.table, table);
            assert!(overflow.needed > overflow.have, "{overflow}");
            assert_eq!(overflow.top.first().map(|(_, share)| *share), dearest, "{overflow}");
        }
    }

    #[test]
    fn an_overflow_reads_as_a_sentence() {
        let overflow = plan().fits(&Capacity { ipcache_nodes: 1, ..ROOMY }).unwrap_err();
        assert_eq!(
            overflow.to_string(),
            "the plan needs 5 ipcache nodes, there is room for 1; dearest: NetworkPolicy/a/dear (2), \
             NetworkPolicy/a/cheap (1)"
        );
    }
}

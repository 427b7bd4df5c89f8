//! What two plans decide differently, exactly: by classes, not by sampling.
//!
//! What neither plan tells apart is asked once. The ends that both know are put into classes by the
//! pair of their peers (`peers.rs`), services by the pair of their port classes (`services.rs`), and
//! each pair of rows is compared over all of them. What differs alike is told together.
//!
//! Not here: which policies decide, and what they name for the log. A verdict that is the same for
//! another reason is no difference; one that tells the sender something else is.
//! Invariant: where two plans know the same owner of an address, or none, and judge a flow
//! differently, a difference holds that flow; and every flow of a difference is judged differently.
//! Tested over generated cases (`tests/diff.rs`).

mod peers;
mod services;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
};

use flowgate_abi::policy::Direction;

use self::{
    peers::{Classes, Pairs},
    services::Segment,
};
pub use self::{
    peers::{Owner, PeerPair, Presence},
    services::Services,
};
use crate::{
    inventory::WorkloadRef,
    model::Response,
    outcome::{Flow, SideVerdict},
    plan::Plan,
};

/// What two plans decide differently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanDiff {
    /// Who has an address in the later plan, and not in the earlier one; sorted. What they may do
    /// isn't compared. A plan knows workloads by name that are endpoints of it, and nodes.
    pub added: Vec<Presence>,
    /// Who has an address in the earlier plan, and not in the later one; sorted.
    pub removed: Vec<Presence>,
    /// What is decided differently for ends that both plans know.
    pub differences: Vec<Difference>,
}

impl PlanDiff {
    /// Both plans know the same ends and decide alike.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.differences.is_empty()
    }
}

/// What an end says: now, and what it would say if staged policies were enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Said {
    /// The verdict.
    pub verdict: SideVerdict,
    /// What the sender is told if it denies.
    pub response: Response,
    /// What staged policies would decide instead, if anything else.
    pub staged: Option<SideVerdict>,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.verdict.fmt(f)?;
        if self.response != Response::Silence {
            write!(f, " with {}", self.response)?;
        }
        match self.staged {
            None => Ok(()),
            Some(staged) => write!(f, " (staged: {staged})"),
        }
    }
}

/// One and the same change, for all of these subjects with all of these peers on all of these
/// services, wherever a subject and a peer have an address family in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The endpoints that judge.
    pub subjects: Vec<Subject>,
    /// Whether they open flows or flows are opened to them.
    pub direction: Direction,
    /// The other ends. A subject may be among them: flows to itself are judged like any other. What a
    /// node opens to itself and to workloads on it is no matter of its policies; they may be among the
    /// peers beside others.
    pub peers: Vec<Arc<PeerPair>>,
    /// The peers are all that both plans know, of the families that the subjects have.
    pub everyone: bool,
    /// The services; sorted, none overlaps another.
    pub services: Vec<Services>,
    /// What the subjects say by the earlier plan.
    pub before: Said,
    /// What they say by the later plan.
    pub after: Said,
}

/// An endpoint that both plans know, with its first address of each family that it has in both. A node
/// that only one of them has policies for is one, too: the other lets everything pass it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// The workload, or the node.
    pub workload: WorkloadRef,
    /// Its first IPv4 address.
    pub ipv4: Option<IpAddr>,
    /// Its first IPv6 address.
    pub ipv6: Option<IpAddr>,
}

impl Subject {
    fn address(&self, ipv4: bool) -> Option<IpAddr> {
        if ipv4 { self.ipv4 } else { self.ipv6 }
    }
}

impl Difference {
    /// Flows pass that were denied, or the other way round.
    #[must_use]
    pub fn changes_traffic(&self) -> bool {
        self.before.verdict.allowed() != self.after.verdict.allowed()
    }

    /// One flow for each subject and each peer with which it has a family in common, but for what stays
    /// on a node. All of them are judged as the difference says.
    pub fn flows(&self) -> impl Iterator<Item = (&Subject, &PeerPair, Flow)> + Clone {
        self.subjects.iter().flat_map(move |subject| {
            self.peers
                .iter()
                .filter_map(move |peer| Some((subject, &**peer, self.flow(subject, peer)?)))
        })
    }

    fn flow(&self, subject: &Subject, peer: &PeerPair) -> Option<Flow> {
        let own = subject.address(peer.is_ipv4())?;
        let home = home_of(subject, self.direction);
        let other = peer.address_beside(own, home)?;
        let protocol = self.services.first()?.sample(peer.is_ipv4());
        Some(match self.direction {
            Direction::Egress => Flow { source: own, destination: other, protocol },
            Direction::Ingress => Flow { source: other, destination: own, protocol },
        })
    }
}

/// What comes of flows at which nobody looks.
const UNJUDGED: Said =
    Said { verdict: SideVerdict::DefaultAllow, response: Response::Silence, staged: None };

impl Plan {
    /// What `other`, the later plan, decides differently.
    #[must_use]
    pub fn diff(&self, other: &Self) -> PlanDiff {
        let pairs = Pairs::new(self, other);
        let classes = Classes::new(self, other, &pairs.known);
        let mut comparison = Comparison::new(self, other);
        let mut differences = Vec::new();
        for direction in [Direction::Egress, Direction::Ingress] {
            differences.extend(comparison.direction(direction, &pairs, &classes));
        }
        differences.sort_by(|a, b| place(a).cmp(&place(b)));
        PlanDiff { added: pairs.added, removed: pairs.removed, differences }
    }
}

/// The node with whose ends a subject's policies have nothing to do.
fn home_of(subject: &Subject, direction: Direction) -> Option<&Arc<str>> {
    subject.workload.as_node().filter(|_| direction == Direction::Egress)
}

/// What changes traffic comes first.
fn place(one: &Difference) -> impl Ord + '_ {
    (
        !one.changes_traffic(),
        &one.subjects,
        one.direction as u8,
        one.before,
        one.after,
        &one.services,
    )
}

/// What differs between two rows: by what is said before and after, on which services.
type Changes = BTreeMap<(Said, Said), Vec<Services>>;
/// The classes of peers for which the same differs on the same services.
type Alike = BTreeMap<(Said, Said, Vec<Services>), Vec<usize>>;

/// The row of each plan, and an endpoint policy whose it is; none where nobody judges.
type Rows = [Option<Row>; 2];

/// What makes a row one and the same.
type Whose = (u32, u16);

/// A row, and whose it is: that matters in scattered plans ([`Plan::whose`]).
#[derive(Clone, Copy)]
struct Row {
    number: u16,
    policy: u32,
}

/// Subjects that nothing tells apart in a direction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Group<'a> {
    policies: [Option<u32>; 2],
    /// IPv6 first.
    families: [bool; 2],
    home: Option<&'a Arc<str>>,
}

/// Two plans, and the pairs of rows that were compared so far.
struct Comparison<'a> {
    plans: [&'a Plan; 2],
    /// By family, IPv6 first.
    segments: [Vec<Segment>; 2],
    /// By family (IPv4), and both plans' rows.
    known: HashMap<(bool, [Option<Whose>; 2]), Rc<Changes>>,
}

impl<'a> Comparison<'a> {
    fn new(before: &'a Plan, after: &'a Plan) -> Self {
        let segments = [false, true].map(|ipv4| services::segments(before, after, ipv4));
        Self { plans: [before, after], segments, known: HashMap::new() }
    }

    fn direction(
        &mut self,
        direction: Direction,
        pairs: &Pairs,
        classes: &Classes,
    ) -> Vec<Difference> {
        let mut groups: BTreeMap<Group<'_>, Vec<&Subject>> = BTreeMap::new();
        for (subject, policies) in &pairs.subjects {
            let group = Group {
                policies: policies[direction as usize],
                families: [subject.ipv6.is_some(), subject.ipv4.is_some()],
                home: home_of(subject, direction),
            };
            groups.entry(group).or_default().push(subject);
        }
        // Groups of endpoint policies that differ alike are told as one.
        let mut alike: BTreeMap<_, Vec<Subject>> = BTreeMap::new();
        for (group, subjects) in groups {
            for ((before, after, services), peers) in self.group(group, classes) {
                let key = (before, after, services, peers, group.families);
                alike.entry(key).or_default().extend(subjects.iter().copied().cloned());
            }
        }
        let told = alike.into_iter().map(|((before, after, services, peers, of), mut subjects)| {
            subjects.sort_unstable();
            let everyone = peers.len() == classes.of_families(of);
            let peers = classes.pairs(&peers);
            Difference { subjects, direction, peers, everyone, services, before, after }
        });
        told.collect()
    }

    fn group(&mut self, group: Group<'_>, classes: &Classes) -> Alike {
        let mut alike = Alike::new();
        for (number, class) in classes.all.iter().enumerate() {
            if !group.families[usize::from(class.ipv4)] || class.is_all_on(group.home) {
                continue;
            }
            let row = |plan: usize| {
                let width = self.plans[plan].peer_classes as usize;
                let policy = group.policies[plan]?;
                let cell = policy as usize * width + usize::from(class.classes[plan]);
                Some(Row { number: self.plans[plan].row[cell], policy })
            };
            let rows = [row(0), row(1)];
            for (&(before, after), services) in &*self.rows(class.ipv4, rows) {
                alike.entry((before, after, services.clone())).or_default().push(number);
            }
        }
        alike
    }

    fn rows(&mut self, ipv4: bool, rows: Rows) -> Rc<Changes> {
        let of = |plan: usize| rows[plan].map(|row| self.plans[plan].whose(row.policy, row.number));
        let key = (ipv4, [of(0), of(1)]);
        if let Some(known) = self.known.get(&key) {
            return Rc::clone(known);
        }
        let changes = Rc::new(self.compare(ipv4, rows));
        self.known.insert(key, Rc::clone(&changes));
        changes
    }

    fn compare(&self, ipv4: bool, rows: Rows) -> Changes {
        let mut said: HashMap<[u16; 2], (Said, Said)> = HashMap::new();
        let mut changed: BTreeMap<(Said, Said), Vec<Segment>> = BTreeMap::new();
        for segment in &self.segments[usize::from(ipv4)] {
            let (before, after) = *said.entry(segment.classes).or_insert_with_key(|classes| {
                let say = |plan: usize| self.plans[plan].said(rows[plan], classes[plan]);
                (say(0), say(1))
            });
            if before != after {
                changed.entry((before, after)).or_default().push(*segment);
            }
        }
        let merged = |(said, segments): (_, Vec<Segment>)| (said, services::merge(&segments));
        changed.into_iter().map(merged).collect()
    }
}

impl Plan {
    fn said(&self, row: Option<Row>, port_class: u16) -> Said {
        let Some(Row { number, policy }) = row else { return UNJUDGED };
        let decided = self.decided_about(policy, number, port_class).unwrap_or_default();
        let side = self.decided(u32::from(decided));
        let verdict = side.verdict().unwrap_or(SideVerdict::DefaultDeny);
        Said { verdict, response: side.response(), staged: side.staged() }
    }
}

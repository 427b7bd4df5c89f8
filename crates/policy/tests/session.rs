//! A session that is edited at random always has the plan that a compilation from nothing gives.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowgate_conformance::generate::{Case, Generator};
use flowgate_identity::{Labels, LocalAllocator, NumericIdentity};
use flowgate_policy::{
    compile::{CompileError, Compiler, Session},
    inventory::{Inventory, Workload},
    model::Policy,
    options::Options,
    plan::{Plan, PlannedPeer},
};

const SESSIONS: usize = 60;
const EDITS: usize = 40;

fn session(case: &Case, options: &Options) -> Session<LocalAllocator> {
    let mut session = Session::new(LocalAllocator::new(), options.clone());
    case.policies.iter().for_each(|policy| session.set_policy(policy.clone()));
    take_over(&mut session, &case.inventory);
    session
}

fn take_over(session: &mut Session<LocalAllocator>, inventory: &Inventory) {
    for (name, labels) in &inventory.namespaces {
        session.set_namespace(name, Some(labels.clone()));
    }
    inventory.nodes.iter().for_each(|node| session.set_node(node.clone()));
    inventory.workloads.iter().for_each(|workload| session.set_workload(workload.clone()));
}

/// An inventory in the order in which a session tells its own.
fn sorted(inventory: &Inventory) -> Inventory {
    let Inventory { namespaces, mut workloads, mut nodes } = inventory.clone();
    let has_own = |one: &Workload| !one.host_network && !one.addresses.is_empty();
    workloads.sort_by(|a, b| (!has_own(a), &a.id).cmp(&(!has_own(b), &b.id)));
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Inventory { namespaces, workloads, nodes }
}

fn pick<T: Clone>(generator: &mut Generator, of: &[T]) -> Option<T> {
    let at = generator.below(of.len().max(1) as u64);
    of.get(usize::try_from(at).ok()?).cloned()
}

/// What a session is edited by: another case's parts, and changes of its own.
struct Editor<'g> {
    generator: &'g mut Generator,
    session: Session<LocalAllocator>,
}

impl Editor<'_> {
    fn edit(&mut self) {
        let other = self.generator.case();
        match self.generator.below(13) {
            0..4 => self.change_policy(&other),
            4 | 5 => self.remove_policy(),
            6 => self.change_workload(&other),
            7 => self.remove_workload(),
            8 => self.relabel(&other),
            9 => self.relabel_namespace(&other),
            10 => self.change_node(),
            11 => self.retune(&other),
            _ => other.policies.iter().for_each(|policy| self.session.set_policy(policy.clone())),
        }
    }

    fn policies(&self) -> Vec<Policy> {
        self.session.policies().cloned().collect()
    }

    /// The rules of another case under a name that is there, or under their own.
    fn change_policy(&mut self, other: &Case) {
        let Some(mut policy) = pick(self.generator, &other.policies) else { return };
        let (known, anew) = (self.policies(), self.generator.below(3) == 0);
        if let Some(known) = pick(self.generator, &known).filter(|_| !anew) {
            policy.id = known.id;
        }
        self.session.set_policy(policy);
    }

    fn remove_policy(&mut self) {
        let policies = self.policies();
        if let Some(policy) = pick(self.generator, &policies) {
            assert!(self.session.remove_policy(&policy.id));
            assert!(!self.session.remove_policy(&policy.id));
        }
    }

    fn change_workload(&mut self, other: &Case) {
        if let Some(mut workload) = pick(self.generator, &other.inventory.workloads) {
            let anew = self.generator.below(2) == 0;
            workload.id.name = if anew { "another".into() } else { workload.id.name };
            self.session.set_workload(workload);
        }
    }

    fn a_workload(&mut self) -> Option<Workload> {
        let workloads = self.session.inventory().workloads;
        pick(self.generator, &workloads)
    }

    fn remove_workload(&mut self) {
        if let Some(workload) = self.a_workload() {
            assert!(self.session.remove_workload(&workload.id));
            assert!(!self.session.remove_workload(&workload.id));
        }
    }

    fn relabel(&mut self, other: &Case) {
        let like = pick(self.generator, &other.inventory.workloads);
        if let (Some(workload), Some(like)) = (self.a_workload(), like) {
            let Workload { labels, ports, node, .. } = like;
            self.session.set_workload(Workload { labels, ports, node, ..workload });
        }
    }

    fn relabel_namespace(&mut self, other: &Case) {
        let namespaces: Vec<_> = other.inventory.namespaces.clone().into_iter().collect();
        if let Some((name, labels)) = pick(self.generator, &namespaces) {
            let known = self.generator.below(4) != 0;
            self.session.set_namespace(&name, Some(labels).filter(|_| known));
        }
    }

    fn change_node(&mut self) {
        let nodes = self.session.inventory().nodes;
        let Some(mut node) = pick(self.generator, &nodes) else { return };
        match self.generator.below(3) {
            0 => {
                assert!(self.session.remove_node(&node.name));
                assert!(!self.session.remove_node(&node.name));
            }
            1 => {
                node.labels = Labels::from_iter([("app", "db")]);
                self.session.set_node(node);
            }
            _ => {
                node.name = "node-9".into();
                node.addresses = vec!["198.51.100.99".parse().expect("an address")];
                self.session.set_node(node);
            }
        }
    }

    /// Other ports and another value for the log, with the peers that there were: their classes stay.
    fn retune(&mut self, other: &Case) {
        let known = self.policies();
        let (known, like) = (pick(self.generator, &known), pick(self.generator, &other.policies));
        let (Some(known), Some(like)) = (known, like) else { return };
        let rules = [&like.ingress, &like.egress].into_iter().flatten().flatten();
        let ports: Vec<_> = rules.map(|rule| rule.ports.clone()).collect();
        let mut policy = Policy { log: like.log, ..known };
        let rules = [&mut policy.ingress, &mut policy.egress].into_iter().flatten().flatten();
        for rule in rules {
            rule.ports = pick(self.generator, &ports).unwrap_or(rule.ports.clone());
        }
        self.session.set_policy(policy);
    }

    /// The session's plan and that of a compilation of its input from nothing.
    fn both(&mut self) -> [Result<Arc<Plan>, CompileError>; 2] {
        let (inventory, policies) = (self.session.inventory(), self.policies());
        let options = self.session.options().clone();
        let mut compiler = Compiler::new(LocalAllocator::new());
        let fresh = compiler.compile(&inventory, &policies, &options).map(Arc::new);
        [self.session.plan(), fresh]
    }
}

/// The plan without the numbers of identities.
fn bare(plan: &Plan) -> Plan {
    let peers = plan.peers.iter();
    let bare = |peer: &PlannedPeer| PlannedPeer { identity: NumericIdentity(0), ..peer.clone() };
    Plan { peers: peers.map(bare).collect(), ..plan.clone() }
}

/// Who shares an identity in one shares it in the other.
fn assert_same_identities(one: &Plan, other: &Plan) {
    let pairs = one.peers.iter().zip(&other.peers).map(|(a, b)| (a.identity, b.identity));
    let pairs: BTreeSet<_> = pairs.collect();
    let (there, back): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (pairs.iter().copied().collect(), pairs.iter().map(|(a, b)| (*b, *a)).collect());
    assert_eq!((there.len(), back.len()), (pairs.len(), pairs.len()), "{pairs:?}");
}

#[test]
fn an_edited_session_has_the_plan_of_a_compilation_from_nothing() {
    let mut generator = Generator::new(4711);
    let (mut same, mut refused) = (0, 0);
    for number in 0..SESSIONS {
        let case = generator.case();
        let options = generator.options(&case);
        let session = session(&case, &options);
        assert_eq!(session.inventory(), sorted(&case.inventory), "session {number}");
        let mut editor = Editor { generator: &mut generator, session };
        for edit in 0..EDITS {
            match editor.both() {
                [Ok(edited), Ok(fresh)] => {
                    assert_eq!(bare(&edited), bare(&fresh), "session {number}, edit {edit}");
                    assert_same_identities(&edited, &fresh);
                    same += 1;
                }
                [edited, fresh] => {
                    assert_eq!(edited.err(), fresh.err(), "session {number}, edit {edit}");
                    refused += 1;
                }
            }
            for _ in 0..=editor.generator.below(2) {
                editor.edit();
            }
        }
    }
    println!("{same} plans compared, {refused} refused by both");
    assert!(same > SESSIONS * EDITS / 2 && refused > 0, "{same} compared, {refused} refused");
}

//! An inventory and policies that change, and the plan that they come to.
//!
//! Not here: what the plan of one unchanging input is ([`Compiler`](super::Compiler)), and when to
//! compile: that is the embedder's business.
//! Invariant: a session's plan is the one that a compilation of its input from nothing gives, but for
//! the numbers of identities. Tested by editing at random (`tests/session.rs`).

use std::sync::Arc;

use flowgate_identity::{IdentityAllocator, Labels};

use crate::{
    compile::{CompileError, identities::Identities, state::State},
    inventory::{Inventory, Node, Workload, WorkloadRef},
    model::{Policy, PolicyRef},
    options::Options,
    plan::Plan,
};

/// An inventory and policies that change, and the plan that they come to.
///
/// It is told what changes, one thing at a time and in whatever order, and compiles on demand. What a
/// change doesn't concern is taken over from the plan before: a changed rule costs its own
/// endpoints' rows, not those of all.
///
/// Identities of peers belong to the session: a number stays taken until the plan after the first one
/// without its peer, so that a plan may run while the next one is made.
///
/// ```
/// use flowgate_identity::{Labels, LocalAllocator, Selector};
/// use flowgate_policy::{
///     compile::Session,
///     inventory::{Workload, WorkloadRef},
///     model::{NamespaceSelector, Policy, PolicyKind, PolicyRef, WorkloadSelector},
///     options::Options,
/// };
///
/// let mut session = Session::new(LocalAllocator::new(), Options::default());
/// session.set_workload(Workload {
///     id: WorkloadRef { namespace: "shop".into(), name: "web".into() },
///     labels: Labels::from_iter([("app", "web")]),
///     addresses: vec!["198.18.0.1".parse()?],
///     ports: vec![],
///     node: None,
///     host_network: false,
/// });
/// let open = session.plan()?;
///
/// let id = PolicyRef {
///     kind: PolicyKind::NetworkPolicy,
///     namespace: "shop".into(),
///     name: "isolate".into(),
/// };
/// let subject = WorkloadSelector {
///     namespaces: NamespaceSelector::Named("shop".into()),
///     labels: Selector::everything(),
/// };
/// session.set_policy(Policy { ingress: Some(vec![]), ..Policy::new(id.clone(), subject) });
/// assert_ne!(*session.plan()?, *open);
/// session.remove_policy(&id);
/// assert_eq!(*session.plan()?, *open);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Session<A> {
    identities: Identities<A>,
    state: State,
    /// The plan of the input as it is; `None`: it has changed since the last one.
    plan: Option<Arc<Plan>>,
}

impl<A: IdentityAllocator> Session<A> {
    /// A session without workloads, nodes and policies, which takes identities from `allocator`.
    #[must_use]
    pub fn new(allocator: A, options: Options) -> Self {
        Self { identities: Identities::new(allocator), state: State::new(options), plan: None }
    }

    /// What it was told beside the input.
    #[must_use]
    pub const fn options(&self) -> &Options {
        self.state.options()
    }

    /// Who knows what the identities stand for.
    #[must_use]
    pub const fn allocator(&self) -> &A {
        self.identities.allocator()
    }

    /// The policies, sorted by name.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.state.policies().iter()
    }

    /// A copy of whom it knows.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        self.state.census().inventory()
    }

    /// A workload that it knows.
    #[must_use]
    pub fn workload(&self, name: &WorkloadRef) -> Option<&Workload> {
        self.state.census().workload(name)
    }

    /// Adds a policy, or puts it in the place of the one of that name.
    pub fn set_policy(&mut self, policy: Policy) {
        if self.state.set_policy(policy) {
            self.plan = None;
        }
    }

    /// Removes a policy. `false`: there is none of that name.
    pub fn remove_policy(&mut self, name: &PolicyRef) -> bool {
        let removed = self.state.remove_policy(name);
        if removed {
            self.plan = None;
        }
        removed
    }

    /// Adds a workload, or puts it in the place of the one of that name.
    pub fn set_workload(&mut self, workload: Workload) {
        if self.workload(&workload.id) != Some(&workload) {
            self.state.recount().set_workload(workload);
            self.plan = None;
        }
    }

    /// Removes a workload. `false`: there is none of that name.
    pub fn remove_workload(&mut self, name: &WorkloadRef) -> bool {
        let known = self.workload(name).is_some();
        if known {
            self.state.recount().remove_workload(name);
            self.plan = None;
        }
        known
    }

    /// Adds a node, or puts it in the place of the one of that name.
    pub fn set_node(&mut self, node: Node) {
        self.state.recount().set_node(node);
        self.plan = None;
    }

    /// Removes a node. `false`: there is none of that name.
    pub fn remove_node(&mut self, name: &Arc<str>) -> bool {
        let removed = self.state.recount().remove_node(name);
        if removed {
            self.plan = None;
        }
        removed
    }

    /// Labels a namespace. `None`: it isn't known any more, which is as if its only label were its
    /// name.
    pub fn set_namespace(&mut self, name: &Arc<str>, labels: Option<Labels>) {
        self.state.recount().set_namespace(name, labels);
        self.plan = None;
    }

    /// The plan of the input as it is: compiled if anything has changed since the last one.
    ///
    /// # Errors
    ///
    /// [`CompileError`] if the input contradicts itself, or if the tables can't express it. The
    /// session stays as it is: once told what mends it, it compiles.
    pub fn plan(&mut self) -> Result<Arc<Plan>, CompileError> {
        if let Some(plan) = &self.plan {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(self.compile()?);
        self.plan = Some(Arc::clone(&plan));
        Ok(plan)
    }

    fn compile(&mut self) -> Result<Plan, CompileError> {
        if self.state.is_worn() {
            self.state = self.state.renewed();
            self.identities.forget();
        }
        let draft = self.state.build()?;
        let peers = draft.peers.iter().map(|(who, _)| *who);
        let identities = self.identities.renew(peers, |who| self.state.identity_labels(who))?;
        Ok(draft.plan(&self.state, identities))
    }
}

#[cfg(test)]
mod tests {
    use flowgate_identity::{LocalAllocator, Selector};

    use super::*;
    use crate::{
        compile::state::SPARE,
        model::{NamespaceSelector, PolicyKind, WorkloadSelector},
    };

    fn pod(app: String) -> Workload {
        Workload {
            id: WorkloadRef { namespace: "a".into(), name: "pod".into() },
            labels: Labels::from_iter([("app", app)]),
            addresses: vec![std::net::IpAddr::from([198, 18, 0, 1])],
            ports: vec![],
            node: None,
            host_network: false,
        }
    }

    /// One that is its node, and one that has no address yet.
    fn what_stays() -> [Workload; 2] {
        let named = |name: &str| WorkloadRef { namespace: "a".into(), name: name.into() };
        let host = Workload {
            id: named("host"),
            addresses: vec![std::net::IpAddr::from([198, 51, 100, 2])],
            node: Some(node().name),
            host_network: true,
            ..pod("host".to_owned())
        };
        let pending = Workload { id: named("pending"), addresses: vec![], ..host.clone() };
        [host, Workload { host_network: false, ..pending }]
    }

    fn node() -> Node {
        let addresses = vec![std::net::IpAddr::from([198, 51, 100, 1])];
        Node { name: "n1".into(), labels: Labels::from_iter([("role", "edge")]), addresses }
    }

    fn isolate() -> Policy {
        let kind = PolicyKind::NetworkPolicy;
        let id = PolicyRef { kind, namespace: "a".into(), name: "isolate".into() };
        let namespaces = NamespaceSelector::Named("a".into());
        let subject = WorkloadSelector { namespaces, labels: Selector::everything() };
        Policy { ingress: Some(vec![]), ..Policy::new(id, subject) }
    }

    #[test]
    fn what_was_is_forgotten_in_the_end_and_no_plan_shows_it() {
        let (rounds, edits) = (40, 100);
        let mut session = Session::new(LocalAllocator::new(), Options::default());
        what_stays().into_iter().for_each(|workload| session.set_workload(workload));
        session.set_namespace(&"a".into(), Some(Labels::from_iter([("team", "web")])));
        session.set_node(node());
        session.set_policy(isolate());
        session.set_workload(pod("same".to_owned()));
        let first = session.plan().unwrap();
        let mut forgotten = 0;
        for round in 0..rounds {
            (0..edits).for_each(|edit| session.set_workload(pod(format!("app-{round}-{edit}"))));
            session.set_workload(pod("same".to_owned()));
            let (before, known) = (session.state.remembered(), session.inventory());
            assert_eq!(*session.plan().unwrap(), *first, "round {round}");
            assert_eq!(session.inventory(), known, "round {round}");
            assert!(before < 2 * SPARE, "{before} parts are remembered in round {round}");
            forgotten += usize::from(session.state.remembered() < before);
        }
        // Each edit makes a kind of peers and a kind of endpoints.
        assert!(
            rounds * edits > SPARE && (2..rounds / 2).contains(&forgotten),
            "{forgotten} times"
        );
    }

    #[test]
    fn identities_are_those_of_their_peers_when_what_was_is_forgotten() {
        let mut session = Session::new(LocalAllocator::new(), Options::default());
        // Not in the order in which they are numbered anew.
        for (name, last) in [("z", 2), ("b", 3)] {
            let mut workload = pod(name.to_owned());
            workload.id.name = name.into();
            workload.addresses = vec![std::net::IpAddr::from([198, 18, 0, last])];
            session.set_workload(workload);
        }
        session.plan().unwrap();
        let remembered = |session: &Session<_>| session.state.remembered();
        (0..=SPARE).for_each(|edit| session.set_workload(pod(format!("app-{edit}"))));
        let before = remembered(&session);
        let plan = session.plan().unwrap();
        assert!(remembered(&session) < before);
        let labels: std::collections::BTreeMap<_, _> = session.allocator().iter().collect();
        for peer in &plan.peers {
            if let Some(labels) = labels.get(&peer.identity) {
                assert_eq!(**labels, peer.key.identity(None), "{:?}", peer.key);
            }
        }
        assert_eq!(labels.len(), 3, "the pods'");
    }
}

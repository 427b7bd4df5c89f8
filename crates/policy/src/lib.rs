//! Typed network policies: compiled to dense tables, simulated and explained.
//!
//! [`model`] says what a policy is, [`inventory`] of whom it speaks. [`compile`] turns both into a
//! [`plan`]: the tables that the kernel's programs read. [`explain`] answers from a plan,
//! [`oracle`] straight from the specification, and both in terms of [`outcome`]. [`cost`] says
//! before anything is installed whether a plan fits. [`account`] gives the reasons of a verdict, rule by
//! rule, [`diff`] what two plans decide differently, and [`replay`] which recorded flows a plan would
//! judge differently.
//!
//! Not here: manifests and API objects (`flowgate-kubernetes`), kernels and maps
//! (`flowgate-datapath`), and any I/O.
//!
//! Invariants: a miss is never an allow; an empty set of peers or ports matches nothing; the same
//! input in whatever order gives the same plan.
//!
//! Tested by unit tests, by cases after the advisories of others, and by a property: plan and
//! oracle agree over generated inventories, policies and flows.
//!
//! ```
//! use flowgate_identity::{Labels, LocalAllocator, Selector};
//! use flowgate_policy::{
//!     compile::Compiler,
//!     inventory::{Inventory, Workload, WorkloadRef},
//!     model::{NamespaceSelector, Policy, PolicyKind, PolicyRef, WorkloadSelector},
//!     options::Options,
//!     outcome::{Flow, FlowProtocol, SideVerdict},
//! };
//!
//! let web = Workload {
//!     id: WorkloadRef { namespace: "shop".into(), name: "web".into() },
//!     labels: Labels::from_iter([("app", "web")]),
//!     addresses: vec!["198.18.0.1".parse()?],
//!     ports: vec![],
//!     node: None,
//!     host_network: false,
//! };
//! let id = PolicyRef {
//!     kind: PolicyKind::NetworkPolicy,
//!     namespace: "shop".into(),
//!     name: "isolate".into(),
//! };
//! let subject = WorkloadSelector {
//!     namespaces: NamespaceSelector::Named("shop".into()),
//!     labels: Selector::everything(),
//! };
//! let isolate = Policy { ingress: Some(vec![]), ..Policy::new(id, subject) };
//! let inventory = Inventory { workloads: vec![web], ..Inventory::default() };
//! let mut compiler = Compiler::new(LocalAllocator::new());
//! let plan = compiler.compile(&inventory, &[isolate], &Options::default())?;
//! let outcome = plan.decide(&Flow {
//!     source: "203.0.113.1".parse()?,
//!     destination: "198.18.0.1".parse()?,
//!     protocol: FlowProtocol::Tcp(80),
//! });
//! assert_eq!(outcome.ingress.verdict(), Some(SideVerdict::DefaultDeny));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod account;
pub mod compile;
mod contradiction;
pub mod cost;
pub mod diff;
pub mod explain;
pub mod extension;
pub mod fate;
pub mod host;
pub mod install;
pub mod inventory;
mod ipcache;
pub mod model;
pub mod options;
pub mod oracle;
pub mod outcome;
pub mod peer_key;
pub mod plan;
pub mod replay;
pub mod roster;
mod shares;
pub mod simulate;

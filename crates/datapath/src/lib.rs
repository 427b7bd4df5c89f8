//! The datapath: load the programs, attach endpoints, apply plans, watch what happens.
//!
//! [`Datapath::builder`] makes the decisions (kernel or host, sizes, pins), [`Datapath::attach`]
//! binds a workload to a link, [`Datapath::apply`] publishes a plan as one generation,
//! [`Datapath::events`] tells what became of flows. Everything detaches when the datapath is dropped,
//! unless it was pinned and [persisted](Datapath::persist).
//!
//! Not here: what a policy means (`flowgate-policy`), who watches an API for changes (the
//! embedder). aya, netlink and the BPF file system stay behind `sys`; no type of theirs is in a public
//! signature.
//!
//! The host backend needs no privileges and decides by the same code:
//!
//! ```
//! use flowgate_datapath::{Backend, Datapath, EndpointSpec};
//! # use flowgate_identity::LocalAllocator;
//! # use flowgate_policy::{compile::Compiler, inventory::*, options::Options, outcome::*};
//! # let web = WorkloadRef { namespace: "shop".into(), name: "web".into() };
//! # let inventory = Inventory {
//! #     workloads: vec![Workload {
//! #         id: web.clone(),
//! #         labels: Default::default(),
//! #         addresses: vec!["198.18.0.1".parse()?],
//! #         ports: vec![],
//! #         node: None,
//! #         host_network: false,
//! #     }],
//! #     ..Inventory::default()
//! # };
//! # let plan = Compiler::new(LocalAllocator::new()).compile(&inventory, &[], &Options::default())?;
//! let mut datapath = Datapath::builder().backend(Backend::Host).open()?;
//! let _ = datapath.attach(&EndpointSpec::new(web, "lo").address("198.18.0.1".parse()?))?;
//! let applied = datapath.apply(&plan.into())?;
//! assert_eq!((applied.generation, applied.ready.len()), (1, 1));
//! let outcome = datapath.simulate(&Flow {
//!     source: "203.0.113.7".parse()?,
//!     destination: "198.18.0.1".parse()?,
//!     protocol: FlowProtocol::Tcp(80),
//! })?;
//! assert!(outcome.allowed());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builder;
mod counters;
mod datapath;
pub mod decap;
mod endpoint;
mod error;
mod events;
mod flows;
pub mod health;
pub mod lb;
mod migration;
mod options;
mod pins;
mod replay;
mod report;
pub mod server_id;
mod sys;
mod tables;
mod verification;

pub use builder::{Backend, Builder};
pub use counters::{Counters, DropKey, EndpointTraffic};
pub use datapath::{Datapath, NotPinned};
pub use endpoint::{Attached, Delivery, EndpointId, EndpointSpec, HookKind};
pub use error::{ApplyError, AskError, AttachError, OpenError, ReplayError, TableError};
pub use events::{Events, FlowEnd, FlowEvent};
pub use flows::TrackedFlow;
pub use options::Options;
pub use replay::{Action, Replayed, Stage};
pub use report::{BackendKind, ProgramReport, Report, State};
pub use verification::{Verification, VerifierCost};

// For tests that watch single writes: the tables without a datapath around them.
#[doc(hidden)]
pub use sys::kernel::KernelTables;

//! An embeddable SDK for eBPF datapaths: identity-based network policy on TC hooks, in stable Rust.
//!
//! This crate is the facade: each module is one of flowgate's crates, and [`prelude`] has the names
//! that most programs need. It decides nothing itself.
//!
//! | module | what it does | what it needs |
//! |---|---|---|
//! | [`kubernetes`] | reads manifests into typed models, strictly | |
//! | [`identity`] | labels, selectors, numeric identities, the model of the ipcache | |
//! | [`policy`] | compiles policies to a plan; simulates, explains, says what a plan costs | |
//! | [`datapath`] | loads programs, attaches endpoints, applies plans, tells of flows | Linux; its kernel backend 6.1 and privileges |
//! | [`abi`] | drop reasons, counters, and every byte that crosses the kernel boundary | |
//!
//! The host backend needs no privileges: it runs the code of the eBPF programs over tables in this
//! process. [`Backend::Kernel`](datapath::Backend::Kernel) is the same program on live traffic, with
//! real interfaces.
//!
//! ```
//! use flowgate::prelude::*;
//!
//! const SHOP: &str = "
//! {apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, status: {podIP: 198.18.0.1}}
//! ---
//! {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: partners, namespace: shop},
//!  spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24}}]}]}}";
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut shop = Manifests::default();
//!     shop.read("shop.yaml", SHOP)?;
//!     let mut compiler = Compiler::new(LocalAllocator::new());
//!     let plan = compiler.compile(&shop.inventory, &shop.policies, &PolicyOptions::default())?;
//!     let mut datapath = Datapath::builder().backend(Backend::Host).open()?;
//!     let web = EndpointSpec::new(shop.inventory.workloads[0].id.clone(), "veth-web");
//!     let _ = datapath.attach(&web.address("198.18.0.1".parse()?))?;
//!     let _ = datapath.apply(&plan.into())?;
//!     let (source, destination) = ("203.0.113.7".parse()?, "198.18.0.1".parse()?);
//!     let flow = Flow { source, destination, protocol: FlowProtocol::Tcp(80) };
//!     println!("{flow}: {:?}", datapath.simulate(&flow)?.ingress);
//!     Ok(())
//! }
//! ```
//!
//! It prints, on one line, that `web` is isolated by `partners`, which has no rule for that source:
//!
//! ```text
//! 203.0.113.7 -> 198.18.0.1 TCP/80: Verdict { verdict: DefaultDeny, policies: {PolicyRef {
//! kind: NetworkPolicy, namespace: "shop", name: "partners" }} }
//! ```
//!
//! Tested by this example, by those of the README, and by `tests/papers.rs`, which holds the project's
//! papers against the code.
#![forbid(unsafe_code)]

pub use flowgate_abi as abi;
pub use flowgate_datapath as datapath;
pub use flowgate_identity as identity;
pub use flowgate_kubernetes as kubernetes;
pub use flowgate_policy as policy;

/// The names that most programs need.
///
/// Two crates have `Options`: here [`Options`](prelude::Options) are the datapath's, and the
/// compiler's are [`PolicyOptions`](prelude::PolicyOptions).
pub mod prelude {
    pub use flowgate_abi::{
        DropReason,
        event::{Counter, Kind},
    };
    pub use flowgate_datapath::{
        ApplyError, AttachError, Attached, Backend, Builder, Counters, Datapath, Delivery,
        EndpointId, EndpointSpec, Events, FlowEvent, HookKind, OpenError, Options, Report,
    };
    pub use flowgate_identity::{
        IdentityAllocator, Labels, LocalAllocator, NumericIdentity, Selector,
    };
    pub use flowgate_kubernetes::{AddressRanges, ManifestError, Manifests};
    pub use flowgate_policy::{
        compile::{CompileError, Compiler},
        install::Applied,
        inventory::{Inventory, Workload, WorkloadRef},
        model::{Policy, PolicyRef},
        options::Options as PolicyOptions,
        outcome::{Flow, FlowProtocol, Outcome, Side, SideVerdict},
        plan::Plan,
    };
}

/// The README's examples run, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

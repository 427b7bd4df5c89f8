//! An embeddable SDK for eBPF datapaths: identity-based network policy on TC hooks, and load balancing on XDP,
//! in stable Rust.
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
//! | [`services`] | services, backends, and how flows are spread over them | |
//! | [`datapath::lb`] | balances services on XDP | Linux; its kernel backend 6.1 and privileges |
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
//! A load balancer: with `Backend::Kernel`, `.pin(directory)` and `.attach("eth0", XdpAttach::Any)` it balances what
//! comes in by an interface.
//!
//! ```
//! use std::time::Instant;
//! use flowgate::{
//!     datapath::{Backend as Tables, lb::{Fate, LoadBalancer}},
//!     services::{Services, model::{Backend, BackendState, Service}},
//! };
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let web = Service::tcp("web", 80)
//!         .address("198.51.100.1".parse()?)
//!         .backend(Backend::new("198.18.0.11".parse()?))
//!         .backend(Backend::new("198.18.0.12".parse()?).weight(2));
//!     let mut balancer = LoadBalancer::builder().backend(Tables::Host).open()?;
//!     let applied = balancer.apply(&Services::new([web])?, Instant::now())?;
//!     assert_eq!(applied.added, 1);
//!
//!     // A SYN from 203.0.113.7 port 40000.
//!     let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6];
//!     frame.extend([0xa6, 0x58, 203, 0, 113, 7, 198, 51, 100, 1, 0x9c, 0x40, 0, 80, 0, 0, 0, 1]);
//!     frame.extend([0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
//!     let balanced = balancer.replay(&frame)?;
//!     assert_eq!(balanced.fate, Fate::Transmit);
//!     println!("to 198.18.0.{}", balanced.frame[33]);
//!
//!     // The first backend gets no new connections any more; those that it has stay.
//!     let first = "198.18.0.11".parse::<std::net::IpAddr>()?.into();
//!     let services = balancer.services().with_state(&"web".into(), first, BackendState::Draining)?;
//!     let _ = balancer.apply(&services, Instant::now())?;
//!     let _ = balancer.tick(Instant::now())?;
//!     Ok(())
//! }
//! ```
//!
//! Tested by these examples, by those of the README, and by `tests/papers.rs`, which holds the project's
//! papers against the code.
#![forbid(unsafe_code)]

pub use flowgate_abi as abi;
pub use flowgate_datapath as datapath;
pub use flowgate_identity as identity;
pub use flowgate_kubernetes as kubernetes;
pub use flowgate_policy as policy;
pub use flowgate_services as services;

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

//! Endpoints: what the embedder says of them, and how they are reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowgate_abi::Mac;
use flowgate_policy::inventory::WorkloadRef;

/// An endpoint to attach: a workload's link on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    pub(crate) workload: WorkloadRef,
    pub(crate) interface: Option<String>,
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
    pub(crate) mac: Mac,
    pub(crate) delivery: Delivery,
    pub(crate) hook: Option<HookKind>,
}

impl EndpointSpec {
    /// A workload whose link has this interface as its host side.
    #[must_use]
    pub fn new(workload: WorkloadRef, interface: impl Into<String>) -> Self {
        Self {
            workload,
            interface: Some(interface.into()),
            v4: None,
            v6: None,
            mac: [0; 6],
            delivery: Delivery::Automatic,
            hook: None,
        }
    }

    /// A workload without a link: nothing is attached, and only replayed frames meet it. For asking
    /// the loaded programs what they would do.
    #[must_use]
    pub fn unlinked(workload: WorkloadRef) -> Self {
        Self { interface: None, ..Self::new(workload, "") }
    }

    /// Its address; one of either family, the last one given counts. It may send from no other.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.v4 = Some(address),
            IpAddr::V6(address) => self.v6 = Some(address),
        }
        self
    }

    /// The Ethernet address of its own side: packets that are redirected to it carry it, and frames
    /// and ARP packets that it sends from another one are dropped. Where it isn't given, neither is
    /// done.
    #[must_use]
    pub const fn mac(mut self, mac: Mac) -> Self {
        self.mac = mac;
        self
    }

    /// How packets from other local endpoints reach it.
    #[must_use]
    pub const fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// Attach by this mechanism or not at all, instead of by TCX where the kernel has it and by
    /// clsact elsewhere. Who needs endpoints attached within milliseconds chooses
    /// [`HookKind::Clsact`]; [`HookKind`] says what that costs.
    #[must_use]
    pub const fn hook(mut self, hook: HookKind) -> Self {
        self.hook = Some(hook);
        self
    }
}

/// How packets from other local endpoints reach an endpoint.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Into its network namespace if the link allows it and its Ethernet address is known, else
    /// through the stack.
    #[default]
    Automatic,
    /// `bpf_redirect_peer`: straight into its network namespace. Skips the host's stack, netfilter
    /// and packet taps. If the other end is down, the kernel drops in silence.
    RedirectPeer,
    /// `bpf_redirect`: to the host side of its link. Skips the host's stack.
    Redirect,
    /// Through the host's stack.
    Stack,
}

/// By which mechanism programs are attached.
///
/// TCX makes every attach wait for two of the kernel's grace periods, one for each direction, some
/// 24 ms where there are 250 jiffies a second, however many endpoints there are; clsact attaches in a
/// fraction of a millisecond. Both detach in tens of milliseconds.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// A link of the multi-program API (Linux 6.6). It is the process's, or its pin's, and can't be
    /// removed by others by accident.
    Tcx,
    /// A filter of the clsact qdisc. It stays until it is removed, also when the process is killed;
    /// who removes the interface's clsact qdisc removes it too. It costs a packet somewhat more.
    Clsact,
    /// None: the host backend attaches nothing.
    None,
}

/// An attached endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub(crate) u32);

impl EndpointId {
    /// Its slot in the tables: what events call it.
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.0
    }
}

/// What attaching an endpoint did.
#[must_use]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The endpoint.
    pub id: EndpointId,
    /// The mechanism.
    pub hook: HookKind,
    /// How packets from other local endpoints reach it; never `Automatic`.
    pub delivery: Delivery,
    /// It was adopted: flows went on all the time.
    pub adopted: bool,
}

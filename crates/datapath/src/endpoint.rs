//! Endpoints: what the embedder says of them, and how they are reached.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use flowgate_abi::{Mac, endpoint::Endpoint};
use flowgate_policy::inventory::WorkloadRef;

/// An endpoint to attach: a workload's link on this node, or an uplink of the node itself.
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

    /// This node as an end of its own, on an uplink: what comes in by it to the node's addresses, and what
    /// leaves by it from them, is judged by the policies whose subjects are nodes; so is what the node's
    /// own workloads open to it, at their links. `name` is that of the inventory.
    ///
    /// - The node is open until a plan is applied in which a policy selects it, and again once none does.
    ///   [`Policy::node_failsafe`](flowgate_policy::model::Policy::node_failsafe) keeps a way in.
    /// - An uplink has one address of either family; other addresses of the node are judged nowhere. So
    ///   are groups, broadcast, link-local addresses, and what isn't IP.
    /// - What is forwarded passes unjudged. On the way out that is told by the address after netfilter: what
    ///   it masquerades is the node's. On the way in the address before it counts: a node port is the
    ///   node's.
    /// - Outer packets of a tunnel are the node's, and need to be allowed.
    #[must_use]
    pub fn node(name: impl Into<Arc<str>>, uplink: impl Into<String>) -> Self {
        Self::new(WorkloadRef::node(name), uplink)
    }

    /// A workload or node without a link: nothing is attached, and only replayed frames meet it. For asking
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
    /// done. A node's means nothing.
    #[must_use]
    pub const fn mac(mut self, mac: Mac) -> Self {
        self.mac = mac;
        self
    }

    /// How packets from other local endpoints reach it; a node by its stack, whatever is said.
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

impl EndpointSpec {
    /// It is this node itself.
    pub(crate) fn is_node(&self) -> bool {
        self.workload.as_node().is_some()
    }

    /// The endpoint's flags, with this delivery.
    pub(crate) fn flags(&self, delivery: Delivery) -> u32 {
        if self.is_node() {
            return Endpoint::NODE;
        }
        let check = if self.mac == UNKNOWN_MAC { 0 } else { Endpoint::CHECK_MAC };
        check
            | match delivery {
                Delivery::RedirectPeer => Endpoint::REDIRECT_PEER,
                Delivery::Redirect => Endpoint::REDIRECT,
                Delivery::Stack | Delivery::Automatic => 0,
            }
    }
}

/// No frame comes from this Ethernet address.
pub(crate) const UNKNOWN_MAC: Mac = [0; 6];

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
    /// who removes the interface's clsact qdisc removes it too. It costs a packet somewhat more. It is removed by its
    /// interface's index: drop what attached it in the network namespace in which it was attached.
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

//! The node: a router without a link to the outside.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
};

use netlink_packet_route::neighbour::NeighbourState;

use crate::{EchoServers, LabError, Mac, Namespace, Pod, Segment, netlink::Netlink, pod, sysctl};

/// Where kernels and tools expect the BPF file system.
const BPFFS: &str = "/sys/fs/bpf";
/// The kernel gives the loopback interface of every network namespace this index.
const LOOPBACK: u32 = 1;

/// A node in network and mount namespaces of its own.
///
/// It forwards IPv4 and IPv6 between its pods, and has a BPF file system that nobody else sees.
#[derive(Debug)]
pub struct Node {
    namespace: Namespace,
    netlink: Netlink,
    pods_made: u32,
    segments_made: u32,
}

impl Node {
    /// Moves the calling thread into new network and mount namespaces, for good, and makes a node
    /// of them. Threads that it starts afterwards are on the node too; other threads are where they
    /// were, so an example calls this first. In a test it concerns the test's own thread alone.
    ///
    /// The limit of open files is raised as far as it may be, since every pod holds some.
    ///
    /// # Errors
    ///
    /// [`LabError`] if a namespace, a mount or a setting is refused; [`crate::available`] tells
    /// beforehand.
    pub fn enter() -> Result<Self, LabError> {
        let namespace = Namespace::enter_new()?;
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|error| LabError::Unshare { kind: "mount", source: error.into() })?;
        mount_bpffs()?;
        raise_file_limit();
        sysctl::set_everywhere()?;
        sysctl::set_on_a_node()?;
        let mut netlink = Netlink::open()?;
        netlink.set_up(LOOPBACK)?;
        Ok(Self { namespace, netlink, pods_made: 0, segments_made: 0 })
    }

    /// Gives the node an address of its own, on its loopback interface.
    ///
    /// # Errors
    ///
    /// [`LabError::Address`] if it can't be one, [`LabError::Netlink`] if the kernel refuses it.
    pub fn add_address(&mut self, address: IpAddr) -> Result<(), LabError> {
        pod::check_address(address, "the node")?;
        self.netlink.add_address(LOOPBACK, address)
    }

    /// Starts servers of the node's own that send back what they get, on these TCP and UDP ports of its
    /// addresses. Only from the thread that has entered.
    ///
    /// # Errors
    ///
    /// [`LabError::Listen`] if a port is taken.
    pub fn serve(
        &self,
        addresses: &[IpAddr],
        tcp: &[u16],
        udp: &[u16],
    ) -> Result<EchoServers, LabError> {
        EchoServers::start("the node", addresses, tcp, udp)
    }

    /// Adds a pod with these addresses: a network namespace behind a veth pair, whose end on the node
    /// is called `fg-<number>`.
    ///
    /// Next hops are known on both sides (permanent neighbours), so that no packet waits for another.
    ///
    /// # Errors
    ///
    /// [`LabError::Address`] for an address that no pod can have, otherwise what the kernel refuses.
    pub fn add_pod(&mut self, name: &str, addresses: &[IpAddr]) -> Result<Pod, LabError> {
        self.pods_made += 1;
        let number = self.pods_made;
        Pod::make(&mut self.netlink, number, name, addresses)
    }

    /// Adds an Ethernet segment without hosts. The node has no address in it.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn add_segment(&mut self) -> Result<Segment, LabError> {
        self.segments_made += 1;
        Segment::make(&mut self.netlink, self.segments_made)
    }

    /// Adds a host to a segment: a network namespace behind a veth pair, with addresses on networks of 24
    /// (IPv4) and 64 bits (IPv6). It finds the segment's other hosts by asking for them, and knows no router.
    ///
    /// # Errors
    ///
    /// [`LabError::Address`] for an address that no host can have, otherwise what the kernel refuses.
    pub fn add_host(
        &mut self,
        segment: &Segment,
        name: &str,
        addresses: &[IpAddr],
    ) -> Result<Pod, LabError> {
        self.pods_made += 1;
        let number = self.pods_made;
        Pod::make_on(&mut self.netlink, (number, segment), name, addresses)
    }

    /// Sends whatever of a family (4 or 6) the node has no other route for to a pod.
    ///
    /// # Errors
    ///
    /// [`LabError::Netlink`] if the kernel refuses the route.
    ///
    /// # Panics
    ///
    /// If the pod has no address of the family.
    pub fn route_rest_to(&mut self, pod: &Pod, family: u8) -> Result<(), LabError> {
        let gateway = pod.address_of(family).expect("an address of the family");
        self.netlink.add_default_route(pod.host_interface_index(), gateway)
    }

    /// Takes a pod away, together with its link and its routes. Dropping a [`Pod`] does it too, but
    /// later: as soon as the kernel comes to it.
    ///
    /// # Errors
    ///
    /// [`LabError::Netlink`] if the link is gone already.
    pub fn remove_pod(&mut self, pod: Pod) -> Result<(), LabError> {
        self.netlink.remove_link(pod.host_interface_index())
    }

    /// Sets the longest packet that both ends of a pod's link take.
    ///
    /// # Errors
    ///
    /// [`LabError::Netlink`] if the link doesn't take it.
    pub fn set_mtu(&mut self, pod: &Pod, mtu: u32) -> Result<(), LabError> {
        self.netlink.set_mtu(pod.host_interface_index(), mtu)?;
        pod.set_mtu(mtu)
    }

    /// Who the node believes to have an address behind a pod's link; `None`: nobody.
    ///
    /// # Errors
    ///
    /// [`LabError::Netlink`] if the kernel doesn't say.
    pub fn neighbour(&mut self, pod: &Pod, address: IpAddr) -> Result<Option<Mac>, LabError> {
        self.netlink.neighbour(pod.host_interface_index(), address)
    }

    /// Has the node believe that `mac` has an address behind a pod's link, until it is told otherwise.
    ///
    /// # Errors
    ///
    /// [`LabError::Netlink`] if the kernel refuses it.
    pub fn add_neighbour(&mut self, pod: &Pod, address: IpAddr, mac: Mac) -> Result<(), LabError> {
        let entry = (mac, NeighbourState::Stale);
        self.netlink.add_neighbour(pod.host_interface_index(), address, entry)
    }

    /// The node's network namespace: for threads that were started before [`Node::enter`].
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The private BPF file system.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        Path::new(BPFFS)
    }
}

/// Mounts a BPF file system that this mount namespace alone sees.
fn mount_bpffs() -> Result<(), LabError> {
    let none: Option<&str> = None;
    // Otherwise the mount would spread to the machine's namespace.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(refused("a private root", "/"))?;
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), none).map_err(refused("bpffs", BPFFS))
}

fn refused(what: &'static str, target: &str) -> impl FnOnce(nix::Error) -> LabError {
    let target = PathBuf::from(target);
    move |error| LabError::Mount { what, target, source: error.into() }
}

/// If it isn't allowed, a lab of ordinary size still fits.
fn raise_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

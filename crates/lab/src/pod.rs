//! A pod: a network namespace with one interface.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use netlink_packet_route::neighbour::NeighbourState::Permanent;

use crate::{
    Answer, Crowd, EchoServers, LabError, Mac, Namespace, RawSocket, Segment, StackCounters, Talk,
    namespace::on_a_thread,
    netlink::{Netlink, VethEnd},
    probe, sysctl,
};

/// The pod's own interface, as container runtimes call it.
const INTERFACE: &str = "eth0";
/// The kernel gives the loopback interface of every network namespace this index.
const LOOPBACK: u32 = 1;
/// Nobody has these addresses; they name the node's end of the link as next hop.
const GATEWAYS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 19, 255, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
];

/// A pod of a [`crate::Node`]. Dropping it takes its namespace and its link away.
#[derive(Debug)]
pub struct Pod {
    name: String,
    addresses: Vec<IpAddr>,
    namespace: Namespace,
    host: Interface,
    own: Interface,
}

/// One end of the pod's link.
#[derive(Debug)]
struct Interface {
    name: String,
    index: u32,
    mac: Mac,
}

impl Pod {
    /// Makes pod `number` of the node that `node` speaks to.
    pub(crate) fn make(
        node: &mut Netlink,
        number: u32,
        name: &str,
        addresses: &[IpAddr],
    ) -> Result<Self, LabError> {
        let (pod, mut inside) = Self::plug(node, number, name, addresses)?;
        pod.configure_inside(&mut inside)?;
        pod.configure_node(node)?;
        Ok(pod)
    }

    /// Makes host `number` of the node, in one of its segments.
    pub(crate) fn make_on(
        node: &mut Netlink,
        (number, segment): (u32, &Segment),
        name: &str,
        addresses: &[IpAddr],
    ) -> Result<Self, LabError> {
        let (host, mut inside) = Self::plug(node, number, name, addresses)?;
        for &address in addresses {
            let prefix = if address.is_ipv4() { 24 } else { 64 };
            inside.add_address_on(host.own.index, address, prefix)?;
        }
        node.set_bridge(host.host.index, segment.bridge())?;
        Ok(host)
    }

    /// A namespace with a link to the node, of which nothing is configured; and who speaks to it.
    fn plug(
        node: &mut Netlink,
        number: u32,
        name: &str,
        addresses: &[IpAddr],
    ) -> Result<(Self, Netlink), LabError> {
        addresses.iter().try_for_each(|&address| check_address(address, name))?;
        let (namespace, mut inside) = new_namespace()?;
        let (host, own) = link(node, number, &mut inside, &namespace)?;
        let name = name.to_owned();
        Ok((Self { name, addresses: addresses.to_vec(), namespace, host, own }, inside))
    }

    /// Gives it an address that others have, too, and for which it doesn't answer in its segment: one whose
    /// packets a load balancer hands on.
    ///
    /// # Errors
    ///
    /// [`LabError::Address`] if it can't be one, [`LabError::Netlink`] if the kernel refuses it.
    pub fn add_silent_address(&self, address: IpAddr) -> Result<(), LabError> {
        check_address(address, &self.name)?;
        self.run(|| {
            sysctl::be_silent()?;
            Netlink::open()?.add_address(LOOPBACK, address)
        })?
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its addresses, as they were given.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its first address of a family, 4 or 6.
    #[must_use]
    pub fn address_of(&self, family: u8) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == (family == 4))
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The name of the node's end of its link.
    #[must_use]
    pub fn host_interface(&self) -> &str {
        &self.host.name
    }

    /// The interface index of the node's end, in the node's namespace.
    #[must_use]
    pub fn host_interface_index(&self) -> u32 {
        self.host.index
    }

    /// The Ethernet address of the node's end.
    #[must_use]
    pub fn host_mac(&self) -> Mac {
        self.host.mac
    }

    /// The name of its own interface.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.own.name
    }

    /// The interface index of its own interface, in its own namespace.
    #[must_use]
    pub fn interface_index(&self) -> u32 {
        self.own.index
    }

    /// The Ethernet address of its own interface.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.own.mac
    }

    /// Runs `work` on a thread inside of the pod. Sockets that it makes stay in the pod, whatever
    /// thread uses them later.
    ///
    /// # Errors
    ///
    /// [`LabError`] if there is no such thread.
    ///
    /// # Panics
    ///
    /// As `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        self.namespace.run(work)
    }

    /// Starts servers that send back what they get, on these TCP and UDP ports of all its addresses.
    ///
    /// # Errors
    ///
    /// [`LabError::Listen`] if a port is taken.
    pub fn serve(&self, tcp: &[u16], udp: &[u16]) -> Result<EchoServers, LabError> {
        self.serve_at(&self.addresses, tcp, udp)
    }

    /// The same at other addresses that it has, such as [silent ones](Self::add_silent_address).
    ///
    /// # Errors
    ///
    /// [`LabError::Listen`] if a port is taken, or an address is none of its own.
    pub fn serve_at(
        &self,
        addresses: &[IpAddr],
        tcp: &[u16],
        udp: &[u16],
    ) -> Result<EchoServers, LabError> {
        self.run(|| EchoServers::start(&self.name, addresses, tcp, udp))?
    }

    /// [`probe::tcp`] from this pod.
    ///
    /// # Errors
    ///
    /// As [`probe::tcp`].
    pub fn tcp(&self, destination: SocketAddr, timeout: Duration) -> Result<Answer, LabError> {
        self.run(|| probe::tcp(destination, timeout))?
    }

    /// [`probe::udp`] from this pod.
    ///
    /// # Errors
    ///
    /// As [`probe::udp`].
    pub fn udp(&self, destination: SocketAddr, timeout: Duration) -> Result<Answer, LabError> {
        self.run(|| probe::udp(destination, timeout))?
    }

    /// [`probe::ping`] from this pod.
    ///
    /// # Errors
    ///
    /// As [`probe::ping`].
    pub fn ping(&self, destination: IpAddr, timeout: Duration) -> Result<Answer, LabError> {
        self.run(|| probe::ping(destination, timeout))?
    }

    /// Opens a TCP connection from this pod to an echo server, to be used again and again.
    ///
    /// # Errors
    ///
    /// [`LabError::Probe`] if it can't be opened within `timeout`.
    pub fn talk(&self, destination: SocketAddr, timeout: Duration) -> Result<Talk, LabError> {
        self.run(|| Talk::open(destination, timeout))?
    }

    /// [`probe::udp_of`] from this pod.
    ///
    /// # Errors
    ///
    /// As [`probe::udp_of`].
    pub fn udp_of(
        &self,
        bytes: usize,
        destination: SocketAddr,
        timeout: Duration,
    ) -> Result<Answer, LabError> {
        self.run(|| probe::udp_of(bytes, destination, timeout))?
    }

    /// [`probe::ping_of`] from this pod.
    ///
    /// # Errors
    ///
    /// As [`probe::ping_of`].
    pub fn ping_of(
        &self,
        bytes: usize,
        destination: IpAddr,
        timeout: Duration,
    ) -> Result<Answer, LabError> {
        self.run(|| probe::ping_of(bytes, destination, timeout))?
    }

    /// Opens `count` TCP connections from this pod to an echo server, to be used again and again.
    ///
    /// # Errors
    ///
    /// [`LabError::Probe`] if one of them can't be opened within `timeout`.
    pub fn crowd(
        &self,
        count: usize,
        destination: SocketAddr,
        timeout: Duration,
    ) -> Result<Crowd, LabError> {
        Crowd::open(&self.namespace, destination, (count, timeout))
    }

    /// A socket that sends any frame out of this pod's interface.
    ///
    /// # Errors
    ///
    /// [`LabError::Raw`] without `CAP_NET_RAW`.
    pub fn raw(&self) -> Result<RawSocket, LabError> {
        self.run(|| RawSocket::open(self.own.index))?
    }

    /// What its network stack has counted.
    ///
    /// # Errors
    ///
    /// [`LabError::Counters`] if they can't be read.
    pub fn stack_counters(&self) -> Result<StackCounters, LabError> {
        self.run(StackCounters::read)?
    }

    /// Sets the MTU of its own end.
    pub(crate) fn set_mtu(&self, mtu: u32) -> Result<(), LabError> {
        self.run(|| Netlink::open()?.set_mtu(self.own.index, mtu))?
    }

    fn configure_inside(&self, inside: &mut Netlink) -> Result<(), LabError> {
        let index = self.own.index;
        for &address in &self.addresses {
            inside.add_address(index, address)?;
        }
        for gateway in GATEWAYS {
            if self.addresses.iter().any(|address| address.is_ipv4() == gateway.is_ipv4()) {
                inside.add_neighbour(index, gateway, (self.host.mac, Permanent))?;
                inside.add_default_route(index, gateway)?;
            }
        }
        Ok(())
    }

    fn configure_node(&self, node: &mut Netlink) -> Result<(), LabError> {
        for &address in &self.addresses {
            node.add_neighbour(self.host.index, address, (self.own.mac, Permanent))?;
            node.add_host_route(self.host.index, address)?;
        }
        Ok(())
    }
}

/// A namespace, and a socket to configure it. The thread that made it ends; the descriptors stay.
fn new_namespace() -> Result<(Namespace, Netlink), LabError> {
    on_a_thread(|| {
        let namespace = Namespace::enter_new()?;
        sysctl::set_everywhere()?;
        Ok((namespace, Netlink::open()?))
    })?
}

/// Ties the namespace to the node: both ends up.
fn link(
    node: &mut Netlink,
    number: u32,
    inside: &mut Netlink,
    namespace: &Namespace,
) -> Result<(Interface, Interface), LabError> {
    let host_name = format!("fg-{number}");
    let here = VethEnd { name: &host_name, mac: Mac::of_host(number) };
    let there = VethEnd { name: INTERFACE, mac: Mac::of_pod(number) };
    node.add_veth(&here, &there, namespace)?;
    inside.set_up(LOOPBACK)?;
    Ok((interface(node, &here)?, interface(inside, &there)?))
}

/// Finds one end and sets it up.
fn interface(netlink: &mut Netlink, end: &VethEnd<'_>) -> Result<Interface, LabError> {
    let index = netlink.index_of(end.name)?;
    netlink.set_up(index)?;
    Ok(Interface { name: end.name.to_owned(), index, mac: end.mac })
}

/// Refuses what the kernel would accept as an address, but never route.
pub(crate) fn check_address(address: IpAddr, owner: &str) -> Result<(), LabError> {
    let taken = GATEWAYS.contains(&address);
    let unusable = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    match taken || unusable {
        true => Err(LabError::Address { address, owner: owner.to_owned() }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_pod_can_have_are_refused() {
        for address in ["127.0.0.1", "::", "ff02::1", "198.19.255.254"] {
            let address = address.parse().unwrap();
            assert!(matches!(check_address(address, "web"), Err(LabError::Address { .. })));
        }
        assert!(check_address("198.18.0.1".parse().unwrap(), "web").is_ok());
    }
}

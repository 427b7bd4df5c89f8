//! Whose a sampled frame is: what became of it, and which service and backend it belongs to, as far as its own
//! bytes tell.
//!
//! A frame on its way to a backend names both: the outer headers the backend, the inner ones the service. With
//! full NAT it names the backend, and the first service that has it.

use std::net::IpAddr;

use flowgate_datapath::lb::XdpAction;
use flowgate_services::{
    Services,
    model::{Backend, Forwarding, Protocol, Service, ServiceName},
};

use super::frame::{address, is_next_hop};

/// Whose a frame is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    /// `forwarded`, `answered`, `passed`, `dropped` or `redirected`.
    pub(super) verdict: &'static str,
    pub(super) service: Option<ServiceName>,
    pub(super) backend: Option<IpAddr>,
}

/// By what was said of a frame, and by the frame as it is then.
pub(super) fn of(action: Option<XdpAction>, frame: &[u8], services: &Services) -> Owner {
    let packet = packet(frame);
    let clients = || {
        let service = service(services, packet.as_ref()?.to);
        Some(Owner { service: Some(service?.name.clone()), ..Owner::default() })
    };
    let (verdict, owner) = match action {
        Some(XdpAction::Transmit) => {
            let sent = packet.as_ref().and_then(|packet| sent(packet, frame, services));
            return sent.unwrap_or(Owner { verdict: "forwarded", ..Owner::default() });
        }
        Some(XdpAction::Pass) => ("passed", clients()),
        Some(XdpAction::Redirect) => ("redirected", clients()),
        _ => ("dropped", clients()),
    };
    Owner { verdict, ..owner.unwrap_or_default() }
}

/// To a backend, or to a client.
fn sent(packet: &Packet<'_>, frame: &[u8], services: &Services) -> Option<Owner> {
    let forwarded = |service: &Service, backend: Option<&Backend>| Owner {
        verdict: "forwarded",
        service: Some(service.name.clone()),
        backend: backend.map(|backend| backend.address),
    };
    if let Some(inner) = packet.inner(services) {
        let service = service(services, inner.to)?;
        let backend = service.backends.iter().find(|one| one.address == packet.to.address);
        return Some(forwarded(service, backend));
    }
    if let Some(service) = service(services, packet.to) {
        let backend = service.backends.iter().find(|one| is_next_hop(one, frame));
        return Some(forwarded(service, backend));
    }
    let translated = services.iter().filter(|service| service.forwarding == Forwarding::Snat);
    let mut translated = translated.filter_map(|service| {
        let to = |one: &&Backend| one.address == packet.to.address && is_port(service, one, packet);
        Some(forwarded(service, Some(service.backends.iter().find(to)?)))
    });
    translated.next().or_else(|| {
        let service = service(services, packet.from)?;
        Some(Owner { verdict: "answered", service: Some(service.name.clone()), backend: None })
    })
}

fn is_port(service: &Service, backend: &Backend, packet: &Packet<'_>) -> bool {
    let port = if backend.port == 0 { service.port } else { backend.port };
    packet.to.port.is_none_or(|to| port == 0 || port == to)
}

/// The service at one end of a packet: that of its port rather than that of all ports; without a port, the
/// only one that the address has.
fn service(services: &Services, end: End) -> Option<&Service> {
    let at = |service: &&Service| {
        let same = end.protocol.is_none_or(|protocol| protocol == service.protocol);
        same && service.addresses.contains(&end.address)
    };
    let mut all = services.iter().map(AsRef::as_ref).filter(at);
    let Some(port) = end.port else {
        return all.next().filter(|_| all.next().is_none());
    };
    let all: Vec<_> = all.filter(|service| [port, 0].contains(&service.port)).collect();
    all.iter().find(|service| service.port == port).or(all.first()).copied()
}

/// One end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    address: IpAddr,
    /// `None`: neither TCP nor UDP.
    protocol: Option<Protocol>,
    /// `None`: also a fragment, or cut off.
    port: Option<u16>,
}

/// A packet's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packet<'a> {
    from: End,
    to: End,
    protocol: u8,
    /// What follows the header.
    payload: &'a [u8],
}

const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

impl Packet<'_> {
    /// The packet in it, if it is a tunnel's.
    fn inner(&self, services: &Services) -> Option<Self> {
        let is_gue = |service: &Service| matches!(service.forwarding, Forwarding::Gue { port } if Some(port) == self.to.port);
        match self.protocol {
            4 => ipv4(self.payload),
            41 => ipv6(self.payload),
            UDP if services.iter().any(|service| is_gue(service)) => {
                let inside = self.payload.get(UDP_HEADER..)?;
                if inside.first()? >> 4 == 4 { ipv4(inside) } else { ipv6(inside) }
            }
            _ => None,
        }
    }
}

fn packet(frame: &[u8]) -> Option<Packet<'_>> {
    match frame.get(12..14)? {
        [0x08, 0x00] => ipv4(frame.get(14..)?),
        [0x86, 0xdd] => ipv6(frame.get(14..)?),
        _ => None,
    }
}

fn ipv4(bytes: &[u8]) -> Option<Packet<'_>> {
    let payload = bytes.get(usize::from(bytes.first()? & 15) * 4..)?;
    let fragment = u16::from_be_bytes([*bytes.get(6)?, *bytes.get(7)?]) & 0x1fff;
    let ends = [address::<4>(bytes, 12)?, address::<4>(bytes, 16)?];
    Some(between(ends, (*bytes.get(9)?, payload), fragment == 0))
}

/// Ports behind extension headers aren't looked for.
fn ipv6(bytes: &[u8]) -> Option<Packet<'_>> {
    let ends = [address::<16>(bytes, 8)?, address::<16>(bytes, 24)?];
    Some(between(ends, (*bytes.get(6)?, bytes.get(40..)?), true))
}

fn between(addresses: [IpAddr; 2], (number, payload): (u8, &[u8]), has_ports: bool) -> Packet<'_> {
    let protocol = match number {
        6 => Some(Protocol::Tcp),
        UDP => Some(Protocol::Udp),
        _ => None,
    };
    let port = |at: usize| {
        let bytes = payload.get(at..at + 2)?.try_into().ok()?;
        (protocol.is_some() && has_ports).then(|| u16::from_be_bytes(bytes))
    };
    let [from, to] =
        [0, 1].map(|end| End { address: addresses[end], protocol, port: port(2 * end) });
    Packet { from, to, protocol: number, payload }
}

#[cfg(test)]
mod tests {
    use flowgate_services::model::NextHop;

    use super::*;

    const CLIENT: [u8; 4] = [203, 0, 113, 1];
    const VIP: [u8; 4] = [198, 51, 100, 1];
    const BACKEND: [u8; 4] = [198, 18, 0, 1];
    const BALANCER: [u8; 4] = [172, 16, 0, 1];

    fn ip(protocol: u8, [from, to]: [[u8; 4]; 2], payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        packet.extend([from, to].concat());
        packet.extend(payload);
        packet
    }

    fn udp(ends: [[u8; 4]; 2], [from, to]: [u16; 2], payload: &[u8]) -> Vec<u8> {
        let ports = [from, to].map(u16::to_be_bytes).concat();
        ip(UDP, ends, &[&ports, &[0; 4][..], payload].concat())
    }

    fn frame(mac: [u8; 6], packet: &[u8]) -> Vec<u8> {
        [&mac[..], &[2; 6], &[8, 0], packet].concat()
    }

    /// A service on port 53 and one on all others, with the same backend.
    fn services(forwarding: Forwarding) -> Services {
        let backend = Backend::new(BACKEND.into()).next_hop(NextHop::Mac([6; 6]));
        let service = |name: &str, port| {
            let service = Service::udp(name, port).address(VIP.into()).backend(backend);
            service.forwarding(forwarding)
        };
        Services::new([service("dns", 53), service("rest", 0)]).unwrap()
    }

    fn owner(verdict: &'static str, service: &str, backend: Option<[u8; 4]>) -> Owner {
        Owner { verdict, service: Some(service.into()), backend: backend.map(IpAddr::from) }
    }

    fn sent(forwarding: Forwarding, frame: &[u8]) -> Owner {
        of(Some(XdpAction::Transmit), frame, &services(forwarding))
    }

    #[test]
    fn a_tunnels_packet_names_both() {
        for (port, service) in [(53, "dns"), (54, "rest")] {
            let inner = udp([CLIENT, VIP], [4000, port], &[]);
            let expected = owner("forwarded", service, Some(BACKEND));
            let tunnel = frame([9; 6], &ip(4, [BALANCER, BACKEND], &inner));
            assert_eq!(sent(Forwarding::Tunnel, &tunnel), expected);
            let gue = frame([9; 6], &udp([BALANCER, BACKEND], [5000, 6080], &inner));
            assert_eq!(sent(Forwarding::Gue { port: 6080 }, &gue), expected);
        }
    }

    #[test]
    fn a_neighbour_is_named_by_its_ethernet_address() {
        let packet = udp([CLIENT, VIP], [4000, 53], &[]);
        let neighbour = sent(Forwarding::Layer2, &frame([6; 6], &packet));
        assert_eq!(neighbour, owner("forwarded", "dns", Some(BACKEND)));
        let another = sent(Forwarding::Layer2, &frame([7; 6], &packet));
        assert_eq!(another, owner("forwarded", "dns", None));
    }

    #[test]
    fn a_translated_packet_names_its_backend_and_an_answer_its_service() {
        let service = Service::udp("dns", 53).address(VIP.into()).forwarding(Forwarding::Snat);
        let services = Services::new([service.backend(Backend::new(BACKEND.into()))]).unwrap();
        let whose =
            |packet: &[u8]| of(Some(XdpAction::Transmit), &frame([9; 6], packet), &services);
        let there = whose(&udp([BALANCER, BACKEND], [5000, 53], &[]));
        assert_eq!(there, owner("forwarded", "dns", Some(BACKEND)));
        let back = whose(&udp([VIP, CLIENT], [53, 4000], &[]));
        assert_eq!(back, owner("answered", "dns", None));
        let error = whose(&ip(1, [VIP, CLIENT], &[3, 4, 0, 0]));
        assert_eq!(error, owner("answered", "dns", None), "the only one of that address");
        let nobodys = whose(&udp([BALANCER, BACKEND], [5000, 54], &[]));
        assert_eq!(nobodys, Owner { verdict: "forwarded", ..Owner::default() });
    }

    #[test]
    fn what_goes_nowhere_is_its_services_if_it_was_for_one() {
        let dropped = frame([9; 6], &udp([CLIENT, VIP], [4000, 53], &[]));
        let services = services(Forwarding::Tunnel);
        assert_eq!(of(Some(XdpAction::Drop), &dropped, &services), owner("dropped", "dns", None));
        assert_eq!(of(None, &dropped, &services), owner("dropped", "dns", None));
        let passed = frame([9; 6], &udp([CLIENT, CLIENT], [4000, 53], &[]));
        let nobodys = Owner { verdict: "passed", ..Owner::default() };
        assert_eq!(of(Some(XdpAction::Pass), &passed, &services), nobodys);
        for length in 0..dropped.len() {
            of(Some(XdpAction::Drop), &dropped[..length], &services);
        }
    }

    #[test]
    fn later_fragments_and_what_has_no_ports_name_no_service_among_several() {
        let mut fragment = udp([CLIENT, VIP], [4000, 53], &[]);
        fragment[7] = 1;
        let services = services(Forwarding::Tunnel);
        let dropped = Owner { verdict: "dropped", ..Owner::default() };
        assert_eq!(of(Some(XdpAction::Drop), &frame([9; 6], &fragment), &services), dropped);
        let echo = ip(1, [CLIENT, VIP], &[8, 0, 0, 0]);
        assert_eq!(of(Some(XdpAction::Drop), &frame([9; 6], &echo), &services), dropped);
    }

    #[test]
    fn ipv6_is_read_as_well() {
        let [client, vip] =
            ["2001:db8:7::1", "2001:db8:1::1"].map(|a| a.parse::<IpAddr>().unwrap());
        let service = Service::tcp("web", 80).address(vip).backend(Backend::new(BACKEND.into()));
        let services = Services::new([service]).unwrap();
        let mut inner = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
        for end in [client, vip] {
            let IpAddr::V6(end) = end else { unreachable!("both are") };
            inner.extend(end.octets());
        }
        inner.extend([0x9c, 0x40, 0, 80]);
        let tunnel = frame([9; 6], &ip(41, [BALANCER, BACKEND], &inner));
        let whose = of(Some(XdpAction::Transmit), &tunnel, &services);
        assert_eq!(whose, owner("forwarded", "web", Some(BACKEND)));
    }
}

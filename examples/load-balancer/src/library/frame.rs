//! To whom a frame goes that the program sent: an answer to its sender, or a packet to a backend.

use std::net::IpAddr;

use flowgate_services::{
    Services,
    model::{Backend, Forwarding, NextHop},
};

/// To whom it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Back to who sent the packet.
    Answer,
    /// To a backend; `None`: to one that no service names any more.
    Backend(Option<IpAddr>),
}

impl Sent {
    /// Of a frame that came, and what became of it.
    pub(super) fn of(came: &[u8], went: &[u8], services: &Services) -> Self {
        let (Some(client), Some(destination)) = (addresses(came), addresses(went)) else {
            return Self::Backend(None);
        };
        if destination.1 == client.0 {
            return Self::Answer;
        }
        let backends = services.iter().flat_map(|service| {
            service.backends.iter().map(move |backend| (service.forwarding, backend))
        });
        let mut owners = backends.filter(|(forwarding, backend)| match forwarding {
            Forwarding::Layer2 => destination.1 == client.1 && is_next_hop(backend, went),
            _ => backend.address == destination.1,
        });
        Self::Backend(owners.next().map(|(_, backend)| backend.address))
    }

    pub(super) fn backend(self) -> Option<IpAddr> {
        match self {
            Self::Answer => None,
            Self::Backend(backend) => backend,
        }
    }
}

pub(super) fn is_next_hop(backend: &Backend, frame: &[u8]) -> bool {
    matches!(backend.next_hop, NextHop::Mac(mac) if frame.starts_with(&mac))
}

/// Source and destination of the outermost IP header.
fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((address::<4>(frame, 26)?, address::<4>(frame, 30)?)),
        [0x86, 0xdd] => Some((address::<16>(frame, 22)?, address::<16>(frame, 38)?)),
        _ => None,
    }
}

pub(super) fn address<const N: usize>(frame: &[u8], offset: usize) -> Option<IpAddr>
where
    IpAddr: From<[u8; N]>,
{
    let bytes: [u8; N] = frame.get(offset..offset + N)?.try_into().ok()?;
    Some(IpAddr::from(bytes))
}

#[cfg(test)]
mod tests {
    use flowgate_services::model::Service;

    use super::*;

    fn frame(destination: [u8; 6], addresses: [[u8; 4]; 2]) -> Vec<u8> {
        let mut frame = [&destination[..], &[2; 6], &[8, 0], &[0x45; 12]].concat();
        frame.extend(addresses.concat());
        frame
    }

    const CLIENT: [u8; 4] = [203, 0, 113, 1];
    const SERVICE: [u8; 4] = [198, 51, 100, 1];
    const BACKEND: [u8; 4] = [198, 18, 0, 1];

    fn services(forwarding: Forwarding) -> Services {
        let backend = Backend::new(BACKEND.into()).next_hop(NextHop::Mac([6; 6]));
        let service = Service::tcp("web", 80).address(SERVICE.into()).backend(backend);
        Services::new([service.forwarding(forwarding)]).unwrap()
    }

    #[test]
    fn the_outer_address_names_a_tunnels_backend() {
        let (came, went) =
            (frame([2; 6], [CLIENT, SERVICE]), frame([6; 6], [[172, 16, 0, 1], BACKEND]));
        let sent = Sent::of(&came, &went, &services(Forwarding::Tunnel));
        assert_eq!(sent, Sent::Backend(Some(BACKEND.into())));
    }

    #[test]
    fn the_ethernet_address_names_a_neighbour() {
        let (came, went) = (frame([2; 6], [CLIENT, SERVICE]), frame([6; 6], [CLIENT, SERVICE]));
        let sent = Sent::of(&came, &went, &services(Forwarding::Layer2));
        assert_eq!(sent, Sent::Backend(Some(BACKEND.into())));
    }

    #[test]
    fn what_goes_to_the_client_is_an_answer() {
        let (came, went) = (frame([2; 6], [CLIENT, SERVICE]), frame([9; 6], [SERVICE, CLIENT]));
        assert_eq!(Sent::of(&came, &went, &services(Forwarding::Tunnel)), Sent::Answer);
    }

    #[test]
    fn frames_of_other_protocols_name_nobody() {
        let sent = Sent::of(&[0; 60], &[0; 60], &services(Forwarding::Tunnel));
        assert_eq!(sent, Sent::Backend(None));
    }
}

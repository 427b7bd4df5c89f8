//! What a decapsulator takes: which addresses are what, and from whom.

use std::{collections::BTreeMap, net::IpAddr};

use flowgate_abi::{
    Addr6, Be16,
    decap::{NETWORKS, Network, SERVICE, Settings, TUNNEL_END},
    lb::Target,
};
use ipnet::IpNet;

use super::EndsError;

/// Addresses, of tunnels' ends and of services together, that there is room for.
pub const ADDRESSES: usize = 4096;

/// What a decapsulator takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    pub(crate) tunnel_ends: Vec<IpAddr>,
    pub(crate) services: Vec<IpAddr>,
    pub(crate) balancers: Vec<IpNet>,
    /// 0: none.
    pub(crate) gue_port: u16,
}

impl Ends {
    pub(crate) fn check(&self) -> Result<(), EndsError> {
        if self.tunnel_ends.is_empty() {
            return Err(EndsError::NoTunnelEnd);
        }
        if self.balancers.len() > NETWORKS as usize {
            return Err(EndsError::TooManyNetworks { given: self.balancers.len() });
        }
        let mut all = self.tunnel_ends.iter().chain(&self.services);
        if let Some(&address) = all.find(|address| !is_of_one_host(**address)) {
            return Err(EndsError::Address { address });
        }
        let given = self.roles().len();
        if given > ADDRESSES {
            return Err(EndsError::TooManyAddresses { given });
        }
        Ok(())
    }

    pub(crate) fn settings(&self) -> Settings {
        let networks = self.balancers.len() as u16;
        Settings { gue_port: Be16::new(self.gue_port), networks }
    }

    /// What each address is.
    pub(crate) fn roles(&self) -> BTreeMap<IpAddr, u32> {
        let mut roles = BTreeMap::new();
        let ends = self.tunnel_ends.iter().map(|address| (*address, TUNNEL_END));
        for (address, role) in ends.chain(self.services.iter().map(|address| (*address, SERVICE))) {
            *roles.entry(address).or_insert(0) |= role;
        }
        roles
    }

    pub(crate) fn networks(&self) -> Vec<Network> {
        self.balancers.iter().map(network).collect()
    }
}

/// An address with its family alone, as the programs look it up.
pub(crate) fn target(address: IpAddr) -> Target {
    let family = if address.is_ipv4() { 4 } else { 6 };
    let kind = Target::kind(Be16::new(0), Target::ANYTHING, family);
    Target { address: Addr6::wide(address), kind }
}

fn network(network: &IpNet) -> Network {
    Network { first: target(network.network()), mask: Addr6::wide(network.netmask()) }
}

fn is_of_one_host(address: IpAddr) -> bool {
    let mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    !(mapped || broadcast || special)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(services: &[&str]) -> Ends {
        let parse = |text: &&str| text.parse().expect("an address");
        Ends {
            tunnel_ends: vec![parse(&"198.18.0.11")],
            services: services.iter().map(parse).collect(),
            ..Ends::default()
        }
    }

    #[test]
    fn what_can_be_no_end_is_refused() {
        assert_eq!(Ends::default().check(), Err(EndsError::NoTunnelEnd));
        for text in
            ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::1", "::ffff:198.18.0.1"]
        {
            let address = text.parse().expect("an address");
            assert_eq!(ends(&[text]).check(), Err(EndsError::Address { address }));
        }
        let many = Ends {
            services: (0..ADDRESSES as u32)
                .map(|n| IpAddr::from((0xc612_1000 + n).to_be_bytes()))
                .collect(),
            ..ends(&[])
        };
        assert_eq!(many.check(), Err(EndsError::TooManyAddresses { given: ADDRESSES + 1 }));
        let given = NETWORKS as usize + 1;
        let balancers = vec!["198.18.0.0/16".parse().expect("a network"); given];
        let many = Ends { balancers, ..ends(&[]) };
        assert_eq!(many.check(), Err(EndsError::TooManyNetworks { given }));
    }

    #[test]
    fn an_address_may_be_both() {
        let ends = ends(&["198.18.0.11", "2001:db8::1"]);
        assert_eq!(ends.check(), Ok(()));
        let roles: Vec<u32> = ends.roles().into_values().collect();
        assert_eq!(roles, [TUNNEL_END | SERVICE, SERVICE]);
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (text, inside, outside) in [
            ("198.18.255.0/24", "198.18.255.9", "198.18.254.9"),
            ("2001:db8:ffff::/48", "2001:db8:ffff:9::1", "2001:db8:fffe::1"),
            ("0.0.0.0/0", "203.0.113.1", "2001:db8::1"),
        ] {
            let network = network(&text.parse().expect("a network"));
            assert!(network.holds(&target(inside.parse().expect("an address"))), "{text}");
            assert!(!network.holds(&target(outside.parse().expect("an address"))), "{text}");
        }
    }
}

//! Targets and seeds of frontends.

use std::net::IpAddr;

use flowgate_abi::{Addr6, Be16, Be32, lb::Target};
use flowgate_pipeline::{
    V4, V6,
    lb::{Balanceable, request::mix3},
};

use crate::model::Frontend;

/// What packets to a frontend are found by.
pub(crate) fn target_of(frontend: Frontend) -> Target {
    let (port, protocol) = (Be16::new(frontend.port), frontend.protocol.number());
    match frontend.address {
        IpAddr::V4(v4) => V4::target(Be32::new(v4.into()), port, protocol),
        IpAddr::V6(v6) => V6::target(Addr6::from_octets(v6.octets()), port, protocol),
    }
}

/// What packets to an address are found by, whatever they are.
pub(crate) fn address_target(address: IpAddr) -> Target {
    let frontend = Frontend { address, protocol: crate::model::Protocol::Tcp, port: 0 };
    target_of(frontend).of_address()
}

/// The seed of a frontend's flows: the same on every node with the same seed.
pub(crate) const fn seed_of(target: &Target, seed: u64) -> u64 {
    mix3(target.address.first ^ seed, target.address.last, target.kind)
}

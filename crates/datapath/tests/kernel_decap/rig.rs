//! A decapsulator on either backend, and what it takes.

use std::{borrow::Cow, net::IpAddr};

use flowgate_datapath::{
    Backend, OpenError,
    decap::{Builder, Decapsulator, Hook},
    lb::XdpAttach,
};
use ipnet::IpNet;

pub(crate) const GUE: u16 = 6080;
pub(crate) const XDP: Hook = Hook::Xdp(XdpAttach::Any);
pub(crate) const HOOKS: [Hook; 2] = [XDP, Hook::Tc];

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// This backend's addresses.
pub(crate) fn tunnel_ends() -> [IpAddr; 2] {
    ["198.18.0.5", "2001:db8:2::5"].map(address)
}

pub(crate) fn services() -> [IpAddr; 2] {
    ["198.51.100.1", "2001:db8:1::1"].map(address)
}

/// The networks of balancers.
pub(crate) fn balancers() -> [IpNet; 2] {
    ["198.18.255.0/24", "2001:db8:ffff::/64"].map(|text| text.parse().expect("a network"))
}

pub(crate) fn builder() -> Builder {
    let builder = tunnel_ends().into_iter().fold(Decapsulator::builder(), Builder::tunnel_end);
    let builder = services().into_iter().fold(builder, Builder::service);
    balancers().into_iter().fold(builder, Builder::balancers).gue(GUE)
}

pub(crate) fn host() -> Decapsulator {
    builder().backend(Backend::Host).open().expect("no privileges")
}

/// The kernel's; `None`: it can't be had here, which is said once.
pub(crate) fn kernel() -> Option<Decapsulator> {
    let builder = match std::env::var_os("FLOWGATE_OBJECT") {
        Some(path) => {
            builder().object(Cow::Owned(std::fs::read(path).expect("the object is there")))
        }
        None => builder(),
    };
    match builder.open() {
        Ok(decapsulator) => Some(decapsulator),
        Err(error @ OpenError::MissingCapability { .. }) => {
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// All that can be had here.
pub(crate) fn all() -> Vec<Decapsulator> {
    kernel().into_iter().chain([host()]).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

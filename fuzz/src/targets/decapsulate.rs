//! Any bytes as a frame that comes to a backend of the balancer's: nothing panics, what isn't in a tunnel to it
//! passes unchanged, what is dropped is counted once under its reason, and what comes out is for a service and
//! has headers that its length bears out.

use std::{cell::RefCell, collections::BTreeMap, net::IpAddr};

use flowgate_abi::DropReason;
use flowgate_datapath::{
    Backend,
    decap::{Builder, Decapsulator, Fate, Hook},
};

use crate::{ETHERNET, targets::wire};

/// The backends of [`super::balance`] that are behind tunnels, and its services and sources.
const ENDS: [&str; 4] = ["198.18.0.11", "2001:db8:2::c", "198.18.0.15", "2001:db8:2::10"];
const SERVICES: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];
const BALANCERS: [&str; 2] = ["172.16.0.0/16", "100::/64"];
const GUE: u16 = 6080;

thread_local! {
    static DECAPSULATOR: RefCell<Decapsulator> = RefCell::new(open());
}

/// Takes one input; whether it is worth keeping.
pub fn run(frame: &[u8]) -> bool {
    if frame.len() < ETHERNET {
        return false;
    }
    DECAPSULATOR.with_borrow_mut(|decapsulator| take(decapsulator, frame));
    true
}

fn take(decapsulator: &mut Decapsulator, frame: &[u8]) {
    let before = drops(decapsulator);
    let unwrapped = decapsulator.replay(Hook::Tc, frame).expect("an Ethernet header");
    let mut after = drops(decapsulator);
    match unwrapped.fate {
        Fate::Pass => assert_eq!(unwrapped.frame, frame, "what passes is as it came"),
        Fate::Unwrapped => {
            assert!(unwrapped.frame.len() + 20 <= frame.len());
            wire::assert_sound(&unwrapped.frame);
            let destination = wire::destination(&unwrapped.frame);
            assert!(services().contains(&destination), "{destination} is no service");
        }
        Fate::Drop(reason) => {
            *after.entry(reason.expect("the host says why")).or_default() -= 1;
        }
    }
    after.retain(|_, packets| *packets > 0);
    assert_eq!(before, after, "{:?}", unwrapped.fate);
}

fn drops(decapsulator: &Decapsulator) -> BTreeMap<DropReason, u64> {
    let drops = decapsulator.stats().expect("host tables").drops;
    drops.into_iter().map(|(reason, tally)| (reason, tally.packets)).collect()
}

fn services() -> [IpAddr; 2] {
    SERVICES.map(|text| text.parse().expect("an address"))
}

fn open() -> Decapsulator {
    let end = |text: &str| text.parse().expect("an address");
    let builder = ENDS.map(end).into_iter().fold(Decapsulator::builder(), Builder::tunnel_end);
    let builder = services().into_iter().fold(builder, Builder::service);
    let network = |text: &str| text.parse().expect("a network");
    let builder = BALANCERS.map(network).into_iter().fold(builder, Builder::balancers);
    builder.gue(GUE).backend(Backend::Host).open().expect("no privileges")
}

//! Any bytes as frames that come to the balancer, with changes of services and time between them: nothing
//! panics, what isn't balanced passes unchanged, what is dropped is counted once under its reason, and what is
//! sent has headers that its length bears out.
//!
//! An input is a row of frames, each behind two bytes, least significant first: 12 bits of length, then
//! four of what happens before it (`Balanced::happen`).

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use flowgate_abi::DropReason;
use flowgate_datapath::{
    Backend as Tables,
    lb::{BalancerOptions, Fate, LoadBalancer, NatOptions},
};
use flowgate_services::{
    QuicServers, Services, TableSize, TcpServers, Uplink,
    model::{
        AFFINITY, Backend, BackendState, Forwarding, Fragments, HashMode, NextHop, Service,
        SourceRanges,
    },
};

use crate::{ETHERNET, targets::wire};

/// The most that goes in front of a packet: IPv6 and UDP.
const OVERHEAD: usize = 48;
/// The longest ICMP error of the balancer's, its Ethernet header included (RFC 4443, section 2.4).
const LONGEST_ERROR: usize = ETHERNET + 1280;

thread_local! {
    static BALANCER: RefCell<Balanced> = RefCell::new(Balanced::new());
}

/// An input of these frames, with nothing between them.
#[must_use]
pub fn input(frames: &[Vec<u8>]) -> Vec<u8> {
    let of = |frame: &Vec<u8>| {
        let length = u16::try_from(frame.len()).expect("a frame of an Ethernet") & 0xfff;
        length.to_le_bytes().into_iter().chain(frame.iter().copied()).collect::<Vec<_>>()
    };
    frames.iter().flat_map(of).collect()
}

/// What becomes of each of these frames, one after the other.
#[must_use]
pub fn sent(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut balanced = Balanced::new();
    balanced.begin();
    frames.iter().map(|frame| balanced.take(frame)).collect()
}

/// Takes one input; whether it is worth keeping.
pub fn run(bytes: &[u8]) -> bool {
    BALANCER.with_borrow_mut(|balanced| {
        balanced.begin();
        let mut left = bytes;
        let mut frames = 0;
        while let Some(([low, high], behind)) = left.split_first_chunk() {
            let word = u16::from_le_bytes([*low, *high]);
            let (frame, next) = behind.split_at(usize::from(word & 0xfff).min(behind.len()));
            left = next;
            balanced.happen(word >> 12);
            if frame.len() >= ETHERNET {
                balanced.take(frame);
                frames += 1;
            }
        }
        frames > 0
    })
}

/// Services by every way of forwarding, and a second state of them.
struct Balanced {
    states: [Services; 2],
    balancer: LoadBalancer,
    now: Instant,
}

impl Balanced {
    fn new() -> Self {
        let states = [services(), changed(&services())];
        let now = Instant::now();
        Self { states, balancer: open(), now }
    }

    /// The same state for every input.
    fn begin(&mut self) {
        self.balancer = open();
        self.apply(0);
    }

    fn apply(&mut self, state: usize) {
        let _ = self.balancer.apply(&self.states[state], self.now).expect("they fit");
    }

    /// Services change, or change back, or time passes: as the lowest bits say; mostly nothing.
    fn happen(&mut self, what: u16) {
        match what {
            1 | 2 => self.apply(usize::from(what - 1)),
            3..=6 => {
                self.now += Duration::from_secs(4 << (3 * (what - 3)));
                let _ = self.balancer.tick(self.now).expect("host tables");
            }
            _ => {}
        }
    }

    /// Takes a frame; it as it goes on.
    fn take(&mut self, frame: &[u8]) -> Vec<u8> {
        let before = self.drops();
        let balanced = self.balancer.replay(frame).expect("an Ethernet header");
        let mut after = self.drops();
        match balanced.fate {
            Fate::Pass => assert_eq!(balanced.frame, frame, "what passes is as it came"),
            Fate::Transmit => {
                let longest = (frame.len() + OVERHEAD).max(LONGEST_ERROR);
                assert!(balanced.frame.len() <= longest, "{} bytes", balanced.frame.len());
                wire::assert_sound(&balanced.frame);
            }
            Fate::Drop(reason) => {
                let counted = after.entry(reason.expect("the host says why")).or_default();
                *counted -= 1;
            }
        }
        after.retain(|_, packets| *packets > 0);
        assert_eq!(before, after, "{:?}", balanced.fate);
        balanced.frame
    }

    fn drops(&self) -> BTreeMap<DropReason, u64> {
        let drops = self.balancer.drops().expect("host tables");
        drops.into_iter().map(|(reason, tally)| (reason, tally.packets)).collect()
    }
}

fn open() -> LoadBalancer {
    let options = BalancerOptions {
        frontends: 64,
        slots: 1 << 14,
        lines: 256,
        services: 16,
        tracked: 64,
        fragments: 64,
        clients: 64,
        errors_per_second: u32::MAX,
        uplink: Uplink { gateway: Some([2, 0, 0, 0, 0, 0xfe]), ..Uplink::default() },
        nat: NatOptions {
            sources: ["198.18.0.1", "2001:db8:2::1"].map(address).to_vec(),
            ..NatOptions::default()
        },
        ..BalancerOptions::default()
    };
    LoadBalancer::builder().backend(Tables::Host).options(options).open().expect("no privileges")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Services of both protocols and families.
fn services() -> Services {
    let ends = [address("198.51.100.1"), address("2001:db8:1::1")];
    let v4 = |last| Backend::new(IpAddr::from([198, 18, 0, last]));
    let v6 = |last| Backend::new(IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, last]));
    let both = |service: Service| {
        ends.into_iter().fold(service, Service::address).table(TableSize::ALL[0])
    };
    let tunnel = both(Service::tcp("tunnel", 80)).backend(v4(11)).backend(v6(12).mtu(1328));
    let mut tracked = both(Service::udp("fragments", 80)).backend(v4(13)).backend(v6(14));
    tracked.options.fragments = Fragments::Track;
    let gue = both(Service::tcp("gue", 443)).forwarding(Forwarding::Gue { port: 6080 });
    let gue = gue.backend(v4(15)).backend(v6(16));
    let mac = NextHop::Mac([2, 0, 0, 0, 1, 9]);
    let layer2 = both(Service::tcp("layer2", 22)).forwarding(Forwarding::Layer2);
    let layer2 = layer2.backend(v4(17).next_hop(mac)).backend(v4(18).next_hop(mac));
    let sources = SourceRanges::Deny(vec!["203.0.113.0/25".parse().expect("a network")]);
    let ranges = both(Service::tcp("ranges", 83)).sources(sources).backend(v4(19));
    let nat = |name, port| Service::tcp(name, port).forwarding(Forwarding::Snat);
    let nat4 = nat("nat4", 84).address(ends[0]).backend(v4(20)).backend(v4(21));
    let nat6 = nat("nat6", 84).address(ends[1]).backend(v6(22)).backend(v6(23));
    let mut rest = both(Service::udp("rest", 0)).backend(v4(24)).backend(v4(25));
    rest.options.hash = HashMode::DestinationPort;
    let [quic, named, sticky] = particular().map(both);
    let all = [tunnel, tracked, gue, layer2, ranges, nat4, nat6, rest, quic, named, sticky];
    Services::new(all).expect("good services")
}

/// Services whose packets say whose they are, or whose clients are remembered.
fn particular() -> [Service; 3] {
    let named = |service: Service, last: u8| {
        [last, last + 1].into_iter().fold(service, |service, last| {
            let backend = Backend::new(IpAddr::from([198, 18, 0, last]));
            service.backend(backend.server_id(u16::from(last)))
        })
    };
    let mut quic = named(Service::udp("quic", 443), 26);
    quic.options.quic = Some(QuicServers::default());
    let mut option = named(Service::tcp("option", 7000), 28);
    option.options.tcp_option = Some(TcpServers::default());
    let sticky = Backend::new(IpAddr::from([198, 18, 0, 30]));
    let mut sticky = Service::tcp("sticky", 85).backend(sticky);
    sticky.options.affinity = Some(AFFINITY);
    [quic, option, sticky]
}

/// The first backend of each drains.
fn changed(services: &Services) -> Services {
    let changed = services.iter().map(|service| {
        let mut service = Service::clone(service);
        service.backends[0] = service.backends[0].state(BackendState::Draining);
        service
    });
    Services::new(changed).expect("good services")
}

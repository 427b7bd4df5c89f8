//! What another CPU does to a flow's entry while a packet of the flow is under way: after the packet has found
//! the entry, or while it waits for the bucket's lock.

use std::{cell::RefCell, net::IpAddr};

use flowgate_abi::{
    DropReason, Settings, Shared64,
    endpoint::{Endpoint, Leaf, Peer},
    event::{Counter, Hook},
    flow::{Bucket4, Flow, Verdict as Judged, Way4, state},
    policy::{Decision, EndpointPolicy, Generation},
};
use flowgate_conformance::{
    frames::tcp,
    lookups::{Answering, Lookups},
    trio::{Party, Rules, Trio},
    walk::Conversation,
};
use flowgate_pipeline::{FlowTable, Tables, V4, Verdict, family::Way, hook};
use flowgate_policy::{
    host::{HostRoom, HostTables},
    install::{Installer, Store},
    outcome::FlowProtocol,
};

/// When another CPU acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// The packet has found its entry and asks for the running generation.
    Found,
    /// The packet has waited for the lock.
    Locked,
}

type Deed<'t> = Box<dyn FnOnce(&Way4) + 't>;

/// Host tables in which another CPU does something to the only entry, once.
struct Meanwhile<'t> {
    tables: &'t HostTables,
    when: When,
    deed: RefCell<Option<Deed<'t>>>,
}

impl Meanwhile<'_> {
    fn now(&self, when: When) {
        if when == self.when
            && let Some(deed) = self.deed.take()
        {
            deed(entry(self.tables));
        }
    }
}

impl Lookups for Meanwhile<'_> {
    fn host(&self) -> &HostTables {
        self.tables
    }

    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint> {
        Tables::endpoint(self.tables, ifindex)
    }

    fn slot(&self, slot: u32) -> Option<&Endpoint> {
        self.tables.slot(slot)
    }

    fn peer(&self, index: u32) -> Option<&Peer> {
        self.tables.peer(index)
    }

    fn ipcache(&self, address: IpAddr) -> Leaf {
        let IpAddr::V4(v4) = address else { panic!("all packets are of IPv4") };
        FlowTable::<V4>::ipcache(self.tables, &flowgate_abi::Be32::new(v4.into()))
    }

    fn generation(&self) -> u32 {
        self.now(When::Found);
        Tables::generation(self.tables)
    }

    fn generation_head(&self, slot: u32) -> Option<&Generation> {
        self.tables.generation_head(slot)
    }

    fn endpoint_policy(&self, slot: u32, endpoint: u32) -> Option<&EndpointPolicy> {
        self.tables.endpoint_policy(slot, endpoint)
    }

    fn peer_class(&self, slot: u32, peer: u32) -> Option<u32> {
        Tables::peer_class(self.tables, slot, peer)
    }

    fn port_class(&self, slot: u32, table: u32, port: u16) -> Option<u32> {
        self.tables.port_class(slot, table, port)
    }

    fn row(&self, slot: u32, cell: u32) -> Option<u32> {
        self.tables.row(slot, cell)
    }

    fn decision_number(&self, slot: u32, cell: u32) -> Option<u32> {
        self.tables.decision_number(slot, cell)
    }

    fn decision(&self, slot: u32, number: u32) -> Option<Decision> {
        self.tables.decision(slot, number)
    }

    fn locked(&self) {
        self.now(When::Locked);
    }
}

/// The only entry.
fn entry(tables: &HostTables) -> &Way4 {
    let used = |bucket: &'_ Bucket4| bucket.tags.iter().position(|tag| tag.load() != 0);
    let mut entries = tables.flows4().iter().filter_map(|bucket| Some(&bucket.ways[used(bucket)?]));
    entries.next().expect("one connection")
}

const TCP: Conversation =
    Conversation { from: Party::Client, to: Party::Server, protocol: FlowProtocol::Tcp(80) };

/// A client that has a connection to a server.
struct Connected {
    trio: Trio,
    installer: Installer<HostTables>,
}

impl Connected {
    /// As far as the server's answer.
    fn half() -> Self {
        let trio = Trio::new();
        let cost = trio.widest().cost();
        let settings = Settings {
            flow4_mask: 1,
            flow6_mask: 1,
            ..*Store::settings(&HostTables::for_plan(trio.widest()))
        };
        let room = HostRoom { ipcache_nodes: cost.ipcache_nodes as u32, events: 64 };
        let installer = trio.install(HostTables::new(settings, room), Rules::OneWay);
        let connected = Self { trio, installer };
        for (reply, flags) in [(false, tcp::SYN), (true, tcp::SYN | tcp::ACK)] {
            let verdict = connected.pass(reply, flags);
            assert!(!matches!(verdict, Verdict::Drop(_)), "{verdict:?}");
        }
        connected
    }

    fn whole() -> Self {
        let connected = Self::half();
        let _ = connected.pass(false, tcp::ACK);
        connected
    }

    fn tables(&self) -> &HostTables {
        self.installer.store()
    }

    fn flow(&self) -> &Flow {
        entry(self.tables()).flow()
    }

    fn counted(&self, counter: Counter) -> u64 {
        self.tables().counters()[counter as usize]
    }

    fn change(&mut self, rules: Rules) {
        let _ = self.installer.apply(self.trio.plan(rules)).unwrap();
    }

    /// A packet at the hook of its sender.
    fn pass(&self, reply: bool, flags: u8) -> Verdict {
        let (frame, ifindex) = packet(reply, flags);
        self.tables().run(&frame, ifindex, Hook::FromEndpoint).verdict
    }

    /// The same, while another CPU does something.
    fn send(&self, reply: bool, flags: u8, when: When, deed: impl FnOnce(&Way4)) -> Verdict {
        let (frame, ifindex) = packet(reply, flags);
        let deed: RefCell<Option<Deed<'_>>> = RefCell::new(Some(Box::new(deed)));
        let tables = Answering::new(Meanwhile { tables: self.tables(), when, deed });
        let verdict = hook::run(&frame, ifindex, Hook::FromEndpoint, &tables);
        assert!(tables.lookups().deed.borrow().is_none(), "it has been done");
        verdict
    }
}

/// A packet's bytes, and its sender's interface.
fn packet(reply: bool, flags: u8) -> (Vec<u8>, u32) {
    let sender = if reply { Party::Server } else { Party::Client };
    (TCP.frame(false, reply, flags).bytes(), sender.ifindex().expect("a pod of this node"))
}

/// The way is another connection's from now on.
fn taken(way: &Way4) {
    way.set_key(&[1, 2]);
}

/// The connection has been cut.
fn revoked(way: &Way4) {
    let judged = Judged(way.flow().verdict.load());
    let cut = Judged::new(judged.generation(), judged.state() | state::REVOKED);
    way.flow().verdict.store(cut.0);
}

fn words(flow: &Flow) -> [u64; 6] {
    let [seen, bytes] = [&flow.seen, &flow.bytes];
    [&flow.verdict, &flow.ends, &seen[0], &seen[1], &bytes[0], &bytes[1]].map(Shared64::load)
}

#[test]
fn a_packet_leaves_an_entry_alone_that_is_another_connections_by_now() {
    for (reply, passes) in [(false, true), (true, false)] {
        let connected = Connected::whole();
        let before = words(connected.flow());
        let way = entry(connected.tables());
        let verdict = connected.send(reply, tcp::ACK, When::Found, taken);
        assert_eq!(words(way.flow()), before);
        // It is judged as if there had been no connection: the server may not open one.
        assert_eq!(!matches!(verdict, Verdict::Drop(_)), passes, "{verdict:?}");
        assert_eq!(connected.counted(Counter::FlowsNew), 1 + u64::from(passes));
    }
}

#[test]
fn what_another_cpu_has_cut_stays_cut() {
    let connected = Connected::half();
    let _ = connected.send(false, tcp::ACK, When::Locked, revoked);
    assert_ne!(Judged(connected.flow().verdict.load()).state() & state::REVOKED, 0);
    assert_eq!(connected.pass(false, tcp::ACK), Verdict::Drop(DropReason::Revoked));
}

#[test]
fn the_next_state_is_not_written_over_another_connections() {
    let connected = Connected::half();
    let (way, before) = (entry(connected.tables()), connected.flow().verdict.load());
    let _ = connected.send(false, tcp::ACK, When::Locked, taken);
    assert_eq!(way.flow().verdict.load(), before);
}

#[test]
fn a_new_judgement_is_not_written_over_another_connections() {
    for rules in [Rules::OneWay, Rules::Closed] {
        let mut connected = Connected::whole();
        connected.change(rules);
        let (way, flow) = (entry(connected.tables()), connected.flow());
        let before = (flow.verdict.load(), flow.ends.load());
        let _ = connected.send(false, tcp::ACK, When::Locked, taken);
        assert_eq!((way.flow().verdict.load(), way.flow().ends.load()), before);
        assert_eq!(connected.counted(Counter::FlowsRevoked), 0, "another CPU tells of it");
    }
}

#[test]
fn a_cut_is_counted_by_one_cpu() {
    let mut connected = Connected::whole();
    connected.change(Rules::Closed);
    let _ = connected.send(false, tcp::ACK, When::Locked, revoked);
    assert_eq!(connected.counted(Counter::FlowsRevoked), 0);
    let mut connected = Connected::whole();
    connected.change(Rules::Closed);
    let _ = connected.pass(false, tcp::ACK);
    assert_eq!(connected.counted(Counter::FlowsRevoked), 1);
}

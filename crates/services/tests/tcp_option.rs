//! Options of TCP that name servers, byte for byte.

mod naming;

use std::{net::Ipv4Addr, time::Duration};

use flowgate_abi::lb::Counter;
use flowgate_conformance::checksum;
use flowgate_services::{
    ApplyError, Balancer, ClientFlow, ConnectionId, Named, ServiceError, Services, TableSize,
    TcpServers, Uplink,
    host::HostTables,
    model::{AFFINITY, Backend, BackendState, Forwarding, Protocol, Service, ServiceName},
};
use naming::{begin, goes, tables, with_servers};

const SERVERS: TcpServers = TcpServers { kind: 0xb7, ids: 1024 };
/// Flags.
const SYN: u8 = 2;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 4;

/// Backends that an option names.
fn service() -> Service {
    let mut service = with_servers(Service::tcp("web", 443));
    service.options.tcp_option = Some(SERVERS);
    service
}

/// A segment with options, which are padded to words, and with payload.
fn frame(port: u16, (flags, options): (u8, &[u8]), payload: &[u8]) -> Vec<u8> {
    let padding = options.len().next_multiple_of(4) - options.len();
    let words = 5 + (options.len() + padding) / 4;
    let length = 20 + words * 4 + payload.len();
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 203, 0, 113, 7, 198, 51, 100, 1];
    ip[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend(ip);
    frame.extend(port.to_be_bytes());
    frame.extend(443u16.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, (words as u8) << 4, flags, 1, 0, 0, 0, 0, 0]);
    frame.extend(options);
    frame.extend(vec![0; padding]);
    frame.extend(payload);
    checksum::with_checksum(frame)
}

/// The last octet of the backend to which an acknowledgement with options goes.
fn sent(balancer: &Balancer<HostTables>, port: u16, options: &[u8]) -> u8 {
    goes(balancer, &frame(port, (ACK, options), b""))
}

/// The option of a server id.
fn option(id: u32) -> Vec<u8> {
    [&[0xb7, 6], &id.to_le_bytes()[..]].concat()
}

/// Segments that named their backend; others without the option; others with one.
fn counted(balancer: &Balancer<HostTables>) -> [u64; 3] {
    naming::counted(balancer, [Counter::TcpNamed, Counter::TcpUnnamed, Counter::TcpUnknown])
}

/// Where the table sends each of some ports.
fn by_table(balancer: &Balancer<HostTables>) -> Vec<u8> {
    (0..64).map(|port| sent(balancer, 4000 + port, &[])).collect()
}

/// All of the ports' acknowledgements with these options go there.
fn all_go(balancer: &Balancer<HostTables>, options: &[u8], backend: u8) -> bool {
    (4000..4064).all(|port| sent(balancer, port, options) == backend)
}

#[test]
fn a_server_id_finds_its_server_from_any_port() {
    let balancer = begin(service());
    for (id, backend) in [(0, 1), (0x102, 2), (0x3ff, 3)] {
        assert!(all_go(&balancer, &option(id), backend));
        for flags in [SYN_ACK, FIN_ACK, RST] {
            let frame = frame(4000, (flags, &option(id)), b"payload");
            assert_eq!(goes(&balancer, &frame), backend, "{flags:x}");
        }
    }
    assert_eq!(counted(&balancer), [3 * 64 + 9, 0, 0]);
}

/// Behind time stamps and padding as stacks write them, behind selective acknowledgements, and as the last of forty octets.
#[test]
fn the_option_is_found_wherever_it_lies() {
    let balancer = begin(service());
    let times = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let blocks = [&[1, 1, 5, 18][..], &[0xb7; 16]].concat();
    for before in [
        &[1, 1][..],
        &times,
        &[1; 34],
        &[&times[..], &[1, 1, 5, 10], &[0; 8]].concat(),
        &blocks,
        &[254, 6, 0xb7, 6, 9, 9],
        &[0xb6, 2],
    ] {
        let options = [before, &option(0x102)].concat();
        assert!(options.len() <= 40, "{options:02x?}");
        assert!(all_go(&balancer, &options, 2), "{options:02x?}");
    }
    assert_eq!(counted(&balancer)[1..], [0, 0]);
}

/// Nothing, another kind, an end before it, lengths that end it, and one that doesn't end inside of the header.
#[test]
fn whatever_names_nobody_goes_by_the_table() {
    let balancer = begin(service());
    let table = by_table(&balancer);
    assert!((1..5).all(|backend| table.contains(&backend)), "{table:?}");
    let behind = |before: &[u8]| [before, &option(0x102)].concat();
    let without = [
        vec![],
        vec![0xb8, 6, 2, 1, 0, 0],
        behind(&[0, 0]),
        behind(&[8, 0]),
        behind(&[8, 1]),
        behind(&[8, 200]),
        vec![0xb7, 5, 2, 1, 0],
        vec![0xb7, 8, 2, 1, 0, 0, 0, 0],
        vec![1, 1, 1, 0xb7],
        vec![0xb7, 6, 2, 1],
    ];
    let goes_by_it = |options: &[u8]| {
        // What would be the rest of an option isn't the header's.
        let sent = |port| goes(&balancer, &frame(port, (ACK, options), &[6, 2, 1, 0, 0, 0]));
        assert!((4000..4064).map(sent).eq(table.iter().copied()), "{options:02x?}");
    };
    without.iter().for_each(|options| goes_by_it(options));
    let unnamed = 64 + 64 * without.len() as u64;
    assert_eq!(counted(&balancer), [0, unnamed, 0]);
    for id in [0x103, 0x400, 0x0201_0000, u32::MAX - 1] {
        goes_by_it(&option(id));
    }
    assert_eq!(counted(&balancer), [0, unnamed, 4 * 64]);
}

/// It has no server yet: whoever copies an option into it names nobody.
#[test]
fn what_opens_a_flow_goes_by_the_table() {
    let balancer = begin(service());
    let open = |port, options: &[u8]| goes(&balancer, &frame(port, (SYN, options), b""));
    let table: Vec<u8> = (4000..4064).map(|port| open(port, &[])).collect();
    assert!((4000..4064).map(|port| open(port, &option(0x102))).eq(table));
    assert_eq!(counted(&balancer), [0; 3]);
}

#[test]
fn a_server_keeps_its_flows_while_it_drains_and_until_it_goes() {
    let mut balancer = begin(service());
    let (name, id) = (ServiceName::from("web"), service().backends[1].id());
    for state in [BackendState::Draining, BackendState::Quarantined, BackendState::Active] {
        let services = balancer.services().with_state(&name, id, state).expect("it is there");
        let _ = balancer.apply(&services, Duration::ZERO).expect("it fits");
        assert!(all_go(&balancer, &option(0x102), 2), "{state:?}");
    }
    let services = balancer.services().without_backend(&name, id).expect("it is there");
    let _ = balancer.apply(&services, Duration::ZERO).expect("it fits");
    let table = by_table(&balancer);
    assert!(!table.contains(&2));
    assert!((4000..4064).map(|port| sent(&balancer, port, &option(0x102))).eq(table));
    // Another one comes by the same server id.
    let mut other = Service::clone(balancer.services().get(&name).expect("it runs"));
    other.backends.push(Backend::new([198, 18, 0, 9].into()).server_id(0x102));
    let _ = balancer.apply(&Services::new([other]).expect("good"), Duration::ZERO).expect("fits");
    assert!(all_go(&balancer, &option(0x102), 9));
}

/// A pin says where a client's flows open; those that name their server go there.
#[test]
fn an_option_wins_over_a_pin() {
    let mut service = service();
    service.options.affinity = Some(AFFINITY);
    let balancer = begin(service);
    let pinned = sent(&balancer, 4000, &[]);
    assert!(all_go(&balancer, &[], pinned));
    for (id, backend) in [(0, 1), (0x102, 2), (0x3ff, 3)] {
        assert!(all_go(&balancer, &option(id), backend));
    }
    assert!(all_go(&balancer, &[], pinned));
}

#[test]
fn an_account_of_a_flow_tells_whom_its_option_names() {
    let mut balancer = begin(service());
    let frontend = service().frontends().next().expect("one");
    let told = |balancer: &Balancer<HostTables>, port, server_id| {
        let client = Ipv4Addr::new(203, 0, 113, 7).into();
        let flow = ClientFlow { client, port, frontend, quic: None, server_id };
        balancer.explain(&flow).expect("a service's")
    };
    for (port, id) in
        (4000..4016).flat_map(|port| [0, 0x102, 0x3ff, 0x103, 0x400].map(|id| (port, id)))
    {
        let to = [198, 18, 0, sent(&balancer, port, &option(id))].into();
        assert_eq!(
            told(&balancer, port, Some(id)).backend().map(|one| one.address),
            Some(to),
            "{id:x}"
        );
    }
    let named = |balancer: &_, id| told(balancer, 4000, id).named;
    let (name, backend) = (ServiceName::from("web"), service().backends[1].id());
    assert_eq!(named(&balancer, None), Named::Unasked);
    assert_eq!(named(&balancer, Some(0x102)), Named::Backend { server_id: 0x102, backend });
    for server_id in [0x103, u32::MAX] {
        assert_eq!(named(&balancer, Some(server_id)), Named::Nobody { server_id });
    }
    let services = balancer.services().without_backend(&name, backend).expect("it is there");
    let _ = balancer.apply(&services, Duration::ZERO).expect("it fits");
    assert_eq!(named(&balancer, Some(0x102)), Named::Nobody { server_id: 0x102 });
}

#[test]
fn ids_say_nothing_to_a_service_that_does_not_read_them() {
    let mut plain = service();
    plain.options.tcp_option = None;
    plain.backends.iter_mut().for_each(|one| one.server_id = None);
    let frontend = service().frontends().next().expect("one");
    let client = Ipv4Addr::new(203, 0, 113, 7).into();
    let quic = ConnectionId::new(&[0x40, 1, 2, 9, 9, 9, 9]);
    for (service, quic, server_id) in [(plain, None, Some(0x102)), (service(), quic, None)] {
        let flow = ClientFlow { client, port: 4000, frontend, quic, server_id };
        assert_eq!(begin(service).explain(&flow).expect("a service's").named, Named::Unread);
    }
}

#[test]
fn another_process_takes_server_ids_over() {
    let mut first = begin(service());
    let left = std::mem::replace(first.store_mut(), tables());
    let Ok(mut balancer) = Balancer::adopt(left, Uplink::default(), 3);
    assert!(all_go(&balancer, &option(0x102), 2));
    // Whatever comes beside them leaves their room alone.
    let other = Service::udp("other", 53).address([198, 51, 100, 1].into());
    let other = other.table(TableSize::ALL[0]).backend(Backend::new([198, 18, 0, 8].into()));
    let services = Services::new([service(), other]).expect("good services");
    let applied = balancer.apply(&services, Duration::ZERO).expect("it fits");
    assert_eq!((applied.added, applied.slots.at_once), (1, 0));
    for (id, backend) in [(0, 1), (0x102, 2), (0x3ff, 3)] {
        assert!(all_go(&balancer, &option(id), backend));
    }
}

#[test]
fn another_kind_names_servers_if_the_service_says_so() {
    for kind in [35, 0xfc] {
        let mut service = service();
        service.options.tcp_option = Some(TcpServers { kind, ..SERVERS });
        let balancer = begin(service);
        let table = by_table(&balancer);
        assert!(all_go(&balancer, &[&[kind, 6], &option(0x102)[2..]].concat(), 2), "{kind}");
        assert!((4000..4064).map(|port| sent(&balancer, port, &option(0x102))).eq(table));
    }
}

#[test]
fn what_no_option_can_say_is_refused() {
    let refused = |change: fn(&mut Service)| {
        let mut service = service();
        change(&mut service);
        Services::new([service]).expect_err("it contradicts itself")
    };
    let of = |service: &mut Service, kind, ids| {
        service.options.tcp_option = Some(TcpServers { kind, ids });
    };
    let is_udp = refused(|service| service.protocol = Protocol::Udp);
    assert!(matches!(is_udp, ServiceError::OptionIsTcp { .. }));
    let is_nat = refused(|service| service.forwarding = Forwarding::Snat);
    assert!(matches!(is_nat, ServiceError::OptionBySnat { .. }));
    for kind in [0, 1, 8, 34, 69, 172, 174, 253, 254, 255] {
        let mut service = service();
        of(&mut service, kind, 1024);
        let refused = Services::new([service]).expect_err("it is taken");
        assert!(matches!(refused, ServiceError::TcpServers { .. }), "{kind}");
    }
    for ids in [0, 8, 1000, 32768] {
        let mut service = service();
        of(&mut service, 0xb7, ids);
        let refused = Services::new([service]).expect_err("no such number");
        assert!(matches!(refused, ServiceError::TcpServers { .. }), "{ids}");
    }
    for bad in [
        |service: &mut Service| service.backends[0].server_id = Some(1024),
        |service: &mut Service| service.options.tcp_option = None,
    ] {
        assert!(matches!(refused(bad), ServiceError::ServerId { .. }));
    }
    let twice = refused(|service| service.backends[0].server_id = Some(0x102));
    assert!(matches!(twice, ServiceError::DuplicateServerId { id: 0x102, .. }));
}

#[test]
fn the_number_of_server_ids_stays_while_a_service_runs() {
    let mut balancer = begin(service());
    for option in [None, Some(TcpServers { ids: 2048, ..SERVERS })] {
        let mut changed = service();
        changed.backends.drain(..3);
        changed.options.tcp_option = option;
        let changed = Services::new([changed]).expect("a good service");
        let refused = balancer.apply(&changed, Duration::ZERO);
        assert!(matches!(refused, Err(ApplyError::ServerIds { .. })));
    }
    let mut changed = service();
    changed.options.tcp_option = Some(TcpServers { kind: 0xb6, ..SERVERS });
    let changed = Services::new([changed]).expect("a good service");
    let _ = balancer.apply(&changed, Duration::ZERO).expect("it fits");
    assert!(all_go(&balancer, &[&[0xb6, 6], &option(0x102)[2..]].concat(), 2));
}

//! Connection ids of QUIC that name servers, byte for byte by draft-ietf-quic-load-balancers and RFC 8999.

mod naming;

use std::{net::Ipv4Addr, time::Duration};

use flowgate_abi::lb::Counter;
use flowgate_conformance::checksum;
use flowgate_services::{
    ApplyError, Balancer, ClientFlow, ConnectionId, Named, QuicServers, ServiceError, Services,
    TableSize, Uplink,
    host::HostTables,
    model::{Backend, BackendState, Protocol, Service, ServiceName},
};
use naming::{begin, goes, tables, with_servers};

const SERVERS: QuicServers = QuicServers { rotation: 2, octets: 2, ids: 1024 };

/// Backends that connection ids name.
fn service() -> Service {
    let mut service = with_servers(Service::udp("quic", 443));
    service.options.quic = Some(SERVERS);
    service
}

fn frame(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 203, 0, 113, 7, 198, 51, 100, 1];
    ip[2..4].copy_from_slice(&(28 + payload.len() as u16).to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend(ip);
    frame.extend(port.to_be_bytes());
    frame.extend(443u16.to_be_bytes());
    frame.extend((8 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    checksum::with_checksum(frame)
}

/// The last octet of the backend to which a datagram goes.
fn sent(balancer: &Balancer<HostTables>, port: u16, payload: &[u8]) -> u8 {
    goes(balancer, &frame(port, payload))
}

/// A short header with a connection id of 8 octets: config rotation 2, this server id, and a nonce.
fn short(id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![0x40, 0x47, high, low, 1, 2, 3, 4, 5, 0xaa, 0xbb]
}

/// A long header of version 1 with a destination's and a source's connection id.
fn long(kind: u8, destination: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xc0 | kind << 4, 0, 0, 0, 1, destination.len() as u8];
    packet.extend(destination);
    packet.extend([4, 9, 9, 9, 9, 0, 0, 0]);
    packet
}

/// Packets that named their backend; others with a long header; others with a short one.
fn counted(balancer: &Balancer<HostTables>) -> [u64; 3] {
    naming::counted(balancer, [Counter::QuicNamed, Counter::QuicOpening, Counter::QuicUnknown])
}

/// Where the table sends each of some ports.
fn by_table(balancer: &Balancer<HostTables>) -> Vec<u8> {
    (0..64).map(|port| sent(balancer, 4000 + port, &[0x40, 0xff, 1, 2, 1, 2, 3, 4])).collect()
}

#[test]
fn a_server_id_finds_its_server_from_any_port() {
    let balancer = begin(service());
    for (id, backend) in [(0, 1), (0x102, 2), (0x3ff, 3)] {
        for port in 4000..4064 {
            assert_eq!(sent(&balancer, port, &short(id)), backend);
            for kind in 0..4 {
                let destination = &short(id)[1..9];
                assert_eq!(sent(&balancer, port, &long(kind, destination)), backend);
            }
        }
    }
    assert_eq!(counted(&balancer), [3 * 64 * 5, 0, 0]);
}

/// Another rotation, a server id that nobody has or that is too large, a connection id that is too short for a
/// nonce, and a packet that ends.
#[test]
fn whatever_names_nobody_goes_by_the_table() {
    let balancer = begin(service());
    let table = by_table(&balancer);
    assert!((1..5).all(|backend| table.contains(&backend)), "{table:?}");
    let rotated = |octet| [&[0x40, octet], &short(0x102)[2..]].concat();
    let strangers = [
        rotated(0x27),
        rotated(0xe7),
        short(0x103),
        short(0x400),
        short(0xffff),
        long(0, &short(0x102)[1..7]),
        long(0, &[]),
        short(0x102)[..5].to_vec(),
        vec![],
    ];
    for stranger in strangers {
        let ports = (4000..4064).map(|port| sent(&balancer, port, &stranger));
        assert!(ports.eq(table.iter().copied()), "{stranger:02x?}");
    }
    // Those by which the table was read, too, have short headers.
    assert_eq!(counted(&balancer), [0, 2 * 64, 8 * 64]);
}

#[test]
fn a_server_keeps_its_connections_while_it_drains_and_until_it_goes() {
    let mut balancer = begin(service());
    let (name, id) = (ServiceName::from("quic"), service().backends[1].id());
    for state in [BackendState::Draining, BackendState::Quarantined, BackendState::Active] {
        let services = balancer.services().with_state(&name, id, state).expect("it is there");
        let _ = balancer.apply(&services, Duration::ZERO).expect("it fits");
        assert!((4000..4064).all(|port| sent(&balancer, port, &short(0x102)) == 2), "{state:?}");
    }
    let services = balancer.services().without_backend(&name, id).expect("it is there");
    let _ = balancer.apply(&services, Duration::ZERO).expect("it fits");
    let table = by_table(&balancer);
    assert!(!table.contains(&2));
    assert!((4000..4064).map(|port| sent(&balancer, port, &short(0x102))).eq(table));
    // Another one comes by the same server id.
    let mut other = Service::clone(balancer.services().get(&name).expect("it runs"));
    other.backends.push(Backend::new([198, 18, 0, 9].into()).server_id(0x102));
    let _ = balancer.apply(&Services::new([other]).expect("good"), Duration::ZERO).expect("fits");
    assert!((4000..4064).all(|port| sent(&balancer, port, &short(0x102)) == 9));
}

/// Nobody answers there: whoever tries again, or by a made-up id, gets another server.
#[test]
fn handshakes_leave_a_server_that_fails() {
    let mut balancer = begin(service());
    let (name, id) = (ServiceName::from("quic"), service().backends[1].id());
    let services = balancer.services().with_state(&name, id, BackendState::Quarantined);
    let services = services.expect("it is there");
    let _ = balancer.apply(&services, Duration::ZERO).expect("it fits");
    let table = by_table(&balancer);
    let initial = long(0, &short(0x102)[1..9]);
    assert!((4000..4064).map(|port| sent(&balancer, port, &initial)).eq(table));
}

/// Of each port the backend that is told, and the one to which packets go, with ids that name servers and others.
#[test]
fn an_account_of_a_flow_tells_whom_its_connection_id_names() {
    let mut balancer = begin(service());
    let told = |balancer: &Balancer<HostTables>, port, id: &[u8]| {
        let frontend = service().frontends().next().expect("one");
        let quic = Some(ConnectionId::new(id).expect("20 octets at most"));
        let client = Ipv4Addr::new(203, 0, 113, 7).into();
        balancer
            .explain(&ClientFlow { client, port, frontend, quic, server_id: None })
            .expect("a service's")
    };
    let ids: Vec<Vec<u8>> =
        [0, 0x102, 0x3ff, 0x103, 0x400, 0xffff].map(|id| short(id)[1..9].to_vec()).into();
    let others = [vec![0x27, 1, 2, 9, 9, 9, 9], vec![0xe7, 1, 2, 9, 9, 9, 9]];
    for state in [BackendState::Active, BackendState::Draining, BackendState::Quarantined] {
        let (name, second) = (ServiceName::from("quic"), service().backends[1].id());
        let services = balancer.services().with_state(&name, second, state).expect("listed");
        let _ = balancer.apply(&services, Duration::ZERO).expect("it fits");
        for (port, id) in
            (4000..4016).flat_map(|port| ids.iter().chain(&others).map(move |id| (port, id)))
        {
            let to = sent(&balancer, port, &[&[0x40], &id[..]].concat());
            let told = told(&balancer, port, id);
            assert_eq!(
                told.backend().map(|one| one.address),
                Some([198, 18, 0, to].into()),
                "{id:02x?}"
            );
        }
    }
    let named = |id: &[u8]| told(&balancer, 4000, id).named;
    let backend = service().backends[1].id();
    assert_eq!(named(&ids[1]), Named::Backend { server_id: 0x102, backend });
    assert_eq!(named(&ids[3]), Named::Nobody { server_id: 0x103 });
    assert_eq!(named(&ids[5]), Named::Nobody { server_id: 0xffff });
    for id in [&others[0][..], &others[1], &[0x47, 1], &[]] {
        assert_eq!(named(id), Named::NoServerId, "{id:02x?}");
    }
    assert_eq!(ConnectionId::new(&[0; 21]), None);
}

#[test]
fn another_process_takes_server_ids_over() {
    let mut first = begin(service());
    let left = std::mem::replace(first.store_mut(), tables());
    let Ok(mut balancer) = Balancer::adopt(left, Uplink::default(), 3);
    assert!((4000..4064).all(|port| sent(&balancer, port, &short(0x102)) == 2));
    // Whatever comes beside them leaves their room alone.
    let other = Service::udp("other", 53).address([198, 51, 100, 1].into());
    let other = other.table(TableSize::ALL[0]).backend(Backend::new([198, 18, 0, 8].into()));
    let services = Services::new([service(), other]).expect("good services");
    let applied = balancer.apply(&services, Duration::ZERO).expect("it fits");
    assert_eq!((applied.added, applied.slots.at_once), (1, 0));
    for (id, backend) in [(0, 1), (0x102, 2), (0x3ff, 3)] {
        assert!((4000..4064).all(|port| sent(&balancer, port, &short(id)) == backend));
    }
}

#[test]
fn server_ids_have_one_octet_to_four() {
    for (octets, ids, id, packet) in [
        (1, 256, 0x12, [0x40, 0, 0x12, 9, 9, 9, 9, 9]),
        (3, 16, 0xf, [0x40, 0x1f, 0, 0, 0xf, 9, 9, 9]),
        (4, 16384, 0x3fff, [0x40, 0x10, 0, 0, 0x3f, 0xff, 9, 9]),
    ] {
        let mut service = service();
        service.options.quic = Some(QuicServers { rotation: 0, octets, ids });
        service.backends.iter_mut().for_each(|backend| backend.server_id = None);
        service.backends[2].server_id = Some(id);
        let balancer = begin(service);
        assert!((4000..4064).all(|port| sent(&balancer, port, &packet) == 3), "{octets}");
    }
}

#[test]
fn what_no_connection_id_can_say_is_refused() {
    let refused = |change: fn(&mut Service)| {
        let mut service = service();
        change(&mut service);
        Services::new([service]).expect_err("it contradicts itself")
    };
    assert!(matches!(
        refused(|service| service.protocol = Protocol::Tcp),
        ServiceError::QuicIsUdp { .. }
    ));
    for bad in [
        |service: &mut Service| service.options.quic = Some(QuicServers { rotation: 7, ..SERVERS }),
        |service: &mut Service| service.options.quic = Some(QuicServers { octets: 0, ..SERVERS }),
        |service: &mut Service| service.options.quic = Some(QuicServers { octets: 5, ..SERVERS }),
        |service: &mut Service| service.options.quic = Some(QuicServers { ids: 1000, ..SERVERS }),
        |service: &mut Service| service.options.quic = Some(QuicServers { ids: 8, ..SERVERS }),
    ] {
        assert!(matches!(refused(bad), ServiceError::QuicServers { .. }));
    }
    for bad in [
        |service: &mut Service| service.backends[0].server_id = Some(1024),
        |service: &mut Service| service.options.quic = Some(QuicServers { octets: 1, ..SERVERS }),
        |service: &mut Service| service.options.quic = None,
    ] {
        assert!(matches!(refused(bad), ServiceError::ServerId { .. }));
    }
    let twice = refused(|service| service.backends[0].server_id = Some(0x102));
    assert!(matches!(twice, ServiceError::DuplicateServerId { id: 0x102, .. }));
}

#[test]
fn the_number_of_server_ids_stays_while_a_service_runs() {
    let mut balancer = begin(service());
    for quic in [None, Some(QuicServers { ids: 2048, ..SERVERS })] {
        let mut changed = service();
        changed.backends.drain(..3);
        changed.options.quic = quic;
        let changed = Services::new([changed]).expect("a good service");
        let refused = balancer.apply(&changed, Duration::ZERO);
        assert!(matches!(refused, Err(ApplyError::ServerIds { .. })));
    }
    let mut changed = service();
    changed.options.quic = Some(QuicServers { rotation: 3, ..SERVERS });
    let changed = Services::new([changed]).expect("a good service");
    let _ = balancer.apply(&changed, Duration::ZERO).expect("it fits");
    let mut packet = short(0x102);
    packet[1] = 0x60;
    assert!((4000..4064).all(|port| sent(&balancer, port, &packet) == 2));
}

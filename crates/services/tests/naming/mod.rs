//! A service whose backends packets name by server ids, and where its packets go.

use std::{net::Ipv4Addr, time::Duration};

use flowgate_abi::lb::{Counter, Settings};
use flowgate_pipeline::lb::Action;
use flowgate_services::{
    Balancer, Services, TableSize, Uplink,
    host::HostTables,
    model::{Backend, Service},
    store::Room,
};

/// Room for two services.
pub(crate) fn tables() -> HostTables {
    let settings = Settings {
        displacement_mask: 7,
        frontend_shift: 32 - 4,
        tracked_mask: 7,
        hz: 1000,
        age_length: 10_000,
        pin_mask: 7,
        ..Settings::default()
    };
    let room = Room {
        frontends: 16,
        slots: 1 << 15,
        lines: 64,
        services: 2,
        tracked: 64,
        pins: 64,
        ..Room::default()
    };
    HostTables::new(settings, room)
}

/// Four backends, of which the first three have server ids.
pub(crate) fn with_servers(service: Service) -> Service {
    let service = service.address([198, 51, 100, 1].into()).table(TableSize::ALL[0]);
    let of = |last: u8| Backend::new([198, 18, 0, last].into());
    let ids = [(1, 0), (2, 0x102), (3, 0x3ff)].into_iter();
    let service = ids.fold(service, |service, (last, id)| service.backend(of(last).server_id(id)));
    service.backend(of(4))
}

pub(crate) fn begin(service: Service) -> Balancer<HostTables> {
    let Ok(mut balancer) = Balancer::adopt(tables(), Uplink::default(), 3);
    let services = Services::new([service]).expect("a good service");
    let _ = balancer.apply(&services, Duration::ZERO).expect("it fits");
    balancer
}

/// The last octet of the backend to which a frame goes.
pub(crate) fn goes(balancer: &Balancer<HostTables>, frame: &[u8]) -> u8 {
    let passed = balancer.store().run(frame);
    assert_eq!(passed.action, Action::Transmit, "{frame:02x?}");
    let to = &passed.frame[30..34];
    Ipv4Addr::new(to[0], to[1], to[2], to[3]).octets()[3]
}

/// How often something was counted.
pub(crate) fn counted<const N: usize>(
    balancer: &Balancer<HostTables>,
    what: [Counter; N],
) -> [u64; N] {
    what.map(|counter| balancer.store().counted(counter))
}

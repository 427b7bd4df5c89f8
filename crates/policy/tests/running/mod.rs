//! A plan that runs in host tables, with each of its endpoints attached.

use std::sync::Arc;

use flowgate_policy::{
    host::HostTables,
    install::{EndpointAddress, Installer},
    plan::Plan,
};

pub(crate) fn running_in(tables: HostTables, plan: &Arc<Plan>) -> Installer<HostTables> {
    let mut installer = Installer::adopt(tables).expect("host tables");
    for (ifindex, endpoint) in (1..).zip(&plan.endpoints) {
        let (v4, v6) = EndpointAddress::pairs(&endpoint.addresses)[0];
        let address = EndpointAddress { ifindex, v4, v6, ..EndpointAddress::default() };
        installer.attach(endpoint.workload.clone(), address).expect("a free slot");
    }
    let _ = installer.apply(plan).expect("it fits");
    installer
}

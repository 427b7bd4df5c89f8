//! What `flowgate-lb status` says of a veth whose other end, in another network namespace, takes nothing that native XDP
//! sends back.
//!
//! Privileged: without the capabilities, the test says so in one line and is skipped.

mod process;
mod segment;

use std::fs;

use flowgate_datapath::lb::{LoadBalancer, XdpAttach};
use flowgate_lb::api::{
    Request,
    answer::{Attached, Notice, Status},
};
use process::Running;
use segment::Hosts;

const PORT: u16 = 53;

fn interface(running: &Running) -> Option<Attached> {
    running.try_ask::<Status>(&Request::Status)?.interfaces.pop()
}

#[test]
fn an_other_end_that_takes_nothing_is_told_of() {
    let Some(hosts) = Hosts::new("an_other_end_that_takes_nothing_is_told_of") else { return };
    let served = hosts.serve(PORT);
    let directory = format!("directory: {}\n", hosts.path("").display());
    fs::write(hosts.path("lb.yaml"), hosts.file(PORT, ("any", &directory))).expect("written");
    let mut running = Running::start(&hosts.balancer, &hosts.path("lb.yaml"), hosts.path(""));
    running.wait("it is attached", |running| interface(running).is_some());
    let found = interface(&running).expect("as before");
    assert_eq!(found.mode, "native");
    let Some(Notice::VethPeer { dropped: before }) = found.notice else { panic!("{found:?}") };
    assert!(!hosts.reach(&served));
    running.wait("the loss is counted", |running| {
        let notice = interface(running).and_then(|found| found.notice);
        matches!(notice, Some(Notice::VethPeer { dropped }) if dropped > before)
    });
    // Whoever has a program of its own takes frames: one that passes everything.
    let mut other = LoadBalancer::builder().open().expect("opens");
    let end = hosts.balancer.host_interface();
    let _ = other.attach(end, XdpAttach::Native).expect("attaches");
    assert_eq!(interface(&running).expect("it runs").notice, None);
}

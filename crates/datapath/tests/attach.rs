//! What can't be an endpoint is an error that names it.

use flowgate_datapath::{AttachError, Backend, Datapath, EndpointSpec};
use flowgate_policy::inventory::WorkloadRef;

fn spec() -> EndpointSpec {
    EndpointSpec::unlinked(WorkloadRef { namespace: "default".into(), name: "web".into() })
}

fn open() -> Datapath {
    Datapath::builder().backend(Backend::Host).open().expect("no privileges")
}

#[test]
fn an_address_that_no_packet_may_have_is_refused() {
    for address in [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.5",
        "255.255.255.255",
        "::",
        "::1",
        "ff02::1",
        "::ffff:198.18.0.1",
    ] {
        let error = open().attach(&spec().address(address.parse().unwrap())).unwrap_err();
        assert!(matches!(error, AttachError::Address { .. }), "{error}");
        assert!(error.to_string().contains(address), "{error}");
    }
}

#[test]
fn an_endpoint_has_an_address() {
    let error = open().attach(&spec()).unwrap_err();
    assert!(matches!(error, AttachError::NoAddress { .. }), "{error}");
}

//! What the running kernel's verifier says of the shipped programs, each by itself.
//!
//! Privileged: without the capabilities, the test says so in one line and is skipped. `FLOWGATE_OBJECT` names
//! another object. The lines that it prints are what `cargo xtask kernels` reads.

use std::borrow::Cow;

use flowgate_datapath::{
    Datapath, OpenError, Verification,
    decap::Decapsulator,
    lb::LoadBalancer,
    server_id::{ServerId, ServerIdError},
};

fn object() -> Option<Cow<'static, [u8]>> {
    let path = std::env::var_os("FLOWGATE_OBJECT")?;
    Some(Cow::Owned(std::fs::read(path).expect("the object is there")))
}

/// Prints what the verifier says, and checks that it accepts every program within its limits.
fn check(verified: Result<Vec<Verification>, OpenError>, programs: &[&str]) {
    let verifications = match verified {
        Ok(verifications) => verifications,
        Err(error @ OpenError::MissingCapability { .. }) => {
            println!("SKIPPED: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    verifications.iter().for_each(|verification| println!("verifier: {verification}"));
    let names: Vec<_> = verifications.iter().map(|verification| verification.program).collect();
    assert_eq!(names, programs);
    for verification in verifications {
        let cost = verification.verdict.unwrap_or_else(|reason| panic!("{reason}"));
        assert!(cost.instructions > 0 && cost.jited_bytes > 0, "{cost:?}");
        let mut frames = cost.stack.iter().copied().chain(cost.deepest_chain);
        assert!(frames.all(|bytes| bytes <= 512), "{cost:?}");
    }
}

#[test]
fn the_verifier_accepts_every_program() {
    let builder = match object() {
        Some(object) => Datapath::builder().object(object),
        None => Datapath::builder(),
    };
    check(builder.verify(), &flowgate_ebpf_progs::PROGRAMS);
}

#[test]
fn the_verifier_accepts_every_program_of_the_balancer() {
    check(LoadBalancer::builder().verify(), &flowgate_ebpf_progs::lb::PROGRAMS);
}

#[test]
fn the_verifier_accepts_every_program_of_the_decapsulator() {
    // With networks, through which the programs walk.
    let network = "198.18.0.0/16".parse().expect("a network");
    let builder = (0..flowgate_abi::decap::NETWORKS)
        .fold(Decapsulator::builder(), |builder, _| builder.balancers(network).gue(6080));
    check(builder.verify(), &flowgate_ebpf_progs::decap::PROGRAMS);
}

#[test]
fn the_verifier_accepts_the_program_that_names_servers() {
    let verified = ServerId::builder().server(1).client().verify();
    let verified = verified.map_err(|error| match error {
        ServerIdError::Open(error) => error,
        error => panic!("{error}"),
    });
    check(verified, &flowgate_ebpf_progs::server_id::PROGRAMS);
}

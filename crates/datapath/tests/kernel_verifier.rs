//! What the running kernel's verifier says of the shipped programs, each by itself.
//!
//! Privileged: without the capabilities, the test says so in one line and is skipped. `FLOWGATE_OBJECT` names
//! another object. The lines that it prints are what `cargo xtask kernels` reads.

use std::borrow::Cow;

use flowgate_datapath::{Datapath, OpenError};

#[test]
fn the_verifier_accepts_every_program() {
    let builder = match std::env::var_os("FLOWGATE_OBJECT") {
        Some(path) => Datapath::builder()
            .object(Cow::Owned(std::fs::read(path).expect("the object is there"))),
        None => Datapath::builder(),
    };
    let verifications = match builder.verify() {
        Ok(verifications) => verifications,
        Err(error @ OpenError::MissingCapability { .. }) => {
            println!("SKIPPED: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    verifications.iter().for_each(|verification| println!("verifier: {verification}"));
    let names: Vec<_> = verifications.iter().map(|verification| verification.program).collect();
    assert_eq!(names, flowgate_ebpf_progs::PROGRAMS);
    for verification in verifications {
        let cost = verification.verdict.unwrap_or_else(|reason| panic!("{reason}"));
        assert!(cost.instructions > 0 && cost.jited_bytes > 0, "{cost:?}");
        let mut frames = cost.stack.iter().copied().chain(cost.deepest_chain);
        assert!(frames.all(|bytes| bytes <= 512), "{cost:?}");
    }
}

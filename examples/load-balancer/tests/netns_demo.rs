//! The demo, whole: real HTTP through the real program, and everything that may happen to it.

use std::process::Command;

use serde_json::Value;

/// Requests of each step: enough for every backend to have some.
const REQUESTS: &str = "300";

#[test]
fn no_request_fails_but_those_of_the_killed_backend() {
    let test = "no_request_fails_but_those_of_the_killed_backend";
    if let Err(missing) = flowgate_lab::available() {
        println!("SKIPPED {test}: {missing}");
        return;
    }
    let requests = std::env::var("FLOWGATE_REQUESTS").unwrap_or_else(|_| REQUESTS.to_owned());
    let run = Command::new(env!("CARGO_BIN_EXE_flowgate-lb"))
        .args(["demo", "--requests", &requests, "-o", "json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stdout));
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(report["failed"], 0);
    let answered = |step: usize, name: &str| report["steps"][step]["answered"][name].as_u64();
    for name in ["a", "b", "c"] {
        assert!(answered(0, name) > Some(0), "{report}");
    }
    assert!(answered(3, "d") > Some(0), "{report}");
    let connections = &report["connections"];
    assert_eq!(connections["broken"], 0);
    assert!(
        connections["kept"].as_u64() > Some(0) && connections["of_the_killed"].as_u64() > Some(0)
    );
}

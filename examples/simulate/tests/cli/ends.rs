//! Who the ends are.

use serde_json::{Value, json};

use crate::run::{SHOP, answer, ask};

fn verdicts(probe: &str) -> (bool, Value, Value) {
    let answer = answer(probe);
    let allowed = answer["allowed"].as_bool().unwrap();
    (allowed, answer["egress"]["verdict"].clone(), answer["ingress"]["verdict"].clone())
}

fn check(probe: &str, allowed: bool, egress: &str, ingress: &str) {
    assert_eq!(verdicts(probe), (allowed, json!(egress), json!(ingress)), "{probe}");
}

#[test]
fn an_address_of_a_pod_is_the_pod() {
    for to in ["ip:198.18.0.1", "ip:2001:db8:2::1", "ip:2001:0db8:2:0::1", "shop/web"] {
        let probe = format!(r#"{{"from":"shop/front","to":"{to}","port":"http"}}"#);
        check(&probe, true, "default-allow", "allow");
        let probe = format!(r#"{{"from":"{to}","to":"shop/front","port":1}}"#);
        check(&probe, false, "default-deny", "default-allow");
    }
}

#[test]
fn any_other_address_is_the_world() {
    check(
        r#"{"from":"ip:203.0.113.1","to":"shop/web","port":"http"}"#,
        false,
        "n/a",
        "default-deny",
    );
    check(r#"{"from":"ip:203.0.113.1","to":"shop/front","port":1}"#, true, "n/a", "default-allow");
    check(r#"{"from":"shop/web","to":"ip:203.0.113.1","port":1}"#, false, "default-deny", "n/a");
}

#[test]
fn a_node_reaches_its_own_pods_alone() {
    check(r#"{"from":"node:n1","to":"shop/web","port":1}"#, true, "n/a", "allow");
    check(r#"{"from":"ip:198.51.100.1","to":"shop/web","port":1}"#, true, "n/a", "allow");
    check(r#"{"from":"node:n2","to":"shop/web","port":1}"#, false, "n/a", "default-deny");
    check(r#"{"from":"node:n2","to":"shop/front","port":1}"#, true, "n/a", "default-allow");
    check(r#"{"from":"shop/web","to":"node:n1","port":1}"#, false, "default-deny", "n/a");
}

/// Its label `app: front` is of no use to it.
#[test]
fn a_host_network_pod_is_its_node() {
    let probe = r#"{"from":"other/proxy","to":"shop/web","port":"http","family":4}"#;
    check(probe, false, "n/a", "default-deny");
    check(r#"{"from":"other/proxy","to":"shop/front","port":1}"#, true, "n/a", "default-allow");
    check(r#"{"from":"other/proxy","to":"other/guarded","port":22}"#, true, "n/a", "allow");
    check(r#"{"from":"other/proxy","to":"other/guarded","port":23}"#, false, "n/a", "default-deny");
}

#[test]
fn a_named_port_is_the_destinations() {
    check(
        r#"{"from":"shop/front","to":"other/proxy","port":"admin"}"#,
        true,
        "default-allow",
        "n/a",
    );
    let probe = r#"{"from":"shop/front","to":"ip:198.18.0.1","port":"dns","proto":"UDP"}"#;
    check(probe, false, "default-allow", "default-deny");
}

/// The web pod is isolated in both directions, and nothing lets it reach itself.
#[test]
fn a_pod_reaches_itself() {
    for to in ["shop/web", "ip:198.18.0.1"] {
        let answer = answer(&format!(r#"{{"from":"shop/web","to":"{to}","port":1}}"#));
        assert_eq!(answer["allowed"], true);
        assert_eq!(answer["egress"], json!({"verdict": "allow", "policies": []}));
        assert_eq!(answer["ingress"], json!({"verdict": "allow", "policies": []}));
    }
    let free = r#"{"from":"shop/front","to":"shop/front","port":1}"#;
    check(free, true, "default-allow", "default-allow");
}

#[test]
fn every_protocol_is_judged() {
    for (proto, rest, allowed) in [
        ("TCP", r#","port":8080"#, true),
        ("UDP", r#","port":8080"#, false),
        ("SCTP", r#","port":8080"#, false),
        ("ICMP", "", false),
        ("ICMP", r#","type":0"#, false),
        ("ICMPv6", "", false),
        ("ICMPv6", r#","type":1,"code":4,"family":6"#, false),
    ] {
        let probe = format!(r#"{{"from":"shop/front","to":"shop/web","proto":"{proto}"{rest}}}"#);
        assert_eq!(answer(&probe)["allowed"], allowed, "{probe}");
    }
}

#[test]
fn answers_come_in_the_order_of_the_probes() {
    let probe = |port: u16| format!(r#"{{"from":"shop/front","to":"shop/web","port":{port}}}"#);
    let ports = [9, 8080, 1, 65535, 443];
    let probes: Vec<_> = ports.map(probe).into();
    let run = ask(SHOP, &probes.join("\r\n"));
    let answered: Vec<_> = run.answers().iter().map(|answer| answer["port"].clone()).collect();
    assert_eq!(answered, ports);
}

//! Bad input: file and line on stderr, nothing on stdout, exit status 2.

use crate::run::{SHOP, ask, directory, run_in};

/// The second line of the file is the mistake, after one that would have an answer.
fn check(probe: &str, message: &str) {
    let good = r#"{"from":"shop/front","to":"shop/web","port":1}"#;
    let run = ask(SHOP, &format!("{good}\n{probe}\n{good}\n"));
    run.is_refused(&format!("error: probes.jsonl:2: {message}"));
}

#[test]
fn unknown_ends() {
    let rest = r#","port":1}"#;
    for (end, message) in [
        ("shop/nobody", r#"unknown pod "shop/nobody""#),
        (
            "shop/job",
            r#"unknown pod "shop/job" (a pod that is Succeeded or Failed counts as gone)"#,
        ),
        ("other/web", r#"unknown pod "other/web""#),
        ("web", r#""web" is not an end: it must be ns/pod, ip:ADDRESS or node:NAME"#),
        ("", r#""" is not an end"#),
        ("node:n9", r#"unknown node "n9""#),
        ("ip:198.18.0.256", r#""198.18.0.256" is not an IP address"#),
        ("ip:198.18.0.1/32", r#""198.18.0.1/32" is not an IP address"#),
        ("ip:", r#""" is not an IP address"#),
    ] {
        check(&format!(r#"{{"from":"{end}","to":"shop/web"{rest}"#), &format!("from: {message}"));
        check(&format!(r#"{{"from":"shop/web","to":"{end}"{rest}"#), &format!("to: {message}"));
    }
}

#[test]
fn text_that_is_no_probe() {
    check("nonsense", "expected ident");
    check(r#"{"from":"shop/web","to":"shop/web","port":1"#, "EOF while parsing an object");
    check(r#"{"from":"shop/web","to":"shop/web","port":1} {}"#, "trailing characters");
    check(r#"["shop/web","shop/web",1]"#, "a probe must be a JSON object");
    check("7", "invalid type: integer `7`");
    check(r#"{"to":"shop/web","port":1}"#, "missing field `from`");
    check(r#"{"from":"shop/web","port":1}"#, "missing field `to`");
    check(
        r#"{"from":"shop/web","to":"shop/web","port":1,"protocol":"TCP"}"#,
        "unknown field `protocol`, expected one of `from`, `to`, `port`, `proto`",
    );
    let twice = r#"{"from":"shop/web","to":"shop/web","port":1,"port":2}"#;
    check(twice, "duplicate field `port`");
}

#[test]
fn ports_that_are_none() {
    let probe = |rest: &str| format!(r#"{{"from":"shop/front","to":"shop/web"{rest}}}"#);
    for port in ["0", "65536", "-1", "80.5", "true", "[80]"] {
        let message = "a port must be a number from 1 to 65535, or a name";
        check(&probe(&format!(r#","port":{port}"#)), message);
    }
    for (proto, name) in [("TCP", "https"), ("UDP", "http"), ("TCP", "8080"), ("SCTP", "http")] {
        let rest = format!(r#","port":"{name}","proto":"{proto}""#);
        let message = format!(r#""shop/web" declares no {proto} port that is called "{name}""#);
        check(&probe(&rest), &message);
    }
    let node = r#"{"from":"shop/front","to":"node:n2","port":"admin"}"#;
    check(node, r#""node:n2" declares no TCP port that is called "admin""#);
    let world = r#"{"from":"shop/front","to":"ip:203.0.113.1","port":"http"}"#;
    check(world, r#""ip:203.0.113.1" declares no TCP port that is called "http""#);
    for proto in ["TCP", "UDP", "SCTP"] {
        let rest = format!(r#","proto":"{proto}""#);
        check(&probe(&rest), &format!("{proto} needs a port"));
    }
    check(&probe(r#","port":null"#), "TCP needs a port");
}

#[test]
fn fields_that_do_not_fit() {
    let probe = |rest: &str| format!(r#"{{"from":"shop/front","to":"shop/web"{rest}}}"#);
    for (rest, message) in [
        (r#","proto":"ICMP","port":1"#, "ICMP has no port"),
        (r#","proto":"ICMPv6","port":"http""#, "ICMPv6 has no port"),
        (r#","port":1,"type":8"#, "TCP has neither type nor code"),
        (r#","port":1,"proto":"UDP","code":0"#, "UDP has neither type nor code"),
        (r#","proto":"ICMP","type":256"#, "invalid value: integer `256`, expected u8"),
        (r#","proto":"ICMP","family":6"#, "ICMP is a protocol of IPv4 alone"),
        (r#","proto":"ICMPv6","family":4"#, "ICMPv6 is a protocol of IPv6 alone"),
        (r#","port":1,"family":5"#, "family must be 4 or 6"),
        (r#","port":1,"family":"4""#, "invalid type: string"),
        (r#","port":1,"proto":"tcp""#, "unknown variant `tcp`, expected one of `TCP`, `UDP`"),
        (r#","port":1,"proto":"GRE""#, "unknown variant `GRE`"),
    ] {
        check(&probe(rest), message);
    }
}

#[test]
fn ends_without_a_common_family() {
    check(
        r#"{"from":"other/legacy","to":"other/modern","port":1}"#,
        r#""other/legacy" and "other/modern" have no IPv4 or IPv6 address in common"#,
    );
    check(
        r#"{"from":"other/legacy","to":"shop/web","port":1,"family":6}"#,
        r#""other/legacy" and "shop/web" have no IPv6 address in common"#,
    );
    check(
        r#"{"from":"shop/web","to":"other/legacy","proto":"ICMPv6"}"#,
        r#""shop/web" and "other/legacy" have no IPv6 address in common"#,
    );
    check(
        r#"{"from":"ip:203.0.113.1","to":"ip:2001:db8::1","port":1}"#,
        r#""ip:203.0.113.1" and "ip:2001:db8::1" have no IPv4 or IPv6 address in common"#,
    );
}

#[test]
fn lines_are_counted_as_they_stand_in_the_file() {
    let run = ask(SHOP, "\n\r\n{}\n");
    run.is_refused("probes.jsonl:3: missing field `from`");
}

#[test]
fn text_that_is_no_utf8() {
    let directory = directory(SHOP, "");
    std::fs::write(directory.path().join("probes.jsonl"), b"{\"from\":\"\xff\"}").unwrap();
    let asked = ["--manifests", "manifests.yaml", "--probes", "probes.jsonl"];
    run_in(directory.path(), &asked).is_refused("probes.jsonl:1: ");
}

#[test]
fn files_that_cannot_be_read() {
    let directory = directory(SHOP, "");
    let run = |arguments: &[&str]| run_in(directory.path(), arguments);
    run(&["--manifests", "missing.yaml"]).is_refused("missing.yaml: can't be read: No such file");
    run(&["--manifests", "manifests.yaml", "--probes", "missing.jsonl"])
        .is_refused("missing.jsonl: can't be read: No such file");
    run(&["--manifests", "manifests.yaml", "--probes", "."]).is_refused(".: can't be read: ");
}

#[test]
fn manifests_that_are_wrong() {
    let typo = SHOP.replace("ingress:", "ingres:");
    let run = ask(&typo, r#"{"from":"shop/front","to":"shop/web","port":1}"#);
    run.is_refused("(NetworkPolicy/shop/web): spec.ingres: unknown field (line ");
    let calico =
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: { name: a }\n";
    ask(calico, "")
        .is_refused("GlobalNetworkPolicy of projectcalico.org/v3 is a policy that is not");
}

#[test]
fn command_lines_that_are_wrong() {
    let directory = directory(SHOP, "");
    let run = |arguments: &[&str]| run_in(directory.path(), arguments);
    run(&[]).is_refused("--manifests");
    run(&["--manifests"]).is_refused("a value is required");
    run(&["--manifests", "manifests.yaml", "-o", "yaml"])
        .is_refused("possible values: table, json");
    let backend = run(&["--manifests", "manifests.yaml", "--backend", "moon"]);
    backend.is_refused("possible values: host, kernel");
}

/// Without privileges the kernel can't be asked; what is missing is said, and nothing is answered.
#[test]
fn a_backend_that_cannot_be_used() {
    if flowgate_lab::available().is_ok() {
        println!("SKIPPED: this process has the privileges whose lack is tested");
        return;
    }
    let directory = directory(SHOP, "");
    let run = run_in(directory.path(), &["--manifests", "manifests.yaml", "--backend", "kernel"]);
    assert_eq!((run.status, run.stdout.as_str()), (3, ""));
    assert!(run.stderr.contains("error: "), "{}", run.stderr);
}

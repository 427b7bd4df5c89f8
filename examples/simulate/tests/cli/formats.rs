//! The shape of what is printed.

use crate::run::{SHOP, ask, directory, run_in};

#[test]
fn a_line_has_its_keys_in_order() {
    let run = ask(SHOP, r#"{"from":"shop/front","to":"shop/web","port":8080,"proto":"TCP"}"#);
    let expected = concat!(
        r#"{"from":"shop/front","to":"shop/web","port":8080,"proto":"TCP","allowed":true,"#,
        r#""egress":{"verdict":"default-allow","policies":[]},"#,
        r#""ingress":{"verdict":"allow","policies":["NetworkPolicy/shop/web"]}}"#,
        "\n",
    );
    assert_eq!((run.status, run.stdout.as_str()), (0, expected));
    assert_eq!(run.stderr, "");
}

#[test]
fn a_default_denial_names_who_isolates() {
    let run = ask(SHOP, r#"{"from":"other/guarded","to":"shop/web","port":8080}"#);
    let expected = concat!(
        r#"{"from":"other/guarded","to":"shop/web","port":8080,"proto":"TCP","allowed":false,"#,
        r#""egress":{"verdict":"default-allow","policies":[]},"#,
        r#""ingress":{"verdict":"default-deny","policies":["#,
        r#""NetworkPolicy/shop/a-second","NetworkPolicy/shop/web"]}}"#,
        "\n",
    );
    assert_eq!(run.stdout, expected);
}

#[test]
fn what_is_no_endpoint_says_nothing() {
    let run = ask(SHOP, r#"{"from":"node:n1","to":"ip:203.0.113.9","port":1}"#);
    let expected = concat!(
        r#"{"from":"node:n1","to":"ip:203.0.113.9","port":1,"proto":"TCP","allowed":true,"#,
        r#""egress":{"verdict":"n/a","policies":[]},"ingress":{"verdict":"n/a","policies":[]}}"#,
        "\n",
    );
    assert_eq!(run.stdout, expected);
}

#[test]
fn a_line_echoes_the_probe() {
    let probes = r#"
{"to":"shop/web","from":"ip:198.18.0.2","port":"http"}
{"from":"shop/front","to":"shop/web","port":"dns","proto":"UDP","family":6}
{"from":"shop/front","to":"shop/web","proto":"ICMP"}
{"from":"shop/front","to":"shop/web","proto":"ICMPv6","type":129,"code":0}
"#;
    let run = ask(SHOP, probes);
    let starts = [
        r#"{"from":"ip:198.18.0.2","to":"shop/web","port":"http","proto":"TCP","allowed":true,"#,
        r#"{"from":"shop/front","to":"shop/web","port":"dns","proto":"UDP","allowed":false,"#,
        r#"{"from":"shop/front","to":"shop/web","proto":"ICMP","allowed":false,"#,
        r#"{"from":"shop/front","to":"shop/web","proto":"ICMPv6","type":129,"code":0,"allowed":fa"#,
    ];
    assert_eq!(run.stdout.lines().count(), starts.len());
    for (line, start) in run.stdout.lines().zip(starts) {
        assert!(line.starts_with(start), "{line} doesn't start with {start}");
    }
}

#[test]
fn the_table_is_the_default() {
    let probes = r#"
{"from":"shop/front","to":"shop/web","port":"http"}
{"from":"shop/front","to":"other/guarded","port":443}
{"from":"node:n1","to":"shop/web","proto":"ICMP","type":13}
"#;
    let directory = directory(SHOP, probes);
    let asked = ["--manifests", "manifests.yaml", "--probes", "probes.jsonl"];
    let run = run_in(directory.path(), &asked);
    let expected = "\
FROM         TO             PORT     PROTO  ALLOWED  EGRESS         INGRESS
shop/front   shop/web       http     TCP    yes      default-allow  allow (NetworkPolicy/shop/web)
shop/front   other/guarded  443      TCP    yes      default-allow  allow (NetworkPolicy/other/by-address)
  over IPv4                                 yes      default-allow  allow (NetworkPolicy/other/by-address)
  over IPv6                                 yes      default-allow  allow (NetworkPolicy/other/by-address-6)
node:n1      shop/web       type 13  ICMP   yes      n/a            allow
";
    assert_eq!(run.stdout, expected);
    let named = [&asked[..], &["-o", "table", "--backend", "host"]].concat();
    assert_eq!(run_in(directory.path(), &named).stdout, expected);
}

#[test]
fn no_probes_no_lines() {
    let run = ask(SHOP, "\n  \r\n");
    assert_eq!((run.status, run.stdout.as_str()), (0, ""));
}

#[test]
fn help_and_version_go_well() {
    let directory = tempfile::tempdir().unwrap();
    for (argument, text) in [("--help", "--manifests <PATH>..."), ("--version", "0.1.0")] {
        let run = run_in(directory.path(), &[argument]);
        assert_eq!(run.status, 0);
        assert!(run.stdout.contains(text), "{}", run.stdout);
    }
}

#[test]
fn warnings_go_to_stderr() {
    let manifests = format!(
        "{SHOP}---\napiVersion: v1\nkind: Service\nmetadata: {{ name: web }}\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata: {{ name: late }}\n"
    );
    let run = ask(&manifests, r#"{"from":"default/late","to":"shop/front","port":1}"#);
    assert_eq!(run.answers().len(), 1);
    assert!(run.stderr.contains("warning: manifests.yaml: document "), "{}", run.stderr);
    assert!(run.stderr.contains("(Service/web): this kind is ignored"), "{}", run.stderr);
    assert!(run.stderr.contains("given to what had none (Pod/default/late)"), "{}", run.stderr);
}

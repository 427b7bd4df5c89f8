//! What works without privileges, and what is said where more is needed.

#[allow(dead_code, reason = "each test target uses a part of it")]
mod run;

use std::{fs, io, os::unix::process::CommandExt};

use run::{quickstart, run};

const BAD_INPUT: i32 = 2;
const UNUSABLE: i32 = 3;
/// `nobody`.
const UNPRIVILEGED: u32 = 65534;

#[test]
fn the_host_backend_predicts_every_pair_on_every_port() {
    let run = run(&["--backend", "host", "-o", "json"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    let (lines, summary) = run.json();
    // Five pods, and the four ports that any of them declares.
    assert_eq!(lines.len(), 5 * 4 * 4);
    assert_eq!(summary["probes"], lines.len());
    assert_eq!(summary["mismatches"], 0);
    assert!(lines.iter().all(|line| line["observed"].is_null()));
    let keys: Vec<_> = lines[0].as_object().unwrap().keys().collect();
    let mut wanted = ["from", "to", "port", "proto", "allowed", "egress", "ingress", "observed"];
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
}

#[test]
fn the_prediction_names_policies() {
    let (lines, _) = run(&["--backend", "host", "-o", "json"]).json();
    let line = |from: &str, to: &str, port: u16| {
        let mut found = lines.iter();
        let wanted = found.find(|l| l["from"] == from && l["to"] == to && l["port"] == port);
        wanted.unwrap().clone()
    };
    let allowed = line("shop/front", "shop/cart", 8080);
    assert_eq!(allowed["allowed"], true);
    assert_eq!(allowed["ingress"]["verdict"], "allow");
    assert_eq!(allowed["ingress"]["policies"][0], "NetworkPolicy/shop/cart");
    let denied = line("shop/front", "shop/db", 5432);
    assert_eq!(denied["allowed"], false);
    assert_eq!(denied["ingress"]["verdict"], "default-deny");
}

#[test]
fn the_table_shows_a_grid_for_every_service() {
    let run = run(&["--backend", "host"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    for service in ["TCP/5432", "TCP/8080", "TCP/9090", "UDP/53", "ping"] {
        assert!(run.stdout.contains(&format!("{service} over IPv4 and IPv6")), "{}", run.stdout);
    }
}

#[test]
fn bad_input_is_refused_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("typo.yaml");
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                metadata: { name: typo }\nspec: { podSelector: {}, ingres: [] }\n";
    fs::write(&path, text).unwrap();
    for backend in ["host", "kernel"] {
        let run = run(&["--manifests", path.to_str().unwrap(), "--backend", backend]);
        assert_eq!(run.status, BAD_INPUT);
        assert_eq!(run.stdout, "");
        assert!(run.stderr.contains("typo.yaml"), "{}", run.stderr);
        assert!(run.stderr.contains("spec.ingres: unknown field"), "{}", run.stderr);
    }
    assert_eq!(run(&["--backend", "cloud"]).status, BAD_INPUT);
    assert_eq!(run(&["--manifests", "/does/not/exist"]).status, BAD_INPUT);
}

#[test]
fn without_privileges_it_says_what_is_missing_and_what_works() {
    let mut command = quickstart();
    if flowgate_lab::available().is_ok() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    match command.output() {
        Ok(output) => {
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(UNUSABLE), "{stderr}");
            assert_eq!(output.stdout, b"");
            assert!(stderr.contains("CAP_NET_ADMIN"), "{stderr}");
            assert!(stderr.contains("--backend host"), "{stderr}");
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            println!("SKIPPED without_privileges: nobody may not run the binary here");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_has_no_namespace_of_its_own_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let pods = "\
kind: Pod
apiVersion: v1
metadata: { name: web }
spec: { containers: [{ name: web, ports: [{ containerPort: 80 }] }] }
---
kind: Pod
apiVersion: v1
metadata: { name: client }
---
kind: Pod
apiVersion: v1
metadata: { name: agent }
spec: { hostNetwork: true, nodeName: n }
---
kind: Pod
apiVersion: v1
metadata: { name: job }
status: { phase: Succeeded }
";
    fs::write(directory.path().join("pods.yaml"), pods).unwrap();
    let path = directory.path().to_str().unwrap();
    let run = run(&["--manifests", path, "--backend", "host", "-o", "json"]);
    let (lines, summary) = run.json();
    assert_eq!(summary["pods"], 2);
    assert_eq!(lines.len(), 2);
    assert!(run.stderr.contains("default/agent is left out"), "{}", run.stderr);
}

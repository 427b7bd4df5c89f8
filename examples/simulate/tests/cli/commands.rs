//! `explain`, `diff` and `replay`, on the manifests that the documentation shows.

use std::{fs, path::Path};

use serde_json::Value;

use crate::run::{Run, SHOP, directory, run_in};

const PODS: &str = include_str!("../../manifests/pods.yaml");
const AFTER: &str = include_str!("../../manifests/after.yaml");

fn run(arguments: &str) -> Run {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/manifests"));
    run_in(directory, &arguments.split(' ').collect::<Vec<_>>())
}

fn lines(run: &Run) -> Vec<Value> {
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Replays one line under the later manifests.
fn replay(log: &str) -> Run {
    replay_with(log, &[])
}

fn replay_with(log: &str, options: &[&str]) -> Run {
    let directory = directory(&[PODS, AFTER].join("---\n"), "");
    fs::write(directory.path().join("log.jsonl"), log).unwrap();
    let replay = ["replay", "--manifests", "manifests.yaml", "--flows", "log.jsonl"];
    run_in(directory.path(), &[&replay, options].concat())
}

#[test]
fn the_difference_as_a_table() {
    let run = run("diff --manifests pods.yaml --before before.yaml --after after.yaml");
    let expected = "\
CHANGE  ENDPOINTS          FLOWS  PEERS                SERVICES          BEFORE         AFTER         EXAMPLE
closes  library/catalogue  from   everyone             all but TCP/8080  default-allow  default-deny  198.18.6.1 -> 198.18.4.1 TCP/1
opens   library/store      from   reports app=monthly  TCP/5432          default-deny   allow         198.18.5.1 -> 198.18.4.2 TCP/5432
reason  library/catalogue  from   everyone             TCP/8080          default-allow  allow         198.18.6.1 -> 198.18.4.1 TCP/8080
";
    assert_eq!((run.stdout.as_str(), run.status, run.stderr.as_str()), (expected, 1, ""));
}

#[test]
fn the_difference_as_json_has_a_line_for_each_endpoint_and_peer() {
    let run = run("diff --manifests pods.yaml --before before.yaml --after after.yaml -o json");
    let lines = lines(&run);
    assert_eq!(run.status, 1);
    let opens: Vec<&Value> = lines.iter().filter(|line| line["change"] == "opens").collect();
    assert_eq!(opens.len(), 1);
    let expected = serde_json::json!({
        "kind": "workloads",
        "namespace": "reports",
        "labels": { "app": "monthly" },
        "network": "0.0.0.0/0",
    });
    assert_eq!(opens[0]["peer"]["before"], expected);
    assert_eq!(opens[0]["services"], serde_json::json!(["TCP/5432"]));
    assert_eq!(opens[0]["flow"]["source"], "198.18.5.1");
    let closes = lines.iter().filter(|line| line["change"] == "closes");
    assert_eq!(closes.count(), 5, "four workloads, and what is none over IPv4");
}

/// The guests' network is closed by a policy that tells whom it denies.
fn closed(words: &str) -> String {
    format!(
        "apiVersion: policy.flowgate.dev/v1alpha1\nkind: FlowgatePolicy\n\
         metadata: {{ name: closed, namespace: guests }}\nspec: {{ ingress: []{words} }}\n"
    )
}

#[test]
fn what_a_denied_sender_is_told_is_told() {
    let told = closed(", response: Reset, log: guests");
    let directory = directory(&[PODS, &told].join("---\n"), "");
    fs::write(directory.path().join("silent.yaml"), [PODS, &closed("")].join("---\n")).unwrap();
    let run = |arguments: &str| {
        run_in(directory.path(), &arguments.split(' ').collect::<Vec<_>>()).stdout
    };
    let explain = "explain library/store guests/reader 80/TCP --manifests manifests.yaml";
    assert!(run(explain).contains("ingress guests/reader             default-deny with reset"));
    let json: Value = serde_json::from_str(&run(&format!("{explain} -o json"))).unwrap();
    let (response, log) = (&json["ingress"]["response"], &json["ingress"]["log"]);
    assert_eq!((response, log), (&"reset".into(), &serde_json::json!(["guests"])));
    assert_eq!(json["egress"]["response"], Value::Null);
    let table = run("--manifests manifests.yaml -o table");
    assert!(table.contains("default-deny with reset (FlowgatePolicy/guests/closed)"), "{table}");
    let diff = run("diff --before silent.yaml --after manifests.yaml");
    assert!(diff.contains("answer  guests/reader"), "{diff}");
    assert!(diff.contains("default-deny  default-deny with reset"), "{diff}");
}

#[test]
fn what_is_the_same_does_not_differ() {
    let run = run("diff --manifests pods.yaml --before after.yaml --after after.yaml");
    assert_eq!((run.stdout.as_str(), run.status), ("", 0));
}

/// A comparison that saw nothing must not be taken for one that found nothing.
#[test]
fn policies_that_differ_unseen_are_told() {
    let alone = run("diff --before before.yaml --after after.yaml");
    let unseen: Vec<&str> = alone.stderr.lines().collect();
    let of = |name: &str| {
        format!(
            "warning: NetworkPolicy/library/{name} differs, but selects nobody in these manifests"
        )
    };
    assert_eq!(unseen, ["catalogue", "closed", "store"].map(of));
    assert_eq!((alone.stdout.as_str(), alone.status), ("", 0));
    let directory = directory(&[PODS, AFTER].join("---\n"), "");
    let nobody = [PODS, &AFTER.replace("reads: library", "reads: nothing")].join("---\n");
    fs::write(directory.path().join("nobody.yaml"), &nobody).unwrap();
    fs::write(directory.path().join("no one.yaml"), nobody.replace("reads: nothing", "a: b"))
        .unwrap();
    let diff = ["diff", "--before", "nobody.yaml", "--after", "no one.yaml"];
    let run = run_in(directory.path(), &diff);
    let told = "warning: nothing is decided differently for the pods, nodes and networks of these \
                manifests, though these policies differ: NetworkPolicy/library/store\n";
    assert_eq!((run.stdout.as_str(), run.status, run.stderr.as_str()), ("", 0, told));
}

/// What a difference or a flow log tells can be asked as it is.
#[test]
fn an_example_can_be_explained() {
    let explain =
        |flow: &str| run(&format!("explain {flow} --manifests pods.yaml after.yaml -o json"));
    let named = explain("reports/monthly library/store sql/TCP");
    let told = explain("198.18.5.1 198.18.4.2 TCP/5432");
    let tiers = |run: &Run| lines(run)[0]["ingress"]["tiers"].clone();
    assert_eq!(tiers(&told), tiers(&named));
    assert_eq!(explain("198.18.5.1 198.18.4.2 ICMP/8").status, 0);
}

/// A pod that asks itself is the worst example.
#[test]
fn an_example_is_between_two_ends() {
    let pod = |name: &str, address: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}, namespace: a, labels: {{ app: a }} }}\n\
             status: {{ podIP: {address} }}\n"
        )
    };
    let pods = [pod("one", "198.18.0.1"), pod("two", "198.18.0.2")].join("---\n");
    let closed = "apiVersion: policy.flowgate.dev/v1alpha1\nkind: FlowgatePolicy\n\
        metadata: { name: closed, namespace: a }\n\
        spec: { ingress: [{ action: Deny, from: [{ podSelector: {} }] }], defaultDeny: { ingress: false } }\n";
    let directory = directory(&[&pods, closed].join("---\n"), "");
    fs::write(directory.path().join("pods.yaml"), &pods).unwrap();
    let diff = ["diff", "--before", "pods.yaml", "--after", "manifests.yaml"];
    let run = run_in(directory.path(), &diff);
    assert!(run.stdout.contains("198.18.0.2 -> 198.18.0.1 TCP/80"), "{}", run.stdout);
}

#[test]
fn an_empty_log_is_told() {
    let run = replay("\n");
    let told = "warning: the flow log has no entries\n";
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (0, "", told));
}

/// What has no address in the manifests has the same one in both.
#[test]
fn who_comes_and_goes_is_told_apart() {
    let pod = |name: &str| {
        let metadata = format!("metadata: {{ name: {name}, namespace: a }}");
        format!("apiVersion: v1\nkind: Pod\n{metadata}\nspec: {{}}\n")
    };
    let directory = tempfile::tempdir().unwrap();
    let write = |file: &str, pods: [String; 2]| {
        fs::write(directory.path().join(file), pods.join("---\n")).unwrap();
    };
    write("before.yaml", [pod("gone"), pod("stays")]);
    write("after.yaml", [pod("comes"), pod("stays")]);
    let run =
        run_in(directory.path(), &["diff", "--before", "before.yaml", "--after", "after.yaml"]);
    assert_eq!(run.status, 1, "{}", run.stderr);
    assert!(run.stdout.contains("added: a/comes at 198.18.128."), "{}", run.stdout);
    assert!(run.stdout.contains("removed: a/gone at 198.18.128."), "{}", run.stdout);
    assert!(!run.stdout.contains("a/stays"), "{}", run.stdout);
}

/// `--manifests` takes several paths.
#[test]
fn a_flow_may_stand_before_the_manifests_and_behind() {
    let flow = "reports/monthly library/store sql/TCP";
    let before = run(&format!("explain {flow} --manifests pods.yaml after.yaml"));
    assert_eq!((before.status, before.stderr.as_str()), (0, ""));
    for behind in [
        format!("explain --manifests pods.yaml after.yaml {flow}"),
        format!("explain --manifests pods.yaml after.yaml -o table {flow}"),
    ] {
        assert_eq!(run(&behind).stdout, before.stdout, "{behind}");
    }
    for without in [
        "explain --manifests pods.yaml after.yaml",
        "explain --manifests a/b c/d 80/TCP",
        "explain reports/monthly library/store --manifests pods.yaml a b sql/TCP",
    ] {
        let run = run(without);
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{without}");
        assert!(
            run.stderr.contains("which flow? explain takes <FROM> <TO> <PORT/PROTO>"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn an_explanation_names_rules_and_lines() {
    let run = run("explain reports/monthly library/store sql/TCP --manifests pods.yaml after.yaml");
    let expected = "\
reports/monthly -> library/store sql/TCP over IPv4: allowed
END                     TIER       SAYS           DECIDES  RULE                                    ACTION   WHERE
egress reports/monthly             default-allow
                        admin      nothing
                        namespace  nothing
                        baseline   nothing
ingress library/store              allow
                        admin      nothing
                        namespace  allow          yes      NetworkPolicy/library/store ingress[1]  allow    after.yaml:25
                                                  no       NetworkPolicy/library/closed            isolate  after.yaml:2
                                                  no       NetworkPolicy/library/store             isolate  after.yaml:17
                        baseline   not asked
";
    assert_eq!((run.stdout.as_str(), run.status, run.stderr.as_str()), (expected, 0, ""));
}

#[test]
fn an_explanation_as_json() {
    let run = run(
        "explain guests/reader library/store 5432/TCP --manifests pods.yaml after.yaml -o json",
    );
    let lines = lines(&run);
    assert_eq!((lines.len(), run.status), (1, 0));
    let ingress = &lines[0]["ingress"];
    assert_eq!(
        (&lines[0]["allowed"], &ingress["verdict"]),
        (&false.into(), &"default-deny".into())
    );
    let isolating = &ingress["tiers"][1]["isolating"][1];
    assert_eq!(isolating["policy"], "NetworkPolicy/library/store");
    assert_eq!(isolating["at"]["line"], 17);
}

#[test]
fn an_explanation_tells_what_becomes_of_the_established() {
    let explain = "explain guests/reader library/store 5432/TCP --manifests pods.yaml after.yaml";
    for (option, told, fate) in [
        ("", "denied; what is established ends", "ends"),
        (
            " --keep-established",
            "denied; what is established is kept while its addresses stay in the same hands",
            "kept",
        ),
    ] {
        let table = run(&format!("{explain}{option}")).stdout;
        assert_eq!(table.lines().next().unwrap().split_once(": ").unwrap().1, told);
        let json = lines(&run(&format!("{explain}{option} -o json"))).remove(0);
        assert_eq!((&json["allowed"], &json["established"]), (&false.into(), &fate.into()));
    }
    let allowed = "explain reports/monthly library/store sql/TCP --manifests pods.yaml after.yaml";
    let json = lines(&run(&format!("{allowed} -o json --keep-established"))).remove(0);
    assert_eq!((&json["allowed"], &json["established"]), (&true.into(), &"passes".into()));
}

#[test]
fn families_with_the_same_answer_are_told_together() {
    let directory = directory(SHOP, "");
    let explain = |from: &str, to: &str, service: &str| {
        run_in(directory.path(), &["explain", from, to, service, "--manifests", "manifests.yaml"])
    };
    let same = explain("shop/front", "shop/web", "http/TCP").stdout;
    assert!(
        same.starts_with("shop/front -> shop/web http/TCP over IPv4 and IPv6: allowed"),
        "{same}"
    );
    let differ = explain("shop/front", "other/guarded", "443/TCP").stdout;
    assert!(
        differ.contains("over IPv4: allowed") && differ.contains("over IPv6: allowed"),
        "{differ}"
    );
    let own = explain("node:n1", "shop/web", "13/ICMP").stdout;
    assert!(own.contains("its own node may reach it"), "{own}");
    let inside = explain("shop/web", "shop/web", "ICMPv6").stdout;
    assert!(inside.contains("over IPv6: allowed, since it doesn't leave the pod"), "{inside}");
}

#[test]
fn a_replay_tells_what_would_change() {
    let run = run("replay --manifests pods.yaml after.yaml --flows flows.jsonl");
    let expected = "\
CHANGE  TIMES  EVENT   FROM             TO                 SERVICE   END      RECORDED       NOW
reason  40     new     guests/reader    library/catalogue  TCP/8080  ingress  default-allow  allow (NetworkPolicy/library/catalogue)
closes  2      new     guests/reader    library/catalogue  ping      ingress  default-allow  default-deny (NetworkPolicy/library/catalogue, NetworkPolicy/library/closed)
opens   3      denied  reports/monthly  library/store      TCP/5432  ingress  default-deny   allow (NetworkPolicy/library/store)
";
    assert_eq!((run.stdout.as_str(), run.status, run.stderr.as_str()), (expected, 1, ""));
    let json = self::run("replay --manifests pods.yaml after.yaml --flows flows.jsonl -o json");
    assert_eq!(lines(&json).len(), 3);
    let before = self::run("replay --manifests pods.yaml before.yaml --flows flows.jsonl");
    assert_eq!((before.stdout.as_str(), before.status), ("", 0));
}

/// The ping goes on where the plan keeps what is established, and what was kept ends where it doesn't.
#[test]
fn a_replay_tells_what_becomes_of_the_established() {
    let replay = "replay --manifests pods.yaml after.yaml --flows flows.jsonl";
    let kept = run(&format!("{replay} --keep-established"));
    assert!(kept.stdout.contains("\nkeeps   2      new "), "{}", kept.stdout);
    assert!(!kept.stdout.contains("closes"), "{}", kept.stdout);
    let fates = |arguments: &str| -> Vec<Value> {
        lines(&run(arguments)).into_iter().map(|line| line["established"].clone()).collect()
    };
    let json = |fate: &str| serde_json::json!(["passes", fate, null]);
    assert_eq!(fates(&format!("{replay} -o json")), *json("ends").as_array().unwrap());
    let keeping = format!("{replay} -o json --keep-established");
    assert_eq!(fates(&keeping), *json("kept").as_array().unwrap());
}

#[test]
fn what_was_kept_ends_with_the_option() {
    let entry = |event: &str| {
        let denied = r#"{"verdict":"default-deny","policies":["NetworkPolicy/library/store"]}"#;
        entry("guests/reader", "TCP/80", denied).replace("new", event)
    };
    let ends = replay(&entry("kept"));
    let expected = "\
CHANGE  TIMES  EVENT  FROM           TO             SERVICE  END      RECORDED      NOW
ends    1      kept   guests/reader  library/store  TCP/80   ingress  default-deny  default-deny (NetworkPolicy/library/closed, NetworkPolicy/library/store)
";
    assert_eq!((ends.stdout.as_str(), ends.status), (expected, 1));
    assert_eq!(replay(&entry("revoked")).stdout, "", "it has ended already");
    assert_eq!(replay_with(&entry("kept"), &["--keep-established"]).stdout, "");
}

fn entry(from: &str, service: &str, ingress: &str) -> String {
    format!(
        r#"{{"event":"new","from":"{from}","to":"library/store","service":"{service}","reason":null,"egress":null,"ingress":{ingress},"policies":[],"generation":1,"times":1}}"#
    )
}

#[test]
fn what_cannot_be_compared_is_counted() {
    let judged = r#"{"verdict":"allow","policies":[]}"#;
    let log = [
        entry("library/gone", "TCP/80", judged),
        entry("guests/reader", "TCP/80", "null"),
        entry("guests/reader", "protocol 132", judged),
        entry("2001:db8::1", "TCP/80", judged),
    ];
    let run = replay(&log.join("\n"));
    assert_eq!((run.status, run.stdout.as_str()), (0, ""));
    for reason in [
        "1 of 4 entries are not compared: they name a pod that the manifests don't have",
        "1 of 4 entries are not compared: nobody had judged them",
        "1 of 4 entries are not compared: the log doesn't have SCTP ports",
        "1 of 4 entries are not compared: their ends have no address family in common",
    ] {
        assert!(run.stderr.contains(reason), "{reason:?} isn't in {}", run.stderr);
    }
}

#[test]
fn a_broken_line_of_a_flow_log_is_named() {
    let judged = r#"{"verdict":"allow","policies":[]}"#;
    let good = entry("guests/reader", "TCP/80", judged);
    for (bad, message) in [
        ("nonsense".to_owned(), "expected ident"),
        ("[1]".to_owned(), "an entry must be a JSON object"),
        ("{}".to_owned(), "missing field `event`"),
        (good.replace("\"times\"", "\"count\""), "unknown field `count`"),
        (good.replace("allow", "perhaps"), "unknown variant `perhaps`"),
        (good.replace("\"new\"", "\"old\""), "unknown variant `old`"),
        (entry("web", "TCP/80", judged), r#""web" is neither ns/pod nor an address"#),
        (entry("guests/reader", "TCP", judged), r#""TCP" is no service"#),
        (entry("guests/reader", "TCP/65536", judged), r#""TCP/65536" is no service"#),
    ] {
        let run = replay(&format!("{good}\n\n{bad}\n"));
        run.is_refused(&format!("error: log.jsonl:3: {message}"));
    }
}

#[test]
fn bad_input_is_refused() {
    for (arguments, message) in [
        ("diff --before before.yaml", "--after"),
        ("diff --before missing.yaml --after after.yaml", "missing.yaml: can't be read"),
        ("explain a b", "<PORT/PROTO>"),
        ("explain a b 80/GRE --manifests pods.yaml", r#""80/GRE" is not PORT/PROTO"#),
        ("explain a b 0/TCP --manifests pods.yaml", r#""0/TCP" is not PORT/PROTO"#),
        ("explain a b x/ICMP --manifests pods.yaml", r#""x/ICMP" is not PORT/PROTO"#),
        ("explain a b TCP --manifests pods.yaml", r#"from: "a" is not an end"#),
        ("explain guests/reader ip:203.0.113.1 TCP --manifests pods.yaml", "TCP needs a port"),
        ("replay --manifests pods.yaml --flows missing", "missing: can't be read"),
        ("--manifests pods.yaml replay", "replay: can't be read"),
        ("--probes x replay --manifests pods.yaml --flows x", "cannot be used with"),
    ] {
        run(arguments).is_refused(message);
    }
}

//! The running balancer, without time, sockets or privileges: reloads, checks, restarts, and that whatever is
//! refused leaves what ran before.

mod fake;

use std::time::{Duration, Instant};

use fake::Fake;
use flowgate_lb::{
    api::{Reply, Request},
    balancer::{Balancer, Start},
    config::{self, Checked},
    health::probe::Failure,
    saved::Saved,
};
use flowgate_services::NatTimeouts;
use flowgate_services::model::BackendState::{Active, Draining, Quarantined};
use serde_json::{Value, json};

const FILE: &str = "\
interfaces: [{name: eth0}]
services:
  - name: web
    addresses: [198.51.100.1]
    protocol: tcp
    port: 80
    check: {probe: tcp, rise: 1, fall: 1}
    backends: [{address: 198.18.0.1}, {address: 198.18.0.2}]
";

fn checked(text: &str) -> Checked {
    config::parse("lb.yaml", text).unwrap()
}

fn begin(file: &str, saved: Option<Saved>, now: Instant) -> (Balancer<Fake>, Fake) {
    let fake = Fake::default();
    let start = Start { source: "lb.yaml", checked: checked(file), saved, seed: 1 };
    (Balancer::start(fake.clone(), start, now).unwrap(), fake)
}

fn ask(balancer: &mut Balancer<Fake>, request: Value) -> Result<Value, String> {
    let request: Request = serde_json::from_value(request).unwrap();
    match balancer.respond(&request, Instant::now()) {
        Reply::Ok(answer) => Ok(answer),
        Reply::Error(why) => Err(why),
    }
}

/// Has every check that is due succeed, but for those of one backend.
fn check(balancer: &mut Balancer<Fake>, failing: &str, now: Instant) {
    for job in balancer.due(now) {
        let good = job.target.backend.to_string() != failing;
        let result = if good { Ok(()) } else { Err(Failure::TimedOut) };
        balancer.checked((&job.target, job.number), result, now);
    }
}

#[test]
fn checks_move_new_flows_away_and_back() {
    let start = Instant::now();
    let (mut balancer, fake) = begin(FILE, None, start);
    assert_eq!(fake.states("web"), [(1, Active), (2, Active)]);
    check(&mut balancer, "198.18.0.2", start);
    assert_eq!(fake.states("web"), [(1, Active), (2, Quarantined)]);
    let applied = fake.0.borrow().applied;
    check(&mut balancer, "198.18.0.2", start + Duration::from_secs(3));
    assert_eq!(fake.0.borrow().applied, applied, "nothing new, nothing applied");
    check(&mut balancer, "", start + Duration::from_secs(6));
    assert_eq!(fake.states("web"), [(1, Active), (2, Active)]);
}

#[test]
fn a_reload_replaces_the_file_and_operators_changes() {
    let (mut balancer, fake) = begin(FILE, None, Instant::now());
    let drained =
        ask(&mut balancer, json!({"command": "drain", "service": "web", "backend": "198.18.0.1"}));
    assert_eq!(drained, Ok(json!({"changed": ["web: 198.18.0.1 changed"]})));
    assert_eq!(fake.states("web"), [(2, Active), (1, Draining)]);
    let file = FILE
        .replace("198.18.0.2}", "198.18.0.3}")
        .replace("eth0", "eth1")
        .replace("port: 80", "port: 81");
    let said = balancer.reload(checked(&file), Instant::now()).unwrap();
    let expected = [
        "undone: web: 198.18.0.1 draining",
        "web: 198.18.0.2 removed",
        "web: 198.18.0.1 changed",
        "web: 198.18.0.3 added",
        "service web changed",
        "interface eth0 left",
        "interface eth1 (any)",
    ];
    assert_eq!(said, expected);
    assert_eq!(fake.states("web"), [(1, Active), (3, Active)]);
    assert_eq!(fake.0.borrow().interfaces.keys().collect::<Vec<_>>(), ["eth1"]);
}

#[test]
fn what_is_the_same_changes_nothing() {
    let (mut balancer, _) = begin(FILE, None, Instant::now());
    assert_eq!(balancer.reload(checked(FILE), Instant::now()).unwrap(), [""; 0]);
    let undrain = json!({"command": "undrain", "service": "web", "backend": "198.18.0.1"});
    assert_eq!(ask(&mut balancer, undrain), Ok(json!({"changed": []})));
}

#[test]
fn a_reload_that_is_refused_leaves_what_ran() {
    let (mut balancer, fake) = begin(FILE, None, Instant::now());
    ask(&mut balancer, json!({"command": "drain", "service": "web", "backend": "198.18.0.1"}))
        .unwrap();
    let before = balancer.saved();
    let file = FILE
        .replace("[{name: eth0}]", "[{name: eth0, mode: generic}, {name: eth1}]")
        .replace("198.18.0.2}", "198.18.0.3}");
    for refuses in ["eth1", "apply"] {
        fake.0.borrow_mut().refuses = Some(refuses.into());
        let error = balancer.reload(checked(&file), Instant::now()).unwrap_err().to_string();
        assert!(error.contains(&format!("{refuses} is refused")), "{error}");
        assert_eq!(balancer.saved(), before);
        assert_eq!(fake.states("web"), [(2, Active), (1, Draining)]);
        let interfaces = fake.0.borrow().interfaces.clone();
        assert_eq!(interfaces, [("eth0".to_owned(), "any".to_owned())].into(), "{refuses}");
    }
}

#[test]
fn what_is_fixed_while_it_runs_is_refused() {
    let (mut balancer, _) = begin(FILE, None, Instant::now());
    for (field, value) in [
        ("namespace", "other"),
        ("directory", "/run/other"),
        ("pin", "/sys/fs/bpf/other"),
        ("dispatcher", "{priority: 1}"),
        ("seed", "7"),
        ("limits", "{flows: 1}"),
        ("limits", "{idle: 1h}"),
        ("uplink", "{mtu: 9000}"),
        ("nat.last_port", "nat: {last_port: 2000}"),
        ("nat.places6", "nat: {places6: 3}"),
    ] {
        let added = if field.contains('.') { value.into() } else { format!("{field}: {value}") };
        let error = balancer.reload(checked(&format!("{FILE}{added}\n")), Instant::now());
        let expected = format!("`{field}` is fixed while flowgate-lb runs: restart it");
        assert_eq!(error.unwrap_err().to_string(), expected);
    }
}

#[test]
fn sources_of_full_nat_change_with_the_file() {
    let (mut balancer, fake) = begin(FILE, None, Instant::now());
    let sources = || fake.0.borrow().services.nat_sources().expect("the file's").clone();
    assert!(sources().is_empty());
    for (listed, said) in [
        ("198.18.9.1, 198.18.9.2", ["source 198.18.9.1 added", "source 198.18.9.2 added"]),
        ("198.18.9.2, 198.18.9.3", ["source 198.18.9.1 retired", "source 198.18.9.3 added"]),
    ] {
        let file = format!("{FILE}nat: {{sources: [{listed}]}}\n");
        assert_eq!(balancer.reload(checked(&file), Instant::now()).expect("taken over"), said);
        let expected: Vec<String> = sources().iter().map(ToString::to_string).collect();
        assert_eq!(expected.join(", "), listed);
    }
    // What operators do and checks find out leaves them as they are.
    let drain = json!({"command": "drain", "service": "web", "backend": "198.18.0.1"});
    ask(&mut balancer, drain).expect("it's drained");
    assert_eq!(sources().len(), 2);
}

#[test]
fn time_outs_change_with_the_file() {
    let (mut balancer, fake) = begin(FILE, None, Instant::now());
    let idle = || fake.0.borrow().services.get(&"web".into()).expect("applied").idle();
    assert_eq!(idle(), Duration::from_secs(300));
    let shorter = FILE.replace("port: 80\n", "port: 80\n    idle: 90s\n");
    let said = balancer.reload(checked(&shorter), Instant::now()).expect("taken over");
    assert_eq!((said, idle()), (vec!["service web changed".to_owned()], Duration::from_secs(90)));
    let closing = format!("{shorter}nat: {{timeouts: {{closing: 5s}}}}\n");
    fake.0.borrow_mut().refuses = Some("apply".into());
    let before = fake.0.borrow().nat_timeouts;
    balancer.reload(checked(&closing), Instant::now()).expect_err("it refuses");
    assert_eq!(fake.0.borrow().nat_timeouts, before, "what is refused leaves what ran");
    fake.0.borrow_mut().refuses = None;
    let said = balancer.reload(checked(&closing), Instant::now()).expect("taken over");
    assert_eq!(said, ["time-outs of `snat` changed"]);
    let expected = NatTimeouts { closing: Duration::from_secs(5), ..NatTimeouts::default() };
    assert_eq!(fake.0.borrow().nat_timeouts, Some(expected));
}

#[test]
fn a_change_that_is_refused_leaves_what_ran() {
    let (mut balancer, fake) = begin(FILE, None, Instant::now());
    let before = balancer.saved();
    let unknown = json!({"command": "drain", "service": "web", "backend": "198.18.0.9"});
    assert_eq!(ask(&mut balancer, unknown), Err("service web has no backend 198.18.0.9".into()));
    fake.0.borrow_mut().refuses = Some("apply".into());
    let remove = json!({"command": "remove", "service": "web", "backend": "198.18.0.1"});
    assert_eq!(ask(&mut balancer, remove), Err("apply is refused".into()));
    assert_eq!(balancer.saved(), before);
}

#[test]
fn a_restart_carries_on_what_was_saved_for_the_same_file() {
    let now = Instant::now();
    let (mut balancer, _) = begin(FILE, None, now);
    check(&mut balancer, "198.18.0.2", now);
    let add = json!({"command": "add", "service": "web", "backend": {"address": "198.18.0.3", "weight": 2}});
    ask(&mut balancer, add).unwrap();
    let saved = balancer.saved();
    let (_, again) = begin(FILE, Some(saved.clone()), now);
    assert_eq!(again.states("web"), [(1, Active), (2, Quarantined), (3, Active)]);
    let commented = format!("# the same\n{FILE}");
    let (_, again) = begin(&commented, Some(saved.clone()), now);
    assert_eq!(again.states("web").len(), 3);
    let (_, other) = begin(&FILE.replace("port: 80", "port: 81"), Some(saved), now);
    assert_eq!(other.states("web"), [(1, Active), (2, Active)]);
}

#[test]
fn what_may_be_wrong_with_an_interface_stands_in_the_status() {
    let file = FILE.replace("{name: eth0}", "{name: eth0, mode: native}, {name: eth1}");
    let (mut balancer, _) = begin(&file, None, Instant::now());
    let status = ask(&mut balancer, json!({"command": "status"})).unwrap();
    let native = json!({"name": "eth0", "mode": "native", "notice": {"veth_peer": {"dropped": 3}}});
    assert_eq!(status["interfaces"], json!([native, {"name": "eth1", "mode": "any"}]));
}

#[test]
fn answers_say_how_it_is() {
    let now = Instant::now();
    let (mut balancer, _) = begin(FILE, None, now);
    check(&mut balancer, "198.18.0.2", now);
    let status = ask(&mut balancer, json!({"command": "status"})).unwrap();
    assert_eq!(status["interfaces"], json!([{"name": "eth0", "mode": "any"}]));
    assert_eq!(
        [&status["services"], &status["backends"], &status["down"], &status["dropped"]],
        [1, 2, 1, 3]
    );
    let services = ask(&mut balancer, json!({"command": "services"})).unwrap();
    assert_eq!(
        [&services[0]["slots"], &services[0]["backends"], &services[0]["active"]],
        [251, 2, 1]
    );
    let backends = ask(&mut balancer, json!({"command": "backends", "service": "web"})).unwrap();
    let down = &backends[1];
    assert_eq!(
        [&down["state"], &down["health"], &down["failure"]],
        ["quarantined", "down", "no answer in time"]
    );
    assert_eq!(
        ask(&mut balancer, json!({"command": "backends", "service": "mail"})),
        Ok(json!([]))
    );
    let stats = ask(&mut balancer, json!({"command": "stats"})).unwrap();
    assert_eq!(stats["drops"], json!([{"reason": "no backend", "packets": 3}]));
    let explain = |service: &str| json!({"command": "explain", "client": "203.0.113.1:1024", "service": service, "protocol": "tcp"});
    let explained = ask(&mut balancer, explain("198.51.100.1:80")).unwrap();
    assert_eq!(explained["backend"], "198.18.0.1");
    assert_eq!(
        ask(&mut balancer, explain("198.51.100.9:80")),
        Err("no service has 198.51.100.9:80".into())
    );
    assert_eq!(
        ask(&mut balancer, explain("[2001:db8:1::1]:80")),
        Err("203.0.113.1 and 2001:db8:1::1 are of different families".into())
    );
    let mut of_quic = explain("198.51.100.1:80");
    of_quic["quic_connection_id"] = json!("47:01:02");
    let of_id = ask(&mut balancer, of_quic.clone()).unwrap();
    assert_eq!(of_id["backend"], "198.18.0.1");
    assert_eq!(of_id["named"], json!({"nobody": {"server_id": 11}}));
    assert_eq!(explained.get("named"), None);
    for wrong in ["4", "00".repeat(21).as_str()] {
        of_quic["quic_connection_id"] = json!(wrong);
        assert!(ask(&mut balancer, of_quic.clone()).is_err(), "{wrong}");
    }
    let simulated = ask(&mut balancer, json!({"command": "simulate", "frames": ["00"]})).unwrap();
    assert_eq!(
        simulated,
        json!([{"verdict": "dropped", "reason": "too short", "backend": null, "frame": "00"}])
    );
}

//! The file: the example in the tree, and every kind of mistake with its line and field.

use std::time::Duration;

use flowgate_datapath::lb::BalancerOptions;
use flowgate_lb::config::{self, Checked, ConfigError, model::*};
use flowgate_services::NatTimeouts;
use flowgate_services::model::{BackendState, Forwarding as Way, NextHop, QuicServers, TcpServers};

/// A file with these lines for its only service, the first of which is line 4.
fn service(lines: &str) -> String {
    format!(
        "interfaces: [{{name: eth0}}]\nservices:\n  - name: web\n    {}\n",
        lines.replace('\n', "\n    ")
    )
}

const PLAIN: &str =
    "addresses: [198.51.100.1]\nprotocol: tcp\nport: 80\nbackends: [{address: 198.18.0.1}]";

fn refused(text: &str) -> ConfigError {
    config::parse("lb.yaml", text).expect_err(text)
}

/// Line, field, and a part of the reason.
#[track_caller]
fn at(text: &str, (line, field, reason): (usize, &str, &str)) {
    let error = refused(text);
    let said = error.to_string();
    assert_eq!((error.line(), error.field()), (Some(line), field), "{said}\n{text}");
    assert!(said.contains(reason), "{said}\n{text}");
    assert!(said.starts_with(&format!("lb.yaml:{line}: ")), "{said}");
}

#[test]
fn the_example_is_understood() {
    let read = config::parse("lb.yaml", include_str!("../lb.yaml")).unwrap();
    let names: Vec<&str> = read.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["dns", "legacy", "rpc", "web", "web-plain", "web-quic"]);
    let web = read.services.get(&"web".into()).unwrap();
    assert_eq!(web.backends.len(), 3);
    assert_eq!(web.backends[2].state, BackendState::Draining);
    assert_eq!(web.backends[1].weight, 2);
    assert_eq!(read.services.get(&"web-plain".into()).unwrap().forwarding, Way::Gue { port: 6080 });
    let quic = read.services.get(&"web-quic".into()).unwrap();
    assert_eq!(quic.options.quic, Some(QuicServers { rotation: 0, octets: 2, ids: 1024 }));
    assert_eq!(quic.backends[1].server_id, Some(12));
    let option = read.services.get(&"rpc".into()).unwrap().options.tcp_option;
    assert_eq!(option, Some(TcpServers { kind: 0xb7, ids: 256 }));
    let dns = read.services.get(&"dns".into()).unwrap();
    assert_eq!(dns.backends[0].next_hop, NextHop::Mac([2, 0, 0, 0, 1, 0x21]));
    let Some(Check { probe: Probe::Udp(udp), .. }) = &read.config.services[2].check else {
        panic!()
    };
    assert_eq!(udp.expect.as_ref().unwrap().0, [0, 1]);
}

/// Whatever the types know is in the example: so it can be looked up there.
#[test]
fn the_example_has_every_field() {
    let example = include_str!("../lb.yaml");
    let reference = config::reference();
    let rows = reference.lines().filter_map(|line| line.strip_prefix("| `"));
    let names: Vec<&str> = rows.filter_map(|row| row.split(['`', ':']).next()).collect();
    assert!(names.len() > 50, "{names:?}");
    for name in names {
        let field = example.contains(&format!("{name}:"));
        let word =
            example.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
        assert!(field || word, "{name} isn't in the example");
    }
}

#[test]
fn the_page_of_the_reference_is_that_of_the_types() {
    let page = include_str!("../../../docs/load-balancer-configuration.md");
    assert_eq!(page, config::reference(), "write it anew: flowgate-lb reference");
}

#[test]
fn defaults_are_filled_in() {
    let read = config::parse("lb.yaml", &service(PLAIN)).unwrap().config;
    assert_eq!(read.directory.to_str(), Some("/run/flowgate-lb"));
    assert_eq!((read.interfaces[0].mode, read.metrics), (Mode::Any, None));
    let web = &read.services[0];
    assert_eq!((web.forwarding, web.hash, web.table), (Forwarding::Tunnel, Hash::Connection, None));
    assert_eq!((web.backends[0].weight, web.backends[0].state), (1, State::Active));
}

#[test]
fn the_seed_is_what_is_written() {
    let options = |text: &str| config::parse("lb.yaml", text).unwrap().config.options();
    assert_eq!(options(&service(PLAIN)).seed, 0);
    let written = format!("{}seed: {}\n", service(PLAIN), u64::MAX);
    assert_eq!(options(&written).seed, u64::MAX);
    at("seed: 18446744073709551616\ninterfaces: []\n", (1, "seed", ""));
    at("seed: -1\ninterfaces: []\n", (1, "seed", ""));
}

#[test]
fn silence_is_what_is_written() {
    let read = |text: &str| config::parse("lb.yaml", text).expect("right");
    let idle = |read: &Checked| read.services.get(&"web".into()).expect("its service").idle();
    let (seconds, usual) = (Duration::from_secs, BalancerOptions::default());
    let plain = read(&service(PLAIN));
    assert_eq!((idle(&plain), plain.config.services[0].idle), (seconds(300), None));
    assert_eq!(plain.config.options().longest_idle, usual.longest_idle);
    assert_eq!(plain.config.options().nat.timeouts, NatTimeouts::default());
    let with = |time: &str| service(&format!("{PLAIN}\nidle: {time}"));
    assert_eq!(idle(&read(&with("90s"))), seconds(90));
    let longer = |most: &str, time: &str| format!("{}limits: {{idle: {most}}}\n", with(time));
    let read_longer = read(&longer("2h", "2h"));
    assert_eq!(idle(&read_longer), seconds(7200));
    assert_eq!(read_longer.config.options().longest_idle, seconds(7200));
    at(&with("321s"), (8, "services[0].idle", "longer than `limits.idle`, which is 320s"));
    at(
        &longer("1h", "61m"),
        (8, "services[0].idle", "61m is longer than `limits.idle`, which is 1h"),
    );
    at(&with("999ms"), (8, "services[0].idle", "999ms is not between 1s and 320s"));
    at(&with("90"), (8, "services[0].idle", "write 500ms, 2s, 5m or 1h"));
    for wrong in ["299s", "86401s"] {
        let said = format!("{wrong} is not between 5m and 24h");
        at(&longer(wrong, "1s"), (9, "limits.idle", said.as_str()));
    }
}

/// A process that carries on compares its file with the saved one.
#[test]
fn silence_is_saved_as_it_was_written() {
    for rest in ["", "\nidle: 90s"] {
        let text = service(&format!("{PLAIN}{rest}"));
        let written = config::parse("lb.yaml", &text).expect("right").config;
        let saved = serde_json::to_string(&written).expect("it can be written");
        assert_eq!(serde_json::from_str::<Config>(&saved).expect("it can be read"), written);
    }
}

#[test]
fn what_isnt_yaml_is_refused_on_its_line() {
    at("interfaces: [\n  {name: eth0}\nservices: [", (3, "interfaces", ""));
    assert!(refused("").to_string().starts_with("lb.yaml"));
    assert!(refused("a: &x [*x]").to_string().starts_with("lb.yaml:1"));
}

#[test]
fn unknown_fields_are_refused() {
    at("interfaces: []\nservice: []\n", (2, "service", "unknown field"));
    let text = service(&format!("{PLAIN}\nweigth: 1"));
    at(&text, (8, "services[0].weigth", "unknown field"));
    let text = service(&PLAIN.replace("198.18.0.1}", "198.18.0.1, wait: 1}"));
    at(&text, (7, "services[0].backends[0].wait", "unknown field"));
}

#[test]
fn duplicates_are_refused() {
    at("interfaces: []\ninterfaces: []\n", (2, "", "interfaces is named twice"));
    let twice = "interfaces:\n  - name: eth0\n  - name: eth0\n";
    at(twice, (3, "interfaces[1].name", "eth0 is named twice"));
    let text = service(&PLAIN.replace("198.18.0.1}", "198.18.0.1}, {address: 198.18.0.1}"));
    at(&text, (7, "services[0].backends[1].address", "lists backend 198.18.0.1 twice"));
    let again = PLAIN.replace('\n', "\n    ");
    let text = format!("{}  - name: web\n    {again}\n", service(PLAIN));
    at(&text, (8, "services[1].name", "two services are called web"));
    let text = format!("{}  - name: web2\n    {again}\n", service(PLAIN));
    at(&text, (9, "services[1].addresses", "198.51.100.1 TCP/80"));
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    let with = |from: &str, to: &str| service(&PLAIN.replace(from, to));
    at(&with("port: 80", "port: 65536"), (6, "services[0].port", ""));
    at(&with("port: 80", "port: http"), (6, "services[0].port", ""));
    at(&with("tcp", "sctp"), (5, "services[0].protocol", "sctp"));
    at(&with("198.18.0.1}", "198.18.0.256}"), (7, "services[0].backends[0].address", "IP address"));
    at(
        &with("198.18.0.1}", "198.18.0.1, mac: 02}"),
        (7, "services[0].backends[0].mac", "02:00:00"),
    );
    at(
        &service("addresses: []\nprotocol: tcp\nport: 80"),
        (3, "services[0].backends", "is missing"),
    );
    let check = format!("{PLAIN}\ncheck:\n  probe: tcp\n  interval: 2");
    at(&service(&check), (10, "services[0].check.interval", "500ms, 2s, 5m or 1h"));
    let check = format!("{PLAIN}\ncheck:\n  probe: {{ftp: {{}}}}");
    at(&service(&check), (9, "services[0].check.probe", "ftp"));
}

#[test]
fn what_has_to_be_written_is_said_in_the_files_own_words() {
    let with = |from: &str, to: &str| service(&PLAIN.replace(from, to));
    let port = |port: &str| with("port: 80", &format!("port: {port}"));
    for wrong in ["808000", "-1", "1.5", "http", "''", "99999999999999999999999"] {
        at(&port(wrong), (6, "services[0].port", "write a whole number from 0 to 65535"));
    }
    at(&port("[80]"), (6, "services[0].port", "write one value"));
    let more = |line: &str| service(&format!("{PLAIN}\n{line}"));
    at(&more("check: tcp"), (8, "services[0].check", "write fields"));
    at(&more("fail_open: yes"), (8, "services[0].fail_open", "write true or false"));
    at(&more("sources: {}"), (8, "services[0].sources", "write one of the choices"));
    at(
        &more("sources: {allow: [203.0.113.1]}"),
        (8, "services[0].sources.allow[0]", "write a network, as 203.0.113.0/24"),
    );
    let two = more("check: {probe: {http: {}, udp: {send: a}}}");
    at(&two, (8, "services[0].check.probe.http", "only one of the choices"));
    let none = more("forwarding: {tunnel: {}}");
    at(&none, (8, "services[0].forwarding.tunnel", "this choice has no fields"));
    at("interfaces: eth0\n", (1, "interfaces", "write a list"));
    let file = |line: &str| format!("{}{line}\n", service(PLAIN));
    at(&file("metrics: {listen: 9090}"), (8, "metrics.listen", "198.18.255.1:9090"));
    at(&file("uplink: {source4: 172.16.0.0}"), (8, "uplink.source4", "write a network"));
}

#[test]
fn what_there_cannot_be_room_for_is_refused() {
    let file = |line: &str| format!("{}{line}\n", service(PLAIN));
    let fields = ["services", "frontends", "backends", "slots", "networks", "flows", "clients"];
    for field in fields {
        let place = format!("limits.{field}");
        let most = file(&format!("limits: {{{field}: {}}}", u32::MAX));
        at(&most, (8, &place, "is too large"));
        // Lines are taken by services, too.
        if field != "backends" {
            at(&file(&format!("limits: {{{field}: 0}}")), (8, &place, "is too small"));
        }
    }
    at(&file("uplink: {mtu: 5}"), (8, "uplink.mtu", "5 bytes is not between 576 bytes"));
}

#[test]
fn a_place_in_the_dispatcher_is_read() {
    let file = |place: &str| format!("{}dispatcher: {place}\n", service(PLAIN));
    let read = |place: &str| config::parse("lb.yaml", &file(place)).expect("right").config;
    assert_eq!(config::parse("lb.yaml", &service(PLAIN)).unwrap().config.dispatcher, None);
    let usual = Dispatcher { priority: 50, goes_on: vec![Action::Pass] };
    assert_eq!(read("{}").dispatcher, Some(usual));
    let wanted = Dispatcher { priority: 7, goes_on: vec![Action::Pass, Action::Transmit] };
    assert_eq!(read("{priority: 7, goes_on: [pass, transmit]}").dispatcher, Some(wanted));
    at(&file("{priority: -1}"), (8, "dispatcher.priority", "from 0 to 4294967295"));
    at(&file("{goes_on: [redirect]}"), (8, "dispatcher.goes_on[0]", "redirect"));
    at(&file("{goes_on: [drop, drop]}"), (8, "dispatcher.goes_on[1]", "drop is named twice"));
    at(&file("{goes_on: pass}"), (8, "dispatcher.goes_on", "write a list"));
    at(&file("{priorty: 1}"), (8, "dispatcher.priorty", "unknown field"));
}

#[test]
fn services_that_contradict_themselves_are_refused() {
    let with = |from: &str, to: &str| service(&PLAIN.replace(from, to));
    at(&with("[198.51.100.1]", "[]"), (4, "services[0].addresses", "no address"));
    at(&with("198.51.100.1", "127.0.0.1"), (4, "services[0].addresses[0]", "127.0.0.1"));
    at(&with("198.18.0.1}", "'::1'}"), (7, "services[0].backends[0].address", "::1"));
    at(
        &with("198.18.0.1}", "198.18.0.1, weight: 0}"),
        (7, "services[0].backends[0].weight", "drain"),
    );
    at(&with("198.18.0.1}", "198.18.0.1, mtu: 100}"), (7, "services[0].backends[0].mtu", "596"));
    at(
        &service(&format!("{PLAIN}\nforwarding: layer2")),
        (7, "services[0].backends[0].mac", "Ethernet"),
    );
    at(&service(&format!("{PLAIN}\ntable: 1000")), (8, "services[0].table", "1021"));
    let sources = |text: &str| service(&format!("{PLAIN}\nsources:\n  {text}"));
    at(&sources("allow: []"), (8, "services[0].sources", "need a network"));
    let bits = sources("deny: [10.0.0.0/8, 203.0.113.7/24]");
    at(&bits, (9, "services[0].sources.deny[1]", "is 203.0.113.0/24 meant"));
    at(&sources("allow: [203.0.113.0]"), (9, "services[0].sources.allow[0]", ""));
    let affinity = |text: &str| service(&format!("{PLAIN}\naffinity:\n  timeout: {text}"));
    at(&affinity("25h"), (9, "services[0].affinity.timeout", "between 1 s"));
    at(&affinity("10"), (9, "services[0].affinity.timeout", "500ms, 2s, 5m or 1h"));
    at(&service(&format!("{PLAIN}\nquic: {{}}")), (8, "services[0].quic", "UDP"));
    let quic = PLAIN.replace("protocol: tcp", "protocol: udp");
    let ids = |id| quic.replace("198.18.0.1}", &format!("198.18.0.1, server_id: {id}}}"));
    at(&service(&ids(1)), (7, "services[0].backends[0].server_id", "0 ids"));
    let ids = service(&format!("{}\nquic: {{}}", ids(256)));
    at(&ids, (7, "services[0].backends[0].server_id", "256 ids"));
    let rotated = service(&format!("{quic}\nquic: {{rotation: 7}}"));
    at(&rotated, (8, "services[0].quic", "0 to 6"));
    at(&service(&format!("{quic}\ntcp_option: {{}}")), (8, "services[0].tcp_option", "of TCP"));
    let option = |text: &str| service(&format!("{PLAIN}\ntcp_option: {text}"));
    at(&option("{kind: 30}"), (8, "services[0].tcp_option", "kind 30"));
    at(&option("{ids: 100}"), (8, "services[0].tcp_option", "100 ids"));
    let ids = PLAIN.replace("198.18.0.1}", "198.18.0.1, server_id: 256}");
    let ids = service(&format!("{ids}\ntcp_option: {{}}"));
    at(&ids, (7, "services[0].backends[0].server_id", "256 ids"));
    at(&service(&format!("{PLAIN}\nhash: port")), (8, "services[0].hash", "`port: 0`"));
    at(
        &service(&format!("{PLAIN}\nforwarding: {{gue: {{port: 0}}}}")),
        (8, "services[0].forwarding.gue.port", "GUE"),
    );
    at(&service(PLAIN).replace("name: web", "name: a b"), (3, "services[0].name", "a b"));
    at("interfaces: []\n", (1, "interfaces", "at least one interface"));
}

#[test]
fn checks_that_contradict_themselves_are_refused() {
    let check =
        |lines: &str| service(&format!("{PLAIN}\ncheck:\n  {}", lines.replace('\n', "\n  ")));
    at(
        &check("probe: tcp\ntimeout: 3s"),
        (10, "services[0].check.timeout", "longer than the interval"),
    );
    at(
        &check("probe: tcp\ninterval: 1ms"),
        (10, "services[0].check.interval", "between 100ms and 1h"),
    );
    at(&check("probe: tcp\nfall: 0"), (10, "services[0].check.fall", "between 1 and 100"));
    at(&check("probe: tcp\njitter: 51"), (10, "services[0].check.jitter", "between 0 and 50"));
    at(&check("probe: tcp\nport: 0"), (10, "services[0].check.port", "port 0"));
    at(
        &check("probe: {http: {path: a}}"),
        (9, "services[0].check.probe.http.path", "begins with /"),
    );
    at(&check("probe: {https: {host: a}}"), (9, "services[0].check.probe.https", "`ca`"));
    at(&check("probe: {udp: {send: ''}}"), (9, "services[0].check.probe.udp.send", "0 bytes"));
    at(
        &check("probe: {udp: {send: 'hex:0'}}"),
        (9, "services[0].check.probe.udp.send", "two hexadecimal"),
    );
    let through = "check:\n  probe: tcp\n  path: tunnel";
    let layer2 = service(&format!("{PLAIN}\nforwarding: layer2\n{through}"));
    let layer2 = layer2.replace("198.18.0.1}", "198.18.0.1, mac: '02:00:00:00:00:01'}");
    at(&layer2, (11, "services[0].check.path", "no tunnel"));
    let mixed = service(&format!("{PLAIN}\n{through}")).replace("198.18.0.1}", "'2001:db8::1'}");
    at(&mixed, (10, "services[0].check.path", "write `direct`"));
    let all = service(&PLAIN.replace("port: 80", "port: 0\ncheck: {probe: tcp}"));
    at(&all, (7, "services[0].check", "all ports"));
    at(
        &service(&format!("{PLAIN}\nfail_open: true")),
        (8, "services[0].fail_open", "without `check`"),
    );
}

/// The blocks of a page that are in this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    page.split(begin.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_files_of_the_guide_are_understood() {
    let guide = include_str!("../../../docs/load-balancer-operators.md");
    let mut files = blocks(guide, "yaml");
    files.extend(guide.split("<<'END'\n").skip(1).filter_map(|rest| rest.split("END\n").next()));
    assert_eq!(files.len(), 3);
    for file in files {
        config::parse("guide", file).unwrap();
    }
}

#[test]
fn full_nat_has_sources_of_the_services_family() {
    let snat = |nat: &str, rest: &str| format!("{}{nat}", service(&format!("{PLAIN}\n{rest}")));
    let good = snat("nat: {sources: [198.18.9.1]}\n", "forwarding: snat");
    let read = config::parse("lb.yaml", &good).unwrap().config;
    assert_eq!((read.nat.first_port, read.nat.last_port), (1024, 32767));
    at(&snat("", "forwarding: snat"), (8, "services[0].forwarding", "no source"));
    let other = "nat: {sources: [\"2001:db8:9::1\"]}\n";
    at(&snat(other, "forwarding: snat"), (8, "services[0].forwarding", "no source"));
    let twice = "nat: {sources: [198.18.9.1, 198.18.9.1]}\n";
    at(&snat(twice, "forwarding: tunnel"), (9, "nat.sources[1]", "198.18.9.1 is named twice"));
    let short = "nat: {first_port: 2000, last_port: 2062}\n";
    at(&snat(short, "forwarding: tunnel"), (9, "nat.last_port", "2063"));
    let narrow = "nat: {sources: [198.18.9.1, 198.18.9.2], places4: 1}\n";
    at(&snat(narrow, "forwarding: snat"), (9, "nat.places4", "2"));
    // As many as ports can be named: 2^26, of which each source has 31744, or 65472.
    let wide = "nat: {sources: [198.18.9.1], places4: 2115}\n";
    at(&snat(wide, "forwarding: snat"), (9, "nat.places4", "2115 is not between 1 and 2114"));
    let both = "nat: {sources: [198.18.9.1], places4: 1024, places6: 2, last_port: 65535, first_port: 1}\n";
    at(&snat(both, "forwarding: snat"), (9, "nat.places6", "1026 places for sources of both"));
    config::parse("lb.yaml", &snat(&both.replace("6: 2", "6: 1"), "forwarding: snat")).unwrap();
    let timeouts = "nat: {timeouts: {opening: 1s, established: 168h, answered: 3m, closing: 5s}}\n";
    let read = config::parse("lb.yaml", &snat(timeouts, "forwarding: tunnel")).unwrap().config;
    let [opening, established, answered, closing] = [1, 604_800, 180, 5].map(Duration::from_secs);
    let expected = NatTimeouts { opening, established, answered, closing };
    assert_eq!(read.options().nat.timeouts, expected);
    for field in ["opening", "established", "answered", "closing"] {
        for wrong in ["999ms", "169h"] {
            let text = format!("nat:\n  timeouts:\n    {field}: {wrong}\n");
            let said = format!("{wrong} is not between 1s and 168h");
            let named = format!("nat.timeouts.{field}");
            at(&snat(&text, "forwarding: tunnel"), (11, named.as_str(), said.as_str()));
        }
    }
    let unknown = "nat: {timeouts: {closed: 1s}}\n";
    at(&snat(unknown, "forwarding: tunnel"), (9, "nat.timeouts.closed", "unknown field"));
    let own = "nat: {sources: [198.51.100.1]}\n";
    at(&snat(own, "forwarding: tunnel"), (4, "services[0].addresses[0]", "is a source"));
    let port = good.replace("198.18.0.1}", "198.18.0.1, port: 8080}");
    assert_eq!(
        config::parse("lb.yaml", &port).unwrap().config.services[0].backends[0].port,
        Some(8080)
    );
    let untranslated = port.replace("forwarding: snat", "forwarding: tunnel");
    at(&untranslated, (7, "services[0].backends[0].port", "has a port of its own"));
    let again = good.replace("198.18.0.1}", "198.18.0.1}, {address: 198.18.0.1, port: 8080}");
    at(&again, (7, "services[0].backends[1].address", "twice"));
    let mixed = good.replace("198.18.0.1}", "198.18.0.1}, {address: \"2001:db8::1\"}");
    at(&mixed, (7, "services[0].backends[1].address", "another family"));
}

//! The prebuilt objects have the maps and programs that the rest of flowgate counts on.

use std::collections::BTreeMap;

use flowgate_abi::{
    decap, lb,
    maps::{self, MapKind, MapSpec},
    server_id,
};
use serde_json::Value;

fn parsed(manifest: &str) -> Value {
    serde_json::from_str(manifest).expect("the manifest is JSON")
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}"))
}

#[test]
fn the_objects_maps_are_those_of_the_boundary() {
    check_maps(flowgate_ebpf_progs::MANIFEST, maps::ALL);
    check_maps(flowgate_ebpf_progs::lb::MANIFEST, lb::maps::ALL);
    check_maps(flowgate_ebpf_progs::decap::MANIFEST, decap::maps::ALL);
    check_maps(flowgate_ebpf_progs::server_id::MANIFEST, server_id::maps::ALL);
}

#[test]
fn the_samplers_object_has_its_maps_by_their_names() {
    let manifest = parsed(flowgate_ebpf_progs::sampler::MANIFEST);
    let maps = manifest["maps"].as_array().expect("a list");
    let found: BTreeMap<&str, &str> =
        maps.iter().map(|map| (text(map, "name"), text(map, "type"))).collect();
    let [samples, lost, stages] = flowgate_ebpf_progs::sampler::MAPS;
    assert_eq!(found.get(samples), Some(&"ringbuf"));
    assert_eq!(found.get(lost), Some(&"percpu_array"));
    assert_eq!(found.get(stages), Some(&"prog_array"));
}

fn check_maps(manifest: &str, specs: &[MapSpec]) {
    let manifest = parsed(manifest);
    let maps = manifest["maps"].as_array().expect("a list");
    let mut found: BTreeMap<&str, &Value> =
        maps.iter().map(|map| (text(map, "name"), map)).collect();
    for spec in specs {
        let map = found.remove(spec.name).unwrap_or_else(|| panic!("{} is missing", spec.name));
        let size = |field: &str| map[field].as_u64().expect("a number") as usize;
        let sizes = (size("key_size"), size("value_size"));
        let wanted = if spec.kind == MapKind::RingBuf { (0, 0) } else { (spec.key, spec.value) };
        assert_eq!(sizes, wanted, "{}", spec.name);
        let kind = match spec.kind {
            MapKind::Array | MapKind::MappedArray => "array",
            MapKind::PerCpuArray => "percpu_array",
            MapKind::Hash => "hash",
            MapKind::RingBuf => "ringbuf",
            MapKind::SocketStorage => "sk_storage",
        };
        assert_eq!(text(map, "type"), kind, "{}", spec.name);
    }
    // What is left is the compiler's: read-only data.
    assert!(found.keys().all(|name| name.contains("rodata")), "{:?}", found.keys());
}

#[test]
fn the_objects_have_their_programs_by_their_names() {
    check_programs(flowgate_ebpf_progs::MANIFEST, &flowgate_ebpf_progs::PROGRAMS);
    check_programs(flowgate_ebpf_progs::lb::MANIFEST, &flowgate_ebpf_progs::lb::PROGRAMS);
    let decap = flowgate_ebpf_progs::decap::MANIFEST;
    check_programs(decap, &flowgate_ebpf_progs::decap::PROGRAMS);
    let sampler = flowgate_ebpf_progs::sampler::MANIFEST;
    check_programs(sampler, &flowgate_ebpf_progs::sampler::PROGRAMS);
    let server_id = flowgate_ebpf_progs::server_id::MANIFEST;
    check_programs(server_id, &flowgate_ebpf_progs::server_id::PROGRAMS);
}

fn check_programs(manifest: &str, programs: &[&str]) {
    let manifest = parsed(manifest);
    let found = manifest["programs"].as_array().expect("a list");
    let mut names: Vec<&str> = found.iter().map(|program| text(program, "name")).collect();
    names.sort_unstable();
    let mut wanted = programs.to_vec();
    wanted.sort_unstable();
    assert_eq!(names, wanted);
}

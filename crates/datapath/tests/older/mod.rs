//! Real state of the first layout: its object's programs over pinned maps, with its settings.
//!
//! The policy tables in it are written by the present library, which writes them as the older one
//! did; flows are the older programs' own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData},
    programs::{
        SchedClassifier, TestRun, TestRunOptions,
        links::{FdLink, PinnedLink},
        tc::SchedClassifierLink,
    },
};
use flowgate_datapath::Stage;
use flowgate_ebpf_progs as progs;

/// The first layout's hash.
pub(crate) const FIRST: u64 = 0x198b_0e98_0894_9624;
const OBJECT: &[u8] = include_bytes!("../fixtures/v1.o");
/// Bytes of its settings, and where the present ones go on otherwise: behind the time-outs.
const SETTINGS: usize = 72;

/// Maps that it doesn't have, or with another value.
const OTHERS: [&str; 3] = ["FRAGMENTS", "PARSED", "STATE"];

/// The first layout's programs over pinned state.
pub(crate) struct Older(Ebpf);

impl Older {
    /// Makes state of the first layout of the present layout's, and has its programs on the links;
    /// the present one goes, unless it is kept.
    pub(crate) fn make(directory: &Path, keep_present: bool) -> Self {
        let [present, old] = [flowgate_abi::LAYOUT, FIRST].map(|layout| root(directory, layout));
        for below in ["maps", "links"] {
            fs::create_dir_all(old.join(below)).expect("a BPF file system takes directories");
        }
        share(&present.join("maps"), &old.join("maps"));
        let settings = settings(&present);
        let mut ebpf = load(&old.join("maps"), &settings);
        let mut state: Array<_, [u8; SETTINGS]> =
            Array::try_from(ebpf.map_mut("STATE").expect("it has it")).expect("an array");
        state.set(0, settings, 0).expect("writable");
        take_links(&mut ebpf, &present.join("links"), &old.join("links"));
        if !keep_present {
            fs::remove_dir_all(&present).expect("removable");
        }
        Self(ebpf)
    }

    /// Runs a frame through one of its programs, as the endpoint's in a slot; `true`: it passed.
    pub(crate) fn passes(&mut self, slot: u32, stage: Stage, frame: &[u8]) -> bool {
        let loopback = 1u32;
        self.links().insert(loopback, slot, 0).expect("room");
        let program = match stage {
            Stage::FromEndpoint => progs::TC_FROM_ENDPOINT,
            Stage::ToEndpoint => progs::TC_TO_ENDPOINT,
        };
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let result = program_of(&mut self.0, program).test_run(options).expect("runs");
        self.links().remove(&loopback).expect("there");
        // TC_ACT_SHOT
        result.return_value != 2
    }

    fn links(&mut self) -> HashMap<&mut MapData, u32, u32> {
        HashMap::try_from(self.0.map_mut("LINKS").expect("it has it")).expect("a hash")
    }
}

/// The directory of a layout's state.
pub(crate) fn root(directory: &Path, layout: u64) -> PathBuf {
    directory.join(format!("v{layout:016x}"))
}

/// The names below a directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("readable").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn share(from: &Path, to: &Path) {
    for name in names(from).iter().filter(|name| !OTHERS.contains(&name.as_str())) {
        let map = MapData::from_pin(from.join(name)).expect("pinned");
        map.pin(to.join(name)).expect("not pinned yet");
    }
}

/// The present settings as the first layout has them: fields of the same names in the same places,
/// but for one that was zero, and without the last two.
fn settings(present: &Path) -> [u8; SETTINGS] {
    use std::mem::{offset_of, size_of};
    type Present = [u8; size_of::<flowgate_abi::Settings>()];
    let map = MapData::from_pin(present.join("maps/STATE")).expect("pinned");
    let map = aya::maps::Map::Array(map);
    let state: Array<_, Present> = Array::try_from(&map).expect("an array");
    let now = state.get(&0, 0).expect("readable");
    let mut old = [0; SETTINGS];
    let reserved = offset_of!(flowgate_abi::Settings, events_per_second) + 4;
    old[..reserved].copy_from_slice(&now[..reserved]);
    let mark = offset_of!(flowgate_abi::Settings, mark);
    old[reserved + 4..].copy_from_slice(&now[mark..mark + 8]);
    old
}

fn load(maps: &Path, settings: &[u8; SETTINGS]) -> Ebpf {
    let mut loader = EbpfLoader::new();
    loader.override_global("SETTINGS", &settings[..], true);
    let pinned: Vec<String> = names(maps).into_iter().chain(["STATE".to_owned()]).collect();
    for name in &pinned {
        loader.map_pin_path(name, maps.join(name));
    }
    let mut ebpf = loader.load(OBJECT).expect("a sound object");
    for name in progs::PROGRAMS {
        program_of(&mut ebpf, name).load().expect("verifies");
    }
    ebpf
}

fn program_of<'e>(ebpf: &'e mut Ebpf, name: &str) -> &'e mut SchedClassifier {
    let program = ebpf.program_mut(name).expect("it has it");
    program.try_into().expect("a TC program")
}

/// Moves pinned links, and replaces the programs on them.
fn take_links(ebpf: &mut Ebpf, from: &Path, to: &Path) {
    for name in names(from) {
        let pin = to.join(&name);
        fs::rename(from.join(&name), &pin).expect("movable");
        let program =
            if name.ends_with("-to") { progs::TC_TO_ENDPOINT } else { progs::TC_FROM_ENDPOINT };
        let link: FdLink = PinnedLink::from_pin(&pin).expect("pinned").into();
        let link: SchedClassifierLink = link.try_into().expect("of TCX");
        let program = program_of(ebpf, program);
        let id = program.attach_to_link(link).expect("takes it");
        drop(program.take_link(id));
    }
}

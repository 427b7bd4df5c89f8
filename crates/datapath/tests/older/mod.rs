//! Real state of an older layout: its object's programs over pinned maps, with its settings.
//!
//! The policy tables in it are written by the present library, which writes them as the older ones
//! did, and the ipcache is written anew; flows are the older programs' own.

mod ipcache;

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData},
    programs::{
        SchedClassifier, TestRun, TestRunOptions,
        links::{FdLink, PinnedLink},
        tc::SchedClassifierLink,
    },
};
use flowgate_datapath::Stage;
use flowgate_ebpf_progs as progs;
use ipnet::IpNet;

/// An older layout.
pub(crate) struct Layout {
    pub(crate) hash: u64,
    object: &'static [u8],
    /// Maps that it doesn't have, or with another value.
    others: &'static [&'static str],
    /// The present settings as it has them.
    settings: fn(&Present) -> Vec<u8>,
}

pub(crate) const FIRST: Layout = Layout {
    hash: 0x198b_0e98_0894_9624,
    object: include_bytes!("../fixtures/v1.o"),
    others: &["FRAGMENTS", "PARSED", "STATE", "IPCACHE", "ANSWER_BUDGET"],
    settings: first_settings,
};

pub(crate) const SECOND: Layout = Layout {
    hash: 0xd48c_5d06_c091_68b1,
    object: include_bytes!("../fixtures/v2.o"),
    others: &["STATE", "IPCACHE", "ANSWER_BUDGET"],
    settings: second_settings,
};

type Present = [u8; size_of::<flowgate_abi::Settings>()];

/// An older layout's programs over pinned state.
pub(crate) struct Older(Ebpf);

impl Older {
    /// Makes state of an older layout of the present layout's, with these networks in its ipcache, and has
    /// its programs on the links; the present one goes, unless it is kept.
    pub(crate) fn make(
        directory: &Path,
        layout: &Layout,
        networks: &[IpNet],
        keep_present: bool,
    ) -> Self {
        let [present, old] = [flowgate_abi::LAYOUT, layout.hash].map(|hash| root(directory, hash));
        for below in ["maps", "links"] {
            fs::create_dir_all(old.join(below)).expect("a BPF file system takes directories");
        }
        share(&present.join("maps"), &old.join("maps"), layout.others);
        let settings = settings(&present, layout);
        let mut ebpf = load(&old.join("maps"), layout, &settings);
        ipcache::write(&mut ebpf, &present.join("maps"), networks);
        let state = MapData::from_pin(old.join("maps/STATE")).expect("pinned");
        write_state(state, &settings);
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

fn share(from: &Path, to: &Path, others: &[&str]) {
    for name in names(from).iter().filter(|name| !others.contains(&name.as_str())) {
        let map = MapData::from_pin(from.join(name)).expect("pinned");
        map.pin(to.join(name)).expect("not pinned yet");
    }
}

/// The present settings as an older layout has them.
fn settings(present: &Path, layout: &Layout) -> Vec<u8> {
    let map = Map::Array(MapData::from_pin(present.join("maps/STATE")).expect("pinned"));
    let state: Array<_, Present> = Array::try_from(&map).expect("an array");
    (layout.settings)(&state.get(&0, 0).expect("readable"))
}

/// Fields of the same names in the same places, but for one that was zero, and without the last two.
fn first_settings(now: &Present) -> Vec<u8> {
    use std::mem::offset_of;
    let reserved = offset_of!(flowgate_abi::Settings, events_per_second) + 4;
    let mark = offset_of!(flowgate_abi::Settings, mark);
    [&now[..reserved], &[0; 4], &now[mark..mark + 8]].concat()
}

/// The same without what only answers need, in whose place there was a zero.
fn second_settings(now: &Present) -> Vec<u8> {
    let answers = std::mem::offset_of!(flowgate_abi::Settings, answers_per_second);
    [&now[..answers], &[0; 4]].concat()
}

fn write_state(map: MapData, settings: &[u8]) {
    let mut map = Map::Array(map);
    match settings.len() {
        72 => set_first::<72>(&mut map, settings),
        80 => set_first::<80>(&mut map, settings),
        other => panic!("settings of {other} bytes"),
    }
}

fn set_first<const SIZE: usize>(map: &mut Map, settings: &[u8]) {
    let mut state: Array<_, [u8; SIZE]> = Array::try_from(map).expect("an array");
    state.set(0, <[u8; SIZE]>::try_from(settings).expect("of this size"), 0).expect("writable");
}

fn load(maps: &Path, layout: &Layout, settings: &[u8]) -> Ebpf {
    let mut loader = EbpfLoader::new();
    loader.override_global("SETTINGS", settings, true);
    let own = ["STATE", "IPCACHE4_ROOT", "IPCACHE4_NODES", "IPCACHE6_HOSTS", "IPCACHE6_NETWORKS"];
    let pinned: Vec<String> = names(maps).into_iter().chain(own.map(str::to_owned)).collect();
    for name in &pinned {
        loader.map_pin_path(name, maps.join(name));
    }
    for name in &own[2..] {
        loader.map_max_entries(name, 64);
    }
    let mut ebpf = loader.load(layout.object).expect("a sound object");
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

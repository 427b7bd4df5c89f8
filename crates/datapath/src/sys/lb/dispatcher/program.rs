//! The dispatcher's program: calls each of its places in turn, and goes on to the next one if what that says is among
//! the actions on which it goes on. And the balancer's program in one of the places.
//!
//! An empty place says [`NOBODY`], on which every place goes on. Not here: what stands in the places ([`super`]).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use super::{
    super::insn::*,
    config::Config,
    types::{MAIN, PLACE, types},
};
use crate::sys::syscall::{self, ProgramKind, ProgramLoad, extension, xdp};

/// The name by which others know it.
pub(super) const NAME: &str = "xdp_dispatcher";
/// What a place says in which nobody stands.
pub(super) const NOBODY: u32 = 31;
/// The name of the balancer's program in its place.
pub(super) const OURS: &str = "flowgate";

const PASS: i32 = 2;
/// `bpf_xdp_adjust_tail`.
const ADJUST_TAIL: i32 = 65;
const SHIFT_RIGHT_WORD: u8 = 0x7c; // BPF_ALU | BPF_RSH | BPF_X
const SET_WORD: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const AND_WORD: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP_NOT_EQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const PSEUDO_MAP_VALUE: u8 = 2;

/// Loads a dispatcher with empty places.
pub(super) fn load(config: &Config) -> io::Result<OwnedFd> {
    let places = config.places() as u32;
    let types = extension::load_types(&types(NAME, places, config.version))?;
    let data = extension::read_only("xdp_disp.rodata", &config.bytes())?;
    let program = assembled(&instructions(config, data.as_fd()));
    let functions = functions(places);
    let (loaded, log) = syscall::load_program(&ProgramLoad {
        name: NAME,
        instructions: &program,
        license: c"Dual MIT/GPL",
        types: Some(types.as_fd()),
        functions: &functions,
        function_size: 8,
        kind: if config.frags { ProgramKind::XdpFrags } else { ProgramKind::Xdp },
    });
    loaded.map_err(|error| with_log(error, &log))
}

/// Loads the balancer's program for a place, which runs what is in the first slot of an array of programs.
///
/// It is loaded against a dispatcher of its own, which is gone afterwards.
pub(super) fn load_ours(entry: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let nobody = load(&Config::empty(1))?;
    let types = extension::load_types(&types(OURS, 0, super::config::VERSION))?;
    let [slot, rest_of_slot] = load_wide(2, PSEUDO_MAP_FD, entry.as_raw_fd());
    let program =
        assembled(&[slot, rest_of_slot, set(3, 0), call(TAIL_CALL), set(0, NOBODY as i32), EXITS]);
    let functions = functions(0);
    let load = ProgramLoad {
        name: OURS,
        instructions: &program,
        license: c"Dual MIT/GPL",
        types: Some(types.as_fd()),
        functions: &functions,
        function_size: 8,
        kind: ProgramKind::Extension,
    };
    let (loaded, log) = extension::load_extension(&load, nobody.as_fd(), PLACE);
    loaded.map_err(|error| with_log(error, &log))
}

/// Nobody fills its slot any more: a process that was killed and had pinned nothing.
pub(super) fn is_left_behind(program: BorrowedFd<'_>) -> io::Result<bool> {
    if xdp::name_of(program)? != OURS {
        return Ok(false);
    }
    let Some(entry) = extension::only_map(program)? else { return Ok(false) };
    Ok(!syscall::lookup(entry.as_fd(), &0u32.to_ne_bytes(), &mut [0; 4], false)?)
}

/// The refusals of a kernel that doesn't permit it keep their numbers; the others tell the verifier's word.
fn with_log(error: io::Error, log: &str) -> io::Error {
    match log.trim() {
        "" => error,
        log => io::Error::new(error.kind(), format!("{error}; verifier log: {log}")),
    }
}

/// Instructions in front of the first call, of each call, and of each empty place.
const FRONT: usize = 3;
const EACH: usize = 8;
const EMPTY: usize = 4;

/// Where a place begins.
const fn begin(places: usize, place: usize) -> usize {
    FRONT + EACH * places + 2 + EMPTY * place
}

fn instructions(config: &Config, data: BorrowedFd<'_>) -> Vec<Insn> {
    let places = config.places();
    // That the program has the map is what tells others what it runs.
    let mut all = vec![mov(6, 1)];
    all.extend(load_wide(1, PSEUDO_MAP_VALUE, data.as_raw_fd()));
    for (place, slot) in config.slots.iter().enumerate() {
        let distance = begin(places, place) - (all.len() + 2);
        all.extend([
            mov(1, 6),
            Insn { code: CALL, registers: PSEUDO_CALL << 4, offset: 0, value: distance as i32 },
            // An action that has no bit.
            Insn { code: JUMP_GREATER, registers: 0, offset: 4, value: NOBODY as i32 },
            Insn { code: SET_WORD, registers: 1, offset: 0, value: slot.actions as i32 },
            Insn { code: SHIFT_RIGHT_WORD, registers: 1, offset: 0, value: 0 },
            Insn { code: AND_WORD, registers: 1, offset: 0, value: 1 },
            Insn { code: JUMP_NOT_EQUAL, registers: 1, offset: 1, value: 0 },
            EXITS,
        ]);
    }
    all.extend([set(0, PASS), EXITS]);
    for _ in 0..places {
        // VERIFIER: since Linux 6.13 a program that changes packets' data isn't put in the place of a function
        // that doesn't. This changes nothing.
        all.extend([set(2, 0), call(ADJUST_TAIL), set(0, NOBODY as i32), EXITS]);
    }
    all
}

/// Which type each function of the program has (`struct bpf_func_info`).
fn functions(places: u32) -> Vec<u8> {
    let main = [0, MAIN];
    let place = |place| [begin(places as usize, place as usize) as u32, PLACE + place];
    let all = [main].into_iter().chain((0..places).map(place));
    all.flatten().flat_map(u32::to_ne_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::config::Slot, *};

    #[test]
    fn calls_and_types_lead_to_the_places() {
        let slot = |actions| Slot { actions, priority: 50, frags: true };
        let config = Config { slots: vec![slot(1 << 2), slot(u32::MAX)], ..Config::empty(0) };
        let file = std::fs::File::open("/").expect("any descriptor");
        let all = instructions(&config, file.as_fd());
        assert_eq!(all.len(), begin(2, 2));
        for place in [0, 1] {
            let at = FRONT + EACH * place + 1;
            let target = at + 1 + all[at].value as usize;
            assert_eq!((target, all[target + 2].value), (begin(2, place), NOBODY as i32));
            // An unknown action ends where one does on which it doesn't go on; otherwise the next one is called.
            assert_eq!(all[at + 2 + all[at + 1].offset as usize].code, EXIT);
            assert_eq!(all[at + 5].offset, 1);
        }
        let words: Vec<u8> = [0, MAIN, begin(2, 0) as u32, PLACE, begin(2, 1) as u32, PLACE + 1]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect();
        assert_eq!(functions(2), words);
    }
}

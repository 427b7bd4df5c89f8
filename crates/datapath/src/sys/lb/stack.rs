//! The stack of the balancer behind an entry that hands on, as kernels count it that round each frame up to 32 bytes
//! (`check_max_stack_depth` in `kernel/bpf/verifier.c`; 16 where programs are compiled, since Linux 6.8). What is
//! verified alone has a frame less, so no other test without an older kernel finds out.

use std::os::fd::AsFd;

use aya_obj::{Object, generated::bpf_insn};
use flowgate_ebpf_progs as progs;

use super::{
    hand_on::{Next, hand_on},
    insn::{CALL, MOVE, PSEUDO_CALL},
};
use crate::sys::object::parts;

/// What a chain of calls may take.
const MOST: u32 = 512;
/// The register of the frame.
const FRAME: u8 = 10;

/// A program's functions.
struct Functions<'p> {
    program: &'p [bpf_insn],
    starts: Vec<usize>,
}

impl<'p> Functions<'p> {
    fn of(program: &'p [bpf_insn]) -> Self {
        let called = (0..program.len()).filter_map(|at| callee(program, at));
        let mut starts: Vec<usize> = [0].into_iter().chain(called).collect();
        starts.sort_unstable();
        starts.dedup();
        Self { program, starts }
    }

    fn instructions(&self, start: usize) -> std::ops::Range<usize> {
        let next = self.starts.iter().find(|other| **other > start);
        start..next.copied().unwrap_or(self.program.len())
    }

    /// Bytes of the deepest chain of calls from a function on.
    fn deepest(&self, start: usize) -> u32 {
        let range = self.instructions(start);
        let frame = frame(&self.program[range.clone()]);
        let below =
            range.filter_map(|at| callee(self.program, at)).map(|start| self.deepest(start));
        frame.max(1).next_multiple_of(32) + below.max().unwrap_or(0)
    }
}

/// The function that an instruction calls, if it calls one of the program's.
fn callee(program: &[bpf_insn], at: usize) -> Option<usize> {
    let instruction = &program[at];
    let calls = instruction.code == CALL && instruction.src_reg() == PSEUDO_CALL;
    calls
        .then(|| (at + 1).checked_add_signed(instruction.imm as isize).expect("within the program"))
}

/// Bytes below the frame's register that a function's instructions name.
fn frame(function: &[bpf_insn]) -> u32 {
    const LOAD: u8 = 1;
    const STORES: [u8; 2] = [2, 3];
    const ADD: u8 = 0x07;
    let accessed = function.iter().map(|instruction| {
        let class = instruction.code & 7;
        let base = if class == LOAD { instruction.src_reg() } else { instruction.dst_reg() };
        let is_frame = (class == LOAD || STORES.contains(&class)) && base == FRAME;
        if is_frame { instruction.off.into() } else { 0 }
    });
    let pointed_to = function.windows(2).map(|pair| {
        let (copy, add) = (&pair[0], &pair[1]);
        let is_frame = copy.code == MOVE && copy.src_reg() == FRAME && add.code == ADD;
        if is_frame && add.dst_reg() == copy.dst_reg() { add.imm } else { 0 }
    });
    accessed.chain(pointed_to).min().unwrap_or(0).unsigned_abs()
}

/// The balancer's program with its subprograms.
fn balancer() -> Vec<bpf_insn> {
    let mut object = Object::parse(progs::lb::OBJECT).expect("the object is one");
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).expect("its calls lead somewhere");
    let (_, function) = parts(progs::lb::XDP_BALANCE, &object).expect("it is there");
    function.instructions.clone()
}

#[test]
fn the_balancer_behind_an_entry_fits_older_kernels() {
    let program = balancer();
    let file = std::fs::File::open("/").expect("any descriptor");
    let whole = hand_on(&program, Next { slots: file.as_fd(), slot: 5, on: 1 << 2 });
    let (alone, behind) = (Functions::of(&program).deepest(0), Functions::of(&whole).deepest(0));
    assert!(alone > 256, "calls are found: {alone}");
    assert_eq!(behind, alone + 32);
    assert!(behind <= MOST, "{behind} bytes of stack");
}

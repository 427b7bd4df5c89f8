//! Instructions by hand, for programs of a few of them that no object has.
//!
//! Not here: what they are put together to ([`super::hand_on`], [`super::dispatcher`]).

use aya_obj::{copy_instructions, generated::bpf_insn};

/// A program of these.
pub(super) fn assembled(instructions: &[Insn]) -> Vec<bpf_insn> {
    let bytes: Vec<u8> = instructions.iter().flat_map(Insn::bytes).collect();
    copy_instructions(&bytes).expect("whole instructions")
}

/// An instruction (`struct bpf_insn`, `include/uapi/linux/bpf.h`).
pub(super) struct Insn {
    pub(super) code: u8,
    /// Destination in the lower half, source in the upper one.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) value: i32,
}

pub(super) const SHIFT_RIGHT: u8 = 0x7f; // BPF_ALU64 | BPF_RSH | BPF_X
pub(super) const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
pub(super) const MOVE: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
pub(super) const SET: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
pub(super) const JUMP_EQUAL: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_GREATER: u8 = 0x26; // BPF_JMP32 | BPF_JGT | BPF_K
pub(super) const CALL: u8 = 0x85; // BPF_JMP | BPF_CALL
pub(super) const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT
const LOAD_WIDE: u8 = 0x18; // BPF_LD | BPF_IMM | BPF_DW
pub(super) const PSEUDO_CALL: u8 = 1;
pub(super) const PSEUDO_MAP_FD: u8 = 1;
/// `bpf_tail_call`.
pub(super) const TAIL_CALL: i32 = 12;

pub(super) const fn mov(to: u8, from: u8) -> Insn {
    Insn { code: MOVE, registers: to | from << 4, offset: 0, value: 0 }
}

pub(super) const fn set(register: u8, value: i32) -> Insn {
    Insn { code: SET, registers: register, offset: 0, value }
}

pub(super) const fn call(helper: i32) -> Insn {
    Insn { code: CALL, registers: 0, offset: 0, value: helper }
}

pub(super) const EXITS: Insn = Insn { code: EXIT, registers: 0, offset: 0, value: 0 };

/// A value of 64 bits in a register, in two instructions; a descriptor of what `kind` says (`BPF_PSEUDO_*`).
pub(super) const fn load_wide(register: u8, kind: u8, descriptor: i32) -> [Insn; 2] {
    let registers = register | kind << 4;
    [
        Insn { code: LOAD_WIDE, registers, offset: 0, value: descriptor },
        Insn { code: 0, registers: 0, offset: 0, value: 0 },
    ]
}

impl Insn {
    fn bytes(&self) -> [u8; 8] {
        let registers = if cfg!(target_endian = "little") {
            self.registers
        } else {
            self.registers.rotate_left(4)
        };
        let mut bytes = [self.code, registers, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&self.offset.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }
}

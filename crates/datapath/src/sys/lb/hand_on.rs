//! Makes a program hand on: where it says so, the next one runs, and it needs to know nothing of it.
//!
//! The program becomes a subprogram of a few instructions that look at what it returns, and tail-call a slot of
//! an array of programs, or return the same. Not here: what lies in the slots ([`super::chain`]).
//!
//! Invariant: an empty slot changes nothing of what the program says. Tested below by reading the
//! instructions, and in the kernel by `kernel_stages`.

use std::os::fd::{AsRawFd, BorrowedFd};

use aya_obj::generated::bpf_insn;

use super::insn::*;

/// Where a program hands on to.
#[derive(Clone, Copy)]
pub(super) struct Next<'a> {
    /// The array of programs.
    pub(super) slots: BorrowedFd<'a>,
    /// The slot.
    pub(super) slot: u32,
    /// For which actions: a bit each.
    pub(super) on: u8,
}

/// Instructions in front of the program's.
const PROLOGUE: usize = 15;

/// A program that runs `program` and hands on what it says.
///
/// VERIFIER: the tail call is made by the entry, whose own frame is empty: only callers of a subprogram that
/// tail-calls are held to 256 bytes of stack. Linux 5.10 and later, with a JIT compiler.
pub(super) fn hand_on(program: &[bpf_insn], next: Next<'_>) -> Vec<bpf_insn> {
    let [slots, rest_of_slots] = load_wide(2, PSEUDO_MAP_FD, next.slots.as_raw_fd());
    let prologue: [Insn; PROLOGUE] = [
        mov(6, 1),
        Insn { code: CALL, registers: PSEUDO_CALL << 4, offset: 0, value: PROLOGUE as i32 - 2 },
        // An action that the kernel doesn't know.
        Insn { code: JUMP_GREATER, registers: 0, offset: 11, value: 7 },
        set(1, i32::from(next.on)),
        Insn { code: SHIFT_RIGHT, registers: 1, offset: 0, value: 0 },
        Insn { code: AND, registers: 1, offset: 0, value: 1 },
        Insn { code: JUMP_EQUAL, registers: 1, offset: 7, value: 0 },
        mov(7, 0),
        mov(1, 6),
        slots,
        rest_of_slots,
        set(3, next.slot as i32),
        call(TAIL_CALL),
        mov(0, 7),
        EXITS,
    ];
    let mut whole = assembled(&prologue);
    whole.extend_from_slice(program);
    whole
}

/// The types of the functions of what [`hand_on`] made (`struct bpf_func_info`), from the program's own, each a record of
/// `size` bytes.
///
/// VERIFIER: what is put in front is of the program's type. Without types, functions that are verified once
/// would be verified at each call: for the balancer's program Linux 6.1 gives up after a million instructions.
pub(super) fn types(program: &[u8], size: usize) -> Vec<u8> {
    let mut all = program.get(..size).unwrap_or_default().to_vec();
    for record in program.chunks_exact(size.max(4)) {
        let (at, rest) = record.split_first_chunk().expect("4 bytes or more");
        let at = u32::from_ne_bytes(*at) + PROLOGUE as u32;
        all.extend(at.to_ne_bytes());
        all.extend(rest);
    }
    all
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn jumps_and_calls_lead_where_they_should() {
        let program = assembled(&[set(0, 2), EXITS]);
        let file = std::fs::File::open("/").expect("any descriptor");
        let whole = hand_on(&program, Next { slots: file.as_fd(), slot: 5, on: 1 << 2 });
        assert_eq!(whole.len(), PROLOGUE + program.len());
        let target = |at: usize| at + 1 + usize::try_from(whole[at].off).expect("forwards");
        // The call goes behind the prologue; both jumps to the exit, past what restores the action.
        assert_eq!(2 + whole[1].imm as usize, PROLOGUE);
        assert_eq!((target(2), target(6)), (PROLOGUE - 1, PROLOGUE - 1));
        assert_eq!((whole[PROLOGUE - 1].code, whole[9].imm), (EXIT, file.as_raw_fd()));
        assert_eq!((whole[9].dst_reg(), whole[9].src_reg()), (2, PSEUDO_MAP_FD));
        assert_eq!((whole[3].imm, whole[11].imm), (1 << 2, 5));
    }

    #[test]
    fn functions_have_the_types_that_they_had() {
        let records = |records: &[[u32; 2]]| -> Vec<u8> {
            records.iter().flatten().flat_map(|word| word.to_ne_bytes()).collect()
        };
        let put = PROLOGUE as u32;
        let all = types(&records(&[[0, 7], [40, 9]]), 8);
        assert_eq!(all, records(&[[0, 7], [put, 7], [put + 40, 9]]));
        assert!(types(&[], 8).is_empty() && types(&[], 0).is_empty());
    }
}

//! Programs in the place of other programs' functions (`BPF_PROG_TYPE_EXT`, freplace), the types by which the kernel
//! finds the function, and a program's read-only data.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use super::{
    ARRAY, CreateAttr, ProgramLoad, attr, bpf, create, info_over, load, made, short_name, update,
};

const MAP_GET_FD_BY_ID: libc::c_int = 14;
const BTF_LOAD: libc::c_int = 18;
const MAP_FREEZE: libc::c_int = 22;
const LINK_CREATE: libc::c_int = 28;
/// Programs don't write it (`BPF_F_RDONLY_PROG`).
const READ_ONLY: u32 = 1 << 7;

/// Loads types (`Documentation/bpf/btf.rst`).
pub(in crate::sys) fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct TypesAttr {
        types: u64,
        log: u64,
        size: u32,
        log_size: u32,
        log_level: u32,
        // Looked at by kernels that don't know it.
        padding: u32,
    }
    let (size, types) = (types.len() as u32, types.as_ptr() as u64);
    made(BTF_LOAD, &TypesAttr { types, log: 0, size, log_size: 0, log_level: 0, padding: 0 })
}

/// Makes an array of one element that nobody changes any more.
pub(in crate::sys) fn read_only(name: &str, value: &[u8]) -> io::Result<OwnedFd> {
    use std::os::fd::AsFd;
    let map = create(&CreateAttr {
        map_type: ARRAY,
        key_size: 4,
        value_size: value.len() as u32,
        max_entries: 1,
        map_flags: READ_ONLY,
        map_name: short_name(name),
        ..CreateAttr::default()
    })?;
    update(map.as_fd(), &0u32.to_ne_bytes(), value)?;
    bpf(MAP_FREEZE, &(map.as_raw_fd() as u32))?;
    Ok(map)
}

/// The map that a program uses; `None`: none, or several.
pub(in crate::sys) fn only_map(program: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut map = 0u32;
    // `struct bpf_prog_info`: how many numbers there is room for, and where.
    let mut room = [0u8; 80];
    room[52..56].copy_from_slice(&1u32.to_ne_bytes());
    room[56..64].copy_from_slice(&(&raw mut map as u64).to_ne_bytes());
    let info = info_over(program, room)?;
    match u32::from_ne_bytes(info[52..56].try_into().expect("4 bytes")) {
        1 => made(MAP_GET_FD_BY_ID, &[map, 0, 0]).map(Some),
        _ => Ok(None),
    }
}

/// Loads a program that can stand in the place of a function of another one, by the function's type (Linux 5.6;
/// refused by lockdown).
pub(in crate::sys) fn load_extension(
    program: &ProgramLoad<'_>,
    target: BorrowedFd<'_>,
    function: u32,
) -> (io::Result<OwnedFd>, String) {
    let mut attr = attr(program);
    attr.attach_prog_fd = target.as_raw_fd() as u32;
    attr.attach_btf_id = function;
    load(attr)
}

/// Puts it there, as long as the link lives; in several programs' places at a time from Linux 5.10 on.
pub(in crate::sys) fn link_extension(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    function: u32,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct LinkAttr {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        function: u32,
    }
    let (program, target) = (program.as_raw_fd() as u32, target.as_raw_fd() as u32);
    made(LINK_CREATE, &LinkAttr { program, target, attach_type: 0, flags: 0, function })
}

//! Links of XDP programs, programs run without a wire, and arrays of programs.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use super::{CreateAttr, PinAttr, bpf, create, info, made, short_name};
use crate::lb::XdpMode;

const OBJ_GET: libc::c_int = 7;
const PROG_TEST_RUN: libc::c_int = 10;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const PROG_ARRAY: u32 = 3;
const ATTACH_XDP: u32 = 37;

/// Binds a program to an interface by a link (Linux 5.9).
pub(in crate::sys) fn link_xdp(
    program: BorrowedFd<'_>,
    ifindex: u32,
    mode: XdpMode,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct LinkAttr {
        program: u32,
        ifindex: u32,
        attach_type: u32,
        flags: u32,
    }
    // XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE
    let flags = match mode {
        XdpMode::Native => 1 << 2,
        XdpMode::Generic => 1 << 1,
    };
    let program = program.as_raw_fd() as u32;
    made(LINK_CREATE, &LinkAttr { program, ifindex, attach_type: ATTACH_XDP, flags })
}

/// Gives a link another program, atomically.
pub(in crate::sys) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct UpdateAttr {
        link: u32,
        program: u32,
        flags: u32,
        old_program: u32,
    }
    let (link, program) = (link.as_raw_fd() as u32, program.as_raw_fd() as u32);
    bpf(LINK_UPDATE, &UpdateAttr { link, program, flags: 0, old_program: 0 }).map(drop)
}

/// What is pinned at a path.
pub(in crate::sys) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    made(OBJ_GET, &PinAttr { path: path.as_ptr() as u64, fd: 0, flags: 0 })
}

/// An array of programs. It is emptied when the last descriptor and the last pin of it go, whoever runs.
pub(in crate::sys) fn program_array(name: &str, entries: u32) -> io::Result<OwnedFd> {
    create(&CreateAttr {
        map_type: PROG_ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: entries,
        map_name: short_name(name),
        ..CreateAttr::default()
    })
}

/// The name of a loaded program (`bpf_prog_info.name`); empty: it has none.
pub(crate) fn program_name(id: u32) -> io::Result<String> {
    name_of(program(id)?.as_fd())
}

/// A loaded program, by the kernel's number for it.
pub(in crate::sys) fn program(id: u32) -> io::Result<OwnedFd> {
    made(PROG_GET_FD_BY_ID, &[id, 0, 0])
}

/// The same, of a program that is at hand.
pub(in crate::sys) fn name_of(program: BorrowedFd<'_>) -> io::Result<String> {
    let info = info(program)?;
    let name = info[64..80].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Runs a program on a frame (`BPF_PROG_TEST_RUN`); returns what it said, and how long the frame is that it
/// left in `out`.
pub(in crate::sys) fn run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    out: &mut [u8],
) -> io::Result<(u32, usize)> {
    #[repr(C)]
    #[derive(Default)]
    struct RunAttr {
        program: u32,
        said: u32,
        size_in: u32,
        size_out: u32,
        frame: u64,
        out: u64,
        repeat: u32,
        duration: u32,
    }
    let mut attr = RunAttr {
        program: program.as_raw_fd() as u32,
        size_in: frame.len() as u32,
        size_out: out.len() as u32,
        frame: frame.as_ptr() as u64,
        out: out.as_mut_ptr() as u64,
        ..RunAttr::default()
    };
    let size = size_of::<RunAttr>();
    // SAFETY: the kernel reads and writes a plain struct of that size; the buffers in it are as long as it
    // says, and nothing else uses them meanwhile.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_TEST_RUN, &raw mut attr, size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((attr.said, attr.size_out as usize))
}

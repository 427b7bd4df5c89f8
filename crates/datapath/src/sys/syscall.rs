//! `bpf(2)` where aya has no word for it: elements as bytes, and waiting for a grace period.

pub(super) mod extension;
pub(super) mod xdp;

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::Duration,
};

use aya_obj::generated::bpf_insn;
use nix::sys::signal::{SigSet, SigmaskHow};

/// Commands of `bpf(2)` (`include/uapi/linux/bpf.h`).
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const PROG_LOAD: libc::c_int = 5;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BTF_GET_FD_BY_ID: libc::c_int = 19;
/// Take the value's spin lock while copying it (Linux 5.1).
const F_LOCK: u64 = 4;
const ARRAY: u32 = 2;
const ARRAY_OF_MAPS: u32 = 12;

/// The part of `union bpf_attr` for elements.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value_or_next_key: u64,
    flags: u64,
}

/// The part of `union bpf_attr` for making a map.
#[repr(C)]
#[derive(Default)]
struct CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

/// The part of `union bpf_attr` for pins.
#[repr(C)]
#[derive(Default)]
struct PinAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<i64> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a plain struct that outlives the call; the
    // pointers in it are valid by the callers' contracts.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Reads an element; `false`: there is none. `value` must have the map's value size, for a per-CPU
/// map times the possible CPUs, each rounded up to 8 bytes.
pub(super) fn lookup(
    map: BorrowedFd<'_>,
    key: &[u8],
    value: &mut [u8],
    locked: bool,
) -> io::Result<bool> {
    let attr = ElementAttr {
        map_fd: map.as_raw_fd() as u32,
        key: key.as_ptr() as u64,
        value_or_next_key: value.as_mut_ptr() as u64,
        flags: if locked { F_LOCK } else { 0 },
        ..ElementAttr::default()
    };
    match bpf(MAP_LOOKUP_ELEM, &attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes an element.
pub(super) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let attr = ElementAttr {
        map_fd: map.as_raw_fd() as u32,
        key: key.as_ptr() as u64,
        value_or_next_key: value.as_ptr() as u64,
        ..ElementAttr::default()
    };
    bpf(MAP_UPDATE_ELEM, &attr).map(drop)
}

/// Removes an element, if it is there.
pub(super) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    let attr = ElementAttr {
        map_fd: map.as_raw_fd() as u32,
        key: key.as_ptr() as u64,
        ..ElementAttr::default()
    };
    match bpf(MAP_DELETE_ELEM, &attr) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// All keys of a map that nobody writes meanwhile.
pub(super) fn keys(map: BorrowedFd<'_>, size: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut next = vec![0; size];
        let attr = ElementAttr {
            map_fd: map.as_raw_fd() as u32,
            key: keys.last().map_or(0, |key| key.as_ptr() as u64),
            value_or_next_key: next.as_mut_ptr() as u64,
            ..ElementAttr::default()
        };
        match bpf(MAP_GET_NEXT_KEY, &attr) {
            Ok(_) => keys.push(next),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
            Err(error) => return Err(error),
        }
    }
}

/// Bytes of a map's elements.
pub(super) struct Shape {
    pub(super) key: usize,
    /// Of all CPUs, if each has a value of its own.
    pub(super) value: usize,
}

/// What [`lookup`] and [`update`] take of a map.
pub(super) fn shape(map: BorrowedFd<'_>) -> io::Result<Shape> {
    const PER_CPU: [u32; 3] = [5, 6, 10]; // hash, array, LRU hash
    let info = info(map)?;
    let word = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("4 bytes"));
    let (kind, key, value) = (word(0), word(8) as usize, word(12) as usize);
    let value =
        if PER_CPU.contains(&kind) { value.next_multiple_of(8) * possible_cpus()? } else { value };
    Ok(Shape { key, value })
}

/// Sums a per-CPU element, of an index and a size in whole words, over all CPUs, word by word.
pub(super) fn sum_per_cpu(
    map: BorrowedFd<'_>,
    (index, size): (u32, usize),
    cpus: usize,
) -> io::Result<Vec<u64>> {
    let words = size / 8;
    let mut bytes = vec![0; size * cpus];
    lookup(map, &index.to_ne_bytes(), &mut bytes, false)?;
    let mut sums = vec![0u64; words];
    for (position, word) in bytes.chunks_exact(8).enumerate() {
        let word = u64::from_ne_bytes(word.try_into().expect("8 bytes"));
        sums[position % words] = sums[position % words].wrapping_add(word);
    }
    Ok(sums)
}

/// Waits for running programs: the kernel makes an update of a map-in-map wait for them, so that
/// who sees the update return knows that nobody uses the old inner map any more
/// (`maybe_wait_bpf_programs`, Linux 5.0).
#[derive(Debug)]
pub(super) struct Grace {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Grace {
    pub(super) fn new() -> io::Result<Self> {
        let inner = create(&CreateAttr {
            map_type: ARRAY,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            ..CreateAttr::default()
        })?;
        let outer = create(&CreateAttr {
            map_type: ARRAY_OF_MAPS,
            key_size: 4,
            value_size: 4,
            max_entries: 1,
            inner_map_fd: inner.as_raw_fd() as u32,
            ..CreateAttr::default()
        })?;
        Ok(Self { outer, inner })
    }

    pub(super) fn wait(&self) -> io::Result<()> {
        use std::os::fd::AsFd;
        let inner = self.inner.as_raw_fd() as u32;
        update(self.outer.as_fd(), &0u32.to_ne_bytes(), &inner.to_ne_bytes())
    }
}

/// Makes an array of one element.
pub(super) fn create_array(name: &str, value_size: usize) -> io::Result<OwnedFd> {
    create(&CreateAttr {
        map_type: ARRAY,
        key_size: 4,
        value_size: value_size as u32,
        max_entries: 1,
        map_name: short_name(name),
        ..CreateAttr::default()
    })
}

/// A name as the kernel keeps it: 15 bytes and a zero.
fn short_name(name: &str) -> [u8; 16] {
    let mut short = [0; 16];
    let length = name.len().min(short.len() - 1);
    short[..length].copy_from_slice(&name.as_bytes()[..length]);
    short
}

/// Pins a map.
pub(super) fn pin(map: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = PinAttr { path: path.as_ptr() as u64, fd: map.as_raw_fd() as u32, flags: 0 };
    bpf(OBJ_PIN, &attr).map(drop)
}

fn create(attr: &CreateAttr) -> io::Result<OwnedFd> {
    made(MAP_CREATE, attr)
}

/// A command whose result is a new descriptor.
fn made<T>(command: libc::c_int, attr: &T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The part of `union bpf_attr` for loading a program, as far as Linux 5.10 has it.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    /// Of extensions: the type of the function in whose place they stand, and its program.
    attach_btf_id: u32,
    attach_prog_fd: u32,
    padding: u32,
}

/// A program, relocated.
pub(super) struct ProgramLoad<'a> {
    pub(super) name: &'a str,
    pub(super) instructions: &'a [bpf_insn],
    pub(super) license: &'a CStr,
    /// The object's types, if it has any.
    pub(super) types: Option<BorrowedFd<'a>>,
    /// Which type each function of the program has: records, and the size of one.
    pub(super) functions: &'a [u8],
    pub(super) function_size: u32,
    pub(super) kind: ProgramKind,
}

/// What a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProgramKind {
    /// TC.
    Classifier,
    /// XDP, of frames in several buffers (Linux 5.18).
    XdpFrags,
    /// The same, for extensions to call: these are attached to nothing by themselves, and programs of other kinds of
    /// attachment aren't tail-called (`__bpf_prog_map_compatible` in `kernel/bpf/core.c`).
    XdpFragsForExtensions,
    /// XDP, of frames in one buffer.
    Xdp,
    /// In the place of a function of an XDP program, of frames in several buffers.
    Extension,
    /// On the occasions of a control group's sockets.
    SocketOperations,
}

/// Does it while the calling thread takes no signal; those that come are taken afterwards.
///
/// The verifier gives up with `EAGAIN` once a signal waits for its thread (`do_check` in
/// `kernel/bpf/verifier.c`), and a process may get more of them than it can try again: children that end,
/// timers, a profiler.
pub(super) fn undisturbed<T>(act: impl FnOnce() -> T) -> T {
    /// Put back when dropped, also by a panic.
    struct Mask(SigSet);
    impl Drop for Mask {
        fn drop(&mut self) {
            let _ = self.0.thread_set_mask();
        }
    }
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let _mask = before.map(Mask).ok();
    act()
}

/// Loads a program with the verifier's statistics (`BPF_LOG_STATS`, Linux 5.2), and returns its log, whatever
/// became of the program.
pub(super) fn load_program(program: &ProgramLoad<'_>) -> (io::Result<OwnedFd>, String) {
    load(attr(program))
}

fn attr(program: &ProgramLoad<'_>) -> LoadAttr {
    const SCHED_CLS: u32 = 3;
    const XDP: u32 = 6;
    const EXT: u32 = 28;
    const SOCK_OPS: u32 = 13;
    const ATTACH_XDP: u32 = 37;
    const ATTACH_SOCK_OPS: u32 = 3;
    const HAS_FRAGS: u32 = 1 << 5;
    let (prog_type, prog_flags, expected_attach_type) = match program.kind {
        ProgramKind::Classifier => (SCHED_CLS, 0, 0),
        ProgramKind::XdpFrags => (XDP, HAS_FRAGS, ATTACH_XDP),
        ProgramKind::XdpFragsForExtensions => (XDP, HAS_FRAGS, 0),
        ProgramKind::Xdp => (XDP, 0, ATTACH_XDP),
        ProgramKind::Extension => (EXT, HAS_FRAGS, 0),
        ProgramKind::SocketOperations => (SOCK_OPS, 0, ATTACH_SOCK_OPS),
    };
    let mut attr = LoadAttr {
        prog_type,
        prog_flags,
        expected_attach_type,
        insn_cnt: program.instructions.len() as u32,
        insns: program.instructions.as_ptr() as u64,
        license: program.license.as_ptr() as u64,
        prog_name: short_name(program.name),
        ..LoadAttr::default()
    };
    if let Some(types) = program.types
        && program.function_size > 0
    {
        attr.prog_btf_fd = types.as_raw_fd() as u32;
        attr.func_info_rec_size = program.function_size;
        attr.func_info = program.functions.as_ptr() as u64;
        attr.func_info_cnt = program.functions.len() as u32 / program.function_size;
    }
    attr
}

fn load(mut attr: LoadAttr) -> (io::Result<OwnedFd>, String) {
    const LOG_STATS: u32 = 4;
    let mut log = vec![0u8; 1 << 18];
    attr.log_level = LOG_STATS;
    attr.log_size = log.len() as u32;
    attr.log_buf = log.as_mut_ptr() as u64;
    let loaded = undisturbed(|| made(PROG_LOAD, &attr));
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    (loaded, String::from_utf8_lossy(&log[..end]).into_owned())
}

/// Bytes of machine code of a program and its subprograms (`bpf_prog_info.jited_prog_len`).
pub(super) fn jited_bytes(program: BorrowedFd<'_>) -> io::Result<u32> {
    info_word(program, 16)
}

/// The kernel's number for a program (`bpf_prog_info.id`).
pub(super) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    info_word(program, 4)
}

/// The types of the object that a map belongs to (`bpf_map_info.btf_id`).
pub(super) fn types_of_map(map: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    match info_word(map, 64)? {
        0 => Ok(None),
        id => made(BTF_GET_FD_BY_ID, &id).map(Some),
    }
}

/// A word of what the kernel tells about a program or map.
fn info_word(fd: BorrowedFd<'_>, offset: usize) -> io::Result<u32> {
    let word = info(fd)?[offset..offset + 4].try_into().expect("4 bytes");
    Ok(u32::from_ne_bytes(word))
}

/// The beginning of what the kernel tells about a program, map or link.
fn info(fd: BorrowedFd<'_>) -> io::Result<[u8; 80]> {
    info_over(fd, [0; 80])
}

/// The same, over what says where there is room for more.
fn info_over(fd: BorrowedFd<'_>, mut info: [u8; 80]) -> io::Result<[u8; 80]> {
    /// The part of `union bpf_attr` for questions.
    #[repr(C)]
    struct InfoAttr {
        fd: u32,
        length: u32,
        info: u64,
    }
    let attr = InfoAttr {
        fd: fd.as_raw_fd() as u32,
        length: info.len() as u32,
        info: info.as_mut_ptr() as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &attr)?;
    Ok(info)
}

/// The CPUs that the kernel keeps per-CPU values for.
pub(super) fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit([',', '-']).next().unwrap_or("0");
    last.parse::<usize>().map(|last| last + 1).map_err(io::Error::other)
}

/// Ticks of jiffies per second: the coarse clock ticks with them.
pub(super) fn hertz() -> io::Result<u32> {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    let result = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let nanoseconds = resolution.tv_nsec.max(1) as u64;
    Ok(((1_000_000_000 + nanoseconds / 2) / nanoseconds) as u32)
}

/// Time since boot, suspended time left out (`CLOCK_MONOTONIC`), as programs have it.
pub(super) fn monotonic() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// The name of an interface of this thread's network namespace.
pub(super) fn interface_name(ifindex: u32) -> Option<String> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: a buffer of the size that the call asks for.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr().cast()) };
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    (!found.is_null()).then(|| name.to_string_lossy().into_owned())
}

/// The magic number of the file system that a path lies in.
pub(super) fn file_system(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: any bits are a statfs, and the kernel fills it.
    let mut answer: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string that ends in zero, and one statfs.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut answer) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer.f_type as u64 & 0xffff_ffff)
}

/// The effective user is root of its namespace.
pub(super) fn is_root() -> bool {
    // SAFETY: never fails.
    unsafe { libc::geteuid() == 0 }
}

/// A route netlink request about links, and its first answer.
pub(super) fn route_request(message: &[u8]) -> io::Result<Vec<u8>> {
    // SAFETY: a plain socket.
    let socket = unsafe {
        libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
    };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: the buffer is `message`.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = vec![0u8; 16 * 1024];
    // SAFETY: the buffer is `answer`.
    let received =
        unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    answer.truncate(received as usize);
    Ok(answer)
}

/// A descriptor may be read, or the time is over.
pub(super) fn wait_readable(fd: BorrowedFd<'_>, milliseconds: i32) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd.
    let ready = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) };
    }
    Ok(ready > 0)
}

//! Names the server of a TCP connection at both of its ends: a server announces its id in an option of its SYN-ACK, and a
//! client that knows of it repeats the id in whatever it sends from then on.
//!
//! Not here: who reads that (`flowgate-pipeline`, `lb::tcp_option`).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod maps;
#[path = "../../shared/src/object.rs"]
mod object;

use core::ptr;

use aya_ebpf::{
    bindings::{
        BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_HDR_OPT_LEN_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_SOCK_OPS_WRITE_HDR_OPT_CB,
        BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG, bpf_sock_ops,
    },
    helpers::{
        bpf_load_hdr_opt, bpf_reserve_hdr_opt, bpf_sk_storage_get, bpf_sock_ops_cb_flags_set,
        bpf_store_hdr_opt,
    },
    macros::sock_ops,
    programs::SockOpsContext,
};
use flowgate_abi::{
    lb::TcpOption,
    server_id::{Counter, Settings},
};

use crate::maps::{LEARNED, count, settings};

/// An option: kind, length, id.
type Octets = [u8; TcpOption::LENGTH as usize];

/// On, with whatever other programs say.
const PROCEED: u32 = 1;
/// Flags.
const SYN: u32 = 2;
const ACK: u32 = 16;

/// Called on a socket's occasions.
#[sock_ops]
pub fn sock_server_id(ctx: SockOpsContext) -> u32 {
    let (ops, settings) = (ctx.ops, settings());
    // VERIFIER: each context access must be one load of the field's own width.
    // SAFETY: the kernel hands a valid context to the program.
    let op = unsafe { ptr::read_volatile(&raw const (*ops).op) };
    match op {
        // SYN-ACKs are written on behalf of who listens; whom it accepts begins with the same flags.
        BPF_SOCK_OPS_TCP_LISTEN_CB if settings.roles & Settings::SERVER != 0 => writes(ops, true),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB if settings.roles & Settings::SERVER != 0 => {
            writes(ops, false);
        }
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB if settings.roles & Settings::CLIENT != 0 => {
            learn(ops, settings);
        }
        BPF_SOCK_OPS_HDR_OPT_LEN_CB => reserve(ops, settings),
        BPF_SOCK_OPS_WRITE_HDR_OPT_CB => write(ops, settings),
        _ => {}
    }
    PROCEED
}

/// Whether the program is asked before each of the socket's segments.
#[inline(always)]
fn writes(ops: *mut bpf_sock_ops, asks: bool) {
    let flag = BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
    // SAFETY: as above.
    let flags = unsafe { ptr::read_volatile(&raw const (*ops).bpf_sock_ops_cb_flags) };
    let flags = if asks { flags | flag } else { flags & !flag };
    // SAFETY: a plain helper call. It fails for no socket that is whole.
    let _ = unsafe { bpf_sock_ops_cb_flags_set(ops, flags as i32) };
}

/// The server's SYN-ACK has come, and nothing has been answered yet.
#[inline(always)]
fn learn(ops: *mut bpf_sock_ops, settings: Settings) {
    let mut option: Octets = [settings.announced, 0, 0, 0, 0, 0];
    // SAFETY: the buffer is `option`.
    let found = unsafe {
        bpf_load_hdr_opt(ops, option.as_mut_ptr().cast(), u32::from(TcpOption::LENGTH), 0)
    };
    if found != i64::from(TcpOption::LENGTH) {
        // The socket may have had another server before.
        writes(ops, false);
        return count(Counter::Unannounced);
    }
    let mut id = u32::from_le_bytes([option[2], option[3], option[4], option[5]]);
    let place = learned(ops, &raw mut id, BPF_SK_STORAGE_GET_F_CREATE.into());
    if !place.is_null() {
        // SAFETY: the socket's own element.
        unsafe { *place = id };
        writes(ops, true);
        count(Counter::Learned);
    }
}

/// The place of the id that the socket has learned.
#[inline(always)]
fn learned(ops: *mut bpf_sock_ops, first: *mut u32, flags: u64) -> *mut u32 {
    // SAFETY: as above.
    let socket = unsafe { ptr::read_volatile(&raw const (*ops).__bindgen_anon_2.sk) };
    if socket.is_null() {
        return ptr::null_mut();
    }
    let map = (&raw const LEARNED).cast_mut().cast();
    // SAFETY: a socket of the context's, and a value of the map's or none.
    unsafe { bpf_sk_storage_get(map, socket.cast(), first.cast(), flags) }.cast()
}

/// What a segment says, if it says something.
struct Said {
    kind: u8,
    id: u32,
    counter: Counter,
}

#[inline(always)]
fn said(ops: *mut bpf_sock_ops, settings: Settings) -> Option<Said> {
    // SAFETY: as above. There is no segment while the kernel works out how much fits into one: no flags.
    let flags = unsafe { ptr::read_volatile(&raw const (*ops).skb_tcp_flags) };
    if flags & SYN != 0 {
        let announces = flags & ACK != 0 && settings.roles & Settings::SERVER != 0;
        let counter = Counter::Announced;
        return announces.then_some(Said { kind: settings.announced, id: settings.id, counter });
    }
    let id = learned(ops, ptr::null_mut(), 0);
    if id.is_null() {
        return None;
    }
    // SAFETY: the socket's own element.
    let id = unsafe { *id };
    Some(Said { kind: settings.repeated, id, counter: Counter::Repeated })
}

#[inline(always)]
fn reserve(ops: *mut bpf_sock_ops, settings: Settings) {
    if said(ops, settings).is_none() {
        return;
    }
    // SAFETY: a plain helper call.
    if unsafe { bpf_reserve_hdr_opt(ops, TcpOption::LENGTH.into(), 0) } != 0 {
        count(Counter::NoRoom);
    }
}

#[inline(always)]
fn write(ops: *mut bpf_sock_ops, settings: Settings) {
    let Some(Said { kind, id, counter }) = said(ops, settings) else { return };
    let [a, b, c, d] = id.to_le_bytes();
    let option: Octets = [kind, TcpOption::LENGTH, a, b, c, d];
    // SAFETY: the buffer is `option`. Without the room that was reserved nothing is written.
    let failed =
        unsafe { bpf_store_hdr_opt(ops, option.as_ptr().cast(), u32::from(TcpOption::LENGTH), 0) };
    if failed == 0 {
        count(counter);
    }
}

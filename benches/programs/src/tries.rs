//! A new flow's verdict by the kernel's tries, the scheme that Cilium has, in our own words: an identity by
//! the longest prefix, then two look-ups in the endpoint's policies, for that identity and for any, of
//! which the more important one counts.
//!
//! It reads the headers of plain TCP over IPv4 or IPv6 and nothing else; no endpoint is looked up, nothing
//! is counted or told. With conntrack, the flow is looked up in either direction and then kept in the
//! kernel's LRU hash.

use core::ptr;

use aya_ebpf::{
    bindings::__sk_buff,
    btf_maps::{LpmTrie, LruHashMap, lpm_trie::Key},
    macros::{btf_map, classifier},
    programs::TcContext,
};

use crate::{FAILED, SHOT};

/// As Cilium's: 32 bits of cluster and family, then the address.
type Address = [u32; 5];
/// As Cilium's: identity, then direction, protocol and port.
type Service = [u32; 2];
/// A precedence, a verdict (1: allow) and a cookie.
type Entry = [u32; 3];
/// Source, destination, ports and protocol.
type Tuple = [u64; 5];
/// As large as Cilium's.
type Connection = [u64; 7];

#[btf_map]
pub static IDENTITIES: LpmTrie<Address, [u32; 6], 1> = LpmTrie::new();
#[btf_map]
pub static POLICIES: LpmTrie<Service, Entry, 1> = LpmTrie::new();
#[btf_map]
pub static CONNECTIONS: LruHashMap<Tuple, Connection, 2> = LruHashMap::new();

/// A flow's verdict by the kernel's tries.
#[classifier]
pub fn tc_tries(ctx: TcContext) -> i32 {
    act(allows::<false>(ctx.skb.skb))
}

/// The same, with conntrack.
#[classifier]
pub fn tc_tries_tracked(ctx: TcContext) -> i32 {
    act(allows::<true>(ctx.skb.skb))
}

const PASSED: i32 = -1;

#[inline(always)]
fn act(allowed: Option<bool>) -> i32 {
    match allowed {
        Some(true) => PASSED,
        Some(false) => SHOT,
        None => FAILED,
    }
}

const TCP: u8 = 6;
/// Bytes of the longest headers that are read here.
const LEAST: usize = 14 + 40 + 20;
/// `kernel/bpf/hashtab.c`: add or replace.
const ANY: u64 = 0;

/// What the headers say, as it lies in memory.
struct Headers {
    v6: bool,
    source: [u64; 2],
    destination: [u64; 2],
    source_port: u16,
    destination_port: u16,
}

/// Whether the policies allow the flow of a packet; `None`: it isn't what is read here.
#[inline(always)]
fn allows<const TRACKED: bool>(skb: *const __sk_buff) -> Option<bool> {
    // SAFETY: the kernel hands a valid context to the program.
    let (head, end) = unsafe {
        (ptr::read_volatile(&raw const (*skb).data), ptr::read_volatile(&raw const (*skb).data_end))
    };
    let headers = read(head as usize as *const u8, end as usize as *const u8)?;
    if TRACKED && is_tracked(&headers) {
        return Some(true);
    }
    let allowed = judge(&headers);
    if TRACKED && allowed {
        let (there, connection): (Tuple, Connection) = (there(&headers), [0; 7]);
        CONNECTIONS.insert(there, connection, ANY).ok()?;
    }
    Some(allowed)
}

#[inline(always)]
fn read(head: *const u8, end: *const u8) -> Option<Headers> {
    if head.wrapping_add(LEAST) > end {
        return None;
    }
    // SAFETY: before the end; packets are read unaligned.
    unsafe {
        let v4 = load::<u8>(head, 12) == 8;
        let (protocol, ports) = if v4 { (23, 34) } else { (20, 54) };
        if load::<u8>(head, protocol) != TCP {
            return None;
        }
        let (source, destination) = if v4 {
            ([load::<u32>(head, 26).into(), 0], [load::<u32>(head, 30).into(), 0])
        } else {
            ([load(head, 22), load(head, 30)], [load(head, 38), load(head, 46)])
        };
        let (source_port, destination_port) = (load(head, ports), load(head, ports + 2));
        Some(Headers { v6: !v4, source, destination, source_port, destination_port })
    }
}

/// # Safety
/// The place is good for reading; it needn't be aligned, since packets aren't.
#[inline(always)]
unsafe fn load<T: Copy>(head: *const u8, offset: usize) -> T {
    // SAFETY: the caller's.
    unsafe { ptr::read_volatile(head.add(offset).cast::<T>()) }
}

#[inline(always)]
fn judge(headers: &Headers) -> bool {
    let [first, last] = headers.destination;
    let words = [first as u32, (first >> 32) as u32, last as u32, (last >> 32) as u32];
    let address = [headers.v6.into(), words[0], words[1], words[2], words[3]];
    let bits = if headers.v6 { 32 + 128 } else { 32 + 32 };
    let Some(peer) = IDENTITIES.get(&Key::new(bits, address)) else { return false };
    let service = 1 | u32::from(TCP) << 8 | u32::from(headers.destination_port) << 16;
    let own = POLICIES.get(&Key::new(64, [peer[0], service]));
    let any = POLICIES.get(&Key::new(64, [0, service]));
    match (own, any) {
        (Some(own), Some(any)) => {
            if own[0] >= any[0] {
                own[1] == 1
            } else {
                any[1] == 1
            }
        }
        (Some(entry), None) | (None, Some(entry)) => entry[1] == 1,
        (None, None) => false,
    }
}

/// The answer's direction is looked up first, then the packet's own.
#[inline(always)]
fn is_tracked(headers: &Headers) -> bool {
    let back = Headers {
        v6: headers.v6,
        source: headers.destination,
        destination: headers.source,
        source_port: headers.destination_port,
        destination_port: headers.source_port,
    };
    // SAFETY: entries are only ever replaced as a whole.
    unsafe { CONNECTIONS.get(there(&back)).is_some() || CONNECTIONS.get(there(headers)).is_some() }
}

#[inline(always)]
fn there(headers: &Headers) -> Tuple {
    let Headers { source, destination, source_port, destination_port, .. } = headers;
    let ports = u64::from(*source_port) << 16 | u64::from(*destination_port);
    [source[0], source[1], destination[0], destination[1], ports << 8 | u64::from(TCP)]
}

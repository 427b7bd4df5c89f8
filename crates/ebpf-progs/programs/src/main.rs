//! The eBPF programs: entry points of a few lines around `flowgate-pipeline`.
//!
//! A context becomes headers ([`headers`], over cursors: [`packet`], [`skb_copying`]), maps become tables
//! ([`tables`]), the pipeline decides, and one exhaustive match turns its verdict into an action
//! ([`act`]).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod act;
mod headers;
mod maps;
#[path = "../../shared/src/object.rs"]
mod object;
mod packet;
#[path = "../../shared/src/ring_buffer.rs"]
mod ring_buffer;
#[path = "../../shared/src/skb_copying.rs"]
mod skb_copying;
mod tables;

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
use flowgate_abi::{Be16, event::Hook, policy::Response};
use flowgate_pipeline::{
    V4, V6,
    answer::{self, Answers, Refused},
    hook,
    parse::{Layer3, Link},
};

use crate::{
    act::act,
    headers::{read_plain, read_whole},
    packet::{Mark, Reshaped},
    skb_copying::Copying,
    tables::Maps,
};

/// A packet comes from an endpoint; at TC ingress of the endpoint's host side.
#[classifier]
pub fn tc_from_endpoint(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // An endpoint in this very network namespace could have set the other one.
    if packet::take_mark(skb) == Mark::Answer {
        return act::PASS;
    }
    let link = packet::link(skb);
    let outcome = match link.layer3 {
        Layer3::Ipv4 => {
            read_v4(skb, link, Hook::FromEndpoint);
            from_endpoint_v4(skb)
        }
        Layer3::Ipv6 => {
            read_v6(skb, link, Hook::FromEndpoint);
            from_endpoint_v6(skb)
        }
        _ => return not_ip(skb, link, Hook::FromEndpoint),
    };
    respond(skb, Hook::FromEndpoint, link.layer3, tell(outcome))
}

/// A packet goes to an endpoint; at TC egress of the endpoint's host side.
#[classifier]
pub fn tc_to_endpoint(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    if packet::take_mark(skb) != Mark::None {
        return act::PASS;
    }
    let link = packet::link(skb);
    let outcome = match link.layer3 {
        Layer3::Ipv4 => {
            read_v4(skb, link, Hook::ToEndpoint);
            to_endpoint_v4(skb)
        }
        Layer3::Ipv6 => {
            read_v6(skb, link, Hook::ToEndpoint);
            to_endpoint_v6(skb)
        }
        _ => return not_ip(skb, link, Hook::ToEndpoint),
    };
    respond(skb, Hook::ToEndpoint, link.layer3, tell(outcome))
}

/// Sweeps the next bucket of the flow tables; run by user space (`BPF_PROG_TEST_RUN`), never
/// attached. Returns 1 if there may be more to do in that bucket.
#[classifier]
pub fn tc_sweep(_ctx: TcContext) -> i32 {
    let (v4, index) = maps::next_bucket();
    tell(if v4 { sweep_v4(index) } else { sweep_v6(index) })
}

/// Does nothing: what every program costs that is run by `BPF_PROG_TEST_RUN`.
#[classifier]
pub fn tc_empty(_ctx: TcContext) -> i32 {
    act::PASS
}

// VERIFIER: a subprogram for each hook and family, and one for each family's rare packets. Both
// families inlined into one took 440 of the stack's 512 bytes on 5.10. They get the raw context
// pointer: LLVM would pass `data` and `data_end` of a larger context as scalars, which no kernel takes.

#[inline(always)]
fn read_v4(skb: *mut __sk_buff, link: Link, hook: Hook) {
    if !read_plain::<V4>(skb, link) {
        read_whole_v4(skb, hook as u32);
    }
}

#[inline(always)]
fn read_v6(skb: *mut __sk_buff, link: Link, hook: Hook) {
    if !read_plain::<V6>(skb, link) {
        read_whole_v6(skb, hook as u32);
    }
}

#[inline(never)]
fn read_whole_v4(skb: *mut __sk_buff, hook: u32) {
    read_whole::<V4>(skb, packet::link(skb), which(hook));
}

#[inline(never)]
fn read_whole_v6(skb: *mut __sk_buff, hook: u32) {
    read_whole::<V6>(skb, packet::link(skb), which(hook));
}

#[inline(always)]
fn which(hook: u32) -> Hook {
    if hook == Hook::FromEndpoint as u32 { Hook::FromEndpoint } else { Hook::ToEndpoint }
}

#[inline(never)]
fn from_endpoint_v4(skb: *mut __sk_buff) -> i32 {
    let (maps, frame) = (Maps::new(), packet::frame(skb, Hook::FromEndpoint));
    let verdict = hook::from_endpoint::<V4, _>(headers::packet(), frame, &maps);
    outcome(act::<V4>(skb, &maps, verdict), &maps)
}

#[inline(never)]
fn from_endpoint_v6(skb: *mut __sk_buff) -> i32 {
    let (maps, frame) = (Maps::new(), packet::frame(skb, Hook::FromEndpoint));
    let verdict = hook::from_endpoint::<V6, _>(headers::packet(), frame, &maps);
    outcome(act::<V6>(skb, &maps, verdict), &maps)
}

#[inline(never)]
fn to_endpoint_v4(skb: *mut __sk_buff) -> i32 {
    let (maps, frame) = (Maps::new(), packet::frame(skb, Hook::ToEndpoint));
    let verdict = hook::to_endpoint::<V4, _>(headers::packet(), frame, &maps);
    outcome(act::<V4>(skb, &maps, verdict), &maps)
}

#[inline(never)]
fn to_endpoint_v6(skb: *mut __sk_buff) -> i32 {
    let (maps, frame) = (Maps::new(), packet::frame(skb, Hook::ToEndpoint));
    let verdict = hook::to_endpoint::<V6, _>(headers::packet(), frame, &maps);
    outcome(act::<V6>(skb, &maps, verdict), &maps)
}

#[inline(never)]
fn sweep_v4(index: u32) -> i32 {
    let maps = Maps::new();
    outcome(flowgate_pipeline::sweep::bucket::<V4, _>(&maps, index) as i32, &maps)
}

#[inline(never)]
fn sweep_v6(index: u32) -> i32 {
    let maps = Maps::new();
    outcome(flowgate_pipeline::sweep::bucket::<V6, _>(&maps, index) as i32, &maps)
}

#[inline(always)]
fn not_ip(skb: *mut __sk_buff, link: Link, hook: Hook) -> i32 {
    let (maps, frame) = (Maps::new(), packet::frame(skb, hook));
    act::<V4>(skb, &maps, hook::not_ip(Copying::new(skb), link, frame, &maps))
}

/// Set in a subprogram's result if there is an event to hand over. It lies outside of the actions,
/// which are small or -1.
const EVENT: i32 = 1 << 16;

#[inline(always)]
fn outcome(action: i32, maps: &Maps) -> i32 {
    if maps.has_event() { action ^ EVENT } else { action }
}

/// Hands an event over, and returns the action.
#[inline(always)]
fn tell(outcome: i32) -> i32 {
    let told = (outcome & EVENT != 0) != (outcome < 0);
    if !told {
        return outcome;
    }
    hand_over();
    outcome ^ EVENT
}

/// VERIFIER: a subprogram, of which nothing comes back, so that its branches end with it.
#[inline(never)]
fn hand_over() {
    Maps::new().hand_over_event();
}

/// Answers a packet that is dropped, if its sender is to be told.
///
/// VERIFIER: behind the family's subprogram, as the event.
#[inline(always)]
fn respond(skb: *mut __sk_buff, hook: Hook, layer3: Layer3, action: i32) -> i32 {
    if action != act::DROP || headers::response() == 0 {
        return action;
    }
    match layer3 {
        Layer3::Ipv4 => answer_v4(skb, hook as u32),
        _ => answer_v6(skb, hook as u32),
    }
}

#[inline(never)]
fn answer_v4(skb: *mut __sk_buff, hook: u32) -> i32 {
    answer::<V4>(skb, which(hook))
}

#[inline(never)]
fn answer_v6(skb: *mut __sk_buff, hook: u32) -> i32 {
    answer::<V6>(skb, which(hook))
}

#[inline(always)]
fn answer<F: Answers>(skb: *mut __sk_buff, hook: Hook) -> i32 {
    let frame = packet::frame(skb, hook);
    let Ok(packet) = headers::packet::<F>() else { return act::DROP };
    let response = Response::from_number(headers::response());
    let refused = Refused { frame, packet, response };
    if !answer::answer(&Maps::new(), &refused, &mut Reshaped(skb)) {
        return act::DROP;
    }
    act::send_back(skb, frame)
}

/// An EtherType as it lies in a socket buffer.
type EtherType = Be16;

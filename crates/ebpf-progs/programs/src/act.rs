//! From the pipeline's verdict to the kernel's action.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS},
    helpers::{bpf_redirect, bpf_redirect_peer},
};
use flowgate_abi::event::{Counter, Hook};
use flowgate_pipeline::{
    Tables, Verdict,
    hook::{Frame, Route, route},
};

use crate::{
    packet::{SocketBuffer, keep_from_forwarding, mark_as_answer, mark_as_judged},
    tables::Maps,
};

/// On to whoever is behind us: `TC_ACT_UNSPEC` under clsact, `TCX_NEXT` under TCX.
pub const PASS: i32 = -1;
/// `TC_ACT_SHOT`.
pub const DROP: i32 = 2;

/// Sends a packet that has become its answer back over its link: to the endpoint, or, where it came from
/// elsewhere, to the host as if the endpoint had sent it, so that the host's stack routes it back.
#[inline(always)]
pub fn send_back(skb: *mut __sk_buff, frame: Frame) -> i32 {
    mark_as_answer(skb);
    let flags = match frame.hook {
        Hook::ToEndpoint => u64::from(BPF_F_INGRESS),
        _ => 0,
    };
    // SAFETY: a plain helper call.
    unsafe { bpf_redirect(frame.ifindex, flags) as i32 }
}

/// Does what the verdict says.
#[inline(always)]
pub fn act<F: Route>(skb: *mut __sk_buff, maps: &Maps, verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass => PASS,
        Verdict::HostAlone => {
            keep_from_forwarding(skb);
            PASS
        }
        Verdict::Drop(_) => DROP,
        Verdict::Stack(_) => {
            mark_as_judged(skb);
            PASS
        }
        Verdict::Redirect(slot) | Verdict::RedirectPeer(slot) => {
            redirect::<F>(skb, maps, slot, matches!(verdict, Verdict::RedirectPeer(_)))
        }
    }
}

#[inline(always)]
fn redirect<F: Route>(skb: *mut __sk_buff, maps: &Maps, slot: u32, into_peer: bool) -> i32 {
    let Some(endpoint) = maps.slot(slot) else { return DROP };
    if route::<F, _>(&mut SocketBuffer(skb), endpoint).is_none() {
        maps.count(Counter::RedirectFailed);
        return DROP;
    }
    let ifindex = endpoint.ifindex.load();
    if into_peer {
        // SAFETY: a plain helper call.
        return unsafe { bpf_redirect_peer(ifindex, 0) as i32 };
    }
    mark_as_judged(skb);
    // SAFETY: a plain helper call.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

//! From the pipeline's verdict to the kernel's action.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_redirect, bpf_redirect_peer},
};
use flowgate_abi::event::Counter;
use flowgate_pipeline::{
    Tables, Verdict,
    hook::{Route, route},
};

use crate::{
    packet::{SocketBuffer, keep_from_forwarding, set_mark},
    tables::Maps,
};

/// On to whoever is behind us: `TC_ACT_UNSPEC` under clsact, `TCX_NEXT` under TCX.
pub const PASS: i32 = -1;
/// `TC_ACT_SHOT`.
const DROP: i32 = 2;

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
            set_mark(skb);
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
    set_mark(skb);
    // SAFETY: a plain helper call.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

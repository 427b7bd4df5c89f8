//! Any bytes as a frame, at both endpoints and both hooks: nothing panics, and whatever becomes of
//! it, the books are right.
#![no_main]

use flowgate_abi::event::Hook;
use flowgate_fuzz::{Counted, ENDS, End, World};
use flowgate_pipeline::Verdict;
use flowgate_policy::host::Passed;
use libfuzzer_sys::{Corpus, fuzz_target};

/// An Ethernet header: the kernel hands over nothing shorter.
const ETHERNET: usize = 14;

thread_local! {
    static WORLD: World = World::new();
}

fuzz_target!(|frame: &[u8]| -> Corpus {
    if frame.len() < ETHERNET {
        return Corpus::Reject;
    }
    WORLD.with(|world| {
        for end in ENDS {
            for hook in [Hook::FromEndpoint, Hook::ToEndpoint] {
                meet(world, frame, end, hook);
            }
        }
    });
    Corpus::Keep
});

/// The frame comes twice: a packet that passed finds its flow, one that was dropped left none.
fn meet(world: &World, frame: &[u8], end: End, hook: Hook) {
    let first = once(world, frame, end, hook);
    let second = once(world, frame, end, hook);
    assert_eq!(first, second, "the same frame again");
    world.forget();
}

fn once(world: &World, frame: &[u8], end: End, hook: Hook) -> Passed {
    let before = world.counted(end, hook);
    let passed = world.run(frame, end, hook);
    counted_once(before, world.counted(end, hook), passed.verdict);
    bytes_are_kept(frame, &passed);
    if hook == Hook::FromEndpoint && !matches!(passed.verdict, Verdict::Drop(_)) {
        assert!(may_send(frame, end), "a spoofed source passes: {:?}", passed.verdict);
    }
    passed
}

fn counted_once(before: Counted, after: Counted, verdict: Verdict) {
    let moved = Counted {
        dropped: after.dropped - before.dropped,
        passed: after.passed - before.passed,
        neighbour: after.neighbour - before.neighbour,
    };
    if matches!(verdict, Verdict::Drop(_)) {
        assert_eq!(moved, Counted { dropped: 1, ..Counted::default() });
    } else {
        assert_eq!((moved.dropped, moved.passed.max(moved.neighbour)), (0, 1), "{verdict:?}");
    }
}

/// Only a redirected frame changes: addresses, hops, and IPv4's checksum.
fn bytes_are_kept(frame: &[u8], passed: &Passed) {
    assert_eq!(frame.len(), passed.frame.len());
    let routed: &[usize] = match (passed.verdict, frame[12]) {
        (Verdict::Redirect(_) | Verdict::RedirectPeer(_), 0x08) => &[22, 24, 25],
        (Verdict::Redirect(_) | Verdict::RedirectPeer(_), _) => &[21],
        _ => {
            assert_eq!(frame, passed.frame);
            return;
        }
    };
    let differs = |at: &usize| frame[*at] != passed.frame[*at];
    assert!((12..frame.len()).filter(differs).all(|at| routed.contains(&at)));
}

/// Said once more, and in another way than the pipeline does.
fn may_send(frame: &[u8], end: End) -> bool {
    match [frame[12], frame[13]] {
        [0x08, 0x06] => true,
        [0x08, 0x00] => frame.get(26..30) == Some(&end.v4),
        [0x86, 0xdd] if (frame[20], matches!(frame.get(54), Some(133..=137))) == (58, true) => true,
        [0x86, 0xdd] => frame.get(22..38) == Some(&end.v6),
        _ => false,
    }
}

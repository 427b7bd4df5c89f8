//! Live frames: the kernel makes them (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18) and takes them for received on an
//! interface, which needs a native XDP program for that. The time of a call is what its frames cost, their making
//! included, if all happens on one CPU.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::course::Course;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Frames of a batch, as a driver would poll them.
const BATCH: u32 = 64;

/// Has a program make so many frames, on an interface of this thread's network namespace, by its index.
///
/// # Errors
/// The kernel doesn't run it.
pub fn send(
    program: &mut Xdp,
    course: &Course,
    (interface, frames): (u32, u32),
) -> Result<Duration> {
    let length = course.packet.bytes.len() as u32;
    let context: Vec<u8> =
        [0, length, 0, interface, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    let options = TestRunOptions {
        data_in: Some(&course.packet.bytes),
        ctx_in: Some(&context),
        repeat: frames,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::default()
    };
    let start = Instant::now();
    program.test_run(options)?;
    Ok(start.elapsed())
}

/// Keeps this thread on one CPU, the last one that it may use: so a packet's whole way costs its time.
///
/// # Errors
/// The kernel refuses it.
pub fn stay_on_one_cpu() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu) == Ok(true));
    let mut one = CpuSet::new();
    one.set(last.ok_or("no CPU")?)?;
    Ok(sched_setaffinity(this, &one)?)
}

//! A balancer whose loaded program can be measured, and the program that goes before it.

use std::{collections::BTreeMap, error::Error, time::Instant};

use aya::{
    Ebpf,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramFd, TestRun, TestRunOptions, Xdp},
};
use flowgate_datapath::lb::{BalancerOptions, LoadBalancer};
use flowgate_ebpf_progs::lb::{XDP_BALANCE, XDP_EMPTY};
use flowgate_services::Services;

use crate::{
    course::{Course, Element, OBJECT, Run},
    rig::programs,
    sampling::{Sample, Sampling},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// `XDP_PASS` and `XDP_TX` (`include/uapi/linux/bpf.h`).
pub const PASSED: i32 = 2;
/// It left by the interface by which it came.
pub const TRANSMITTED: i32 = 3;

const DRIVER: &str = "xdp_next_frame";
const MISSING: &str = "the bench's object isn't what it should be";

/// A balancer in the kernel.
pub struct Rig {
    /// The balancer.
    pub balancer: LoadBalancer,
    /// The time that it is told.
    pub now: Instant,
    ebpf: Ebpf,
    course: Array<MapData, Element>,
    tested: ProgramArray<MapData>,
    programs: BTreeMap<&'static str, ProgramFd>,
}

impl Rig {
    /// Loads both.
    ///
    /// # Errors
    /// The kernel doesn't take them.
    pub fn new(options: BalancerOptions, services: &Services) -> Result<Self> {
        let mut balancer = LoadBalancer::builder().options(options).open()?;
        let now = Instant::now();
        let _ = balancer.apply(services, now)?;
        let programs = programs(&balancer.report().programs)?;
        let mut ebpf = Ebpf::load(OBJECT)?;
        let program: &mut Xdp = ebpf.program_mut(DRIVER).ok_or(MISSING)?.try_into()?;
        program.load()?;
        let course = Array::try_from(ebpf.take_map("COURSE").ok_or(MISSING)?)?;
        let tested = ProgramArray::try_from(ebpf.take_map("TESTED_XDP").ok_or(MISSING)?)?;
        Ok(Self { balancer, now, ebpf, course, tested, programs })
    }

    /// Packets sent to backends so far, and entries that were made for their flows.
    ///
    /// # Errors
    /// The tables couldn't be read.
    pub fn balanced(&self) -> Result<(u64, u64)> {
        let stats = self.balancer.stats()?;
        let totals = stats.services.iter().map(flowgate_services::ServiceStats::total);
        Ok(totals.fold((0, 0), |(packets, tracked), total| {
            (packets + total.packets, tracked + total.tracked)
        }))
    }

    /// One round: the program and the empty one.
    ///
    /// # Errors
    /// The kernel doesn't run it.
    pub fn time(&mut self, course: &mut Course, sampling: Sampling) -> Result<(Sample, i32)> {
        let empty = self.run(XDP_EMPTY, course, sampling.runs)?.nanoseconds;
        let run = self.run(XDP_BALANCE, course, sampling.runs)?;
        course.next = (course.next + sampling.runs as usize) % course.flows;
        Ok((Sample { program: run.nanoseconds, empty }, run.action))
    }

    /// Runs the balancer's program on so many packets.
    ///
    /// # Errors
    /// The kernel doesn't run it.
    pub fn send(&mut self, course: &Course, packets: u32) -> Result<Run> {
        self.run(XDP_BALANCE, course, packets)
    }

    fn run(&mut self, tested: &str, course: &Course, runs: u32) -> Result<Run> {
        self.course.set(0, course.element(), 0)?;
        self.tested.set(0, &self.programs[tested], 0)?;
        let data_in = Some(&course.packet.bytes[..]);
        let options = TestRunOptions { data_in, repeat: runs, ..TestRunOptions::default() };
        let program: &mut Xdp = self.ebpf.program_mut(DRIVER).ok_or(MISSING)?.try_into()?;
        let result = program.test_run(options)?;
        Ok(Run {
            nanoseconds: result.duration.as_nanos() as f64,
            action: result.return_value as i32,
        })
    }
}

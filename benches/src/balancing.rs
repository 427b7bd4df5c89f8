//! A balancer whose loaded program can be measured, and the program that goes before it.

use std::{error::Error, time::Instant};

use aya::{
    Ebpf,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramFd, TestRun, TestRunOptions, Xdp},
};
use flowgate_datapath::lb::{BalancerOptions, Builder, LoadBalancer, Position};
use flowgate_ebpf_progs::lb::{XDP_BALANCE, XDP_EMPTY};
use flowgate_services::Services;

use crate::{
    course::{Course, Element, OBJECT, Run},
    rig::loaded,
    sampling::{Sample, Sampling},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// `XDP_PASS` and `XDP_TX` (`include/uapi/linux/bpf.h`).
pub const PASSED: i32 = 2;
/// It left by the interface by which it came.
pub const TRANSMITTED: i32 = 3;

const DRIVER: &str = "xdp_next_frame";
const CUT: &str = "xdp_cut";
const MISSING: &str = "the bench's object isn't what it should be";

/// A balancer in the kernel, and maybe stages around it.
pub struct Rig {
    /// The balancer.
    pub balancer: LoadBalancer,
    /// The time that it is told.
    pub now: Instant,
    driver: FrameDriver,
    /// What frames meet first.
    entry: ProgramFd,
    empty: ProgramFd,
}

/// The program that goes before programs for XDP.
pub struct FrameDriver {
    ebpf: Ebpf,
    course: Array<MapData, Element>,
    tested: ProgramArray<MapData>,
    cut: ProgramFd,
    lengths: Array<MapData, [u64; 2]>,
}

impl FrameDriver {
    /// Loads it.
    ///
    /// # Errors
    /// The kernel doesn't take it.
    pub fn load() -> Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT)?;
        for name in [DRIVER, CUT] {
            xdp(&mut ebpf, name)?.load()?;
        }
        let cut = xdp(&mut ebpf, CUT)?.fd()?.try_clone()?;
        let course = Array::try_from(ebpf.take_map("COURSE").ok_or(MISSING)?)?;
        let tested = ProgramArray::try_from(ebpf.take_map("TESTED_XDP").ok_or(MISSING)?)?;
        let lengths = Array::try_from(ebpf.take_map("CUT").ok_or(MISSING)?)?;
        Ok(Self { ebpf, course, tested, cut, lengths })
    }

    /// The program that makes each frame of a course as long as an answer, and nothing else.
    ///
    /// # Errors
    /// The kernel refuses to write that down.
    pub fn cutting(&mut self, course: &Course, answer: usize) -> Result<ProgramFd> {
        self.lengths.set(0, [course.grown as u64, answer as u64], 0)?;
        Ok(self.cut.try_clone()?)
    }

    /// Runs a program on so many packets, from the course's next flow on.
    ///
    /// # Errors
    /// The kernel doesn't run it.
    pub fn run(&mut self, tested: &ProgramFd, course: &Course, runs: u32) -> Result<Run> {
        self.aim(tested, course)?;
        self.call(course, runs)
    }

    /// As [`FrameDriver::run`], each packet by a call of its own: a call of more than one waits for a grace period. What
    /// became of each packet.
    ///
    /// # Errors
    /// The kernel doesn't run it.
    pub fn run_each(&mut self, tested: &ProgramFd, course: &Course, runs: u32) -> Result<Vec<i32>> {
        self.aim(tested, course)?;
        (0..runs).map(|_| Ok(self.call(course, 1)?.action)).collect()
    }

    fn aim(&mut self, tested: &ProgramFd, course: &Course) -> Result<()> {
        self.course.set(0, course.element(), 0)?;
        Ok(self.tested.set(0, tested, 0)?)
    }

    fn call(&mut self, course: &Course, repeat: u32) -> Result<Run> {
        let data_in = Some(&course.packet.bytes[..]);
        let options = TestRunOptions { data_in, repeat, ..TestRunOptions::default() };
        let result = xdp(&mut self.ebpf, DRIVER)?.test_run(options)?;
        Ok(Run {
            nanoseconds: result.duration.as_nanos() as f64,
            action: result.return_value as i32,
        })
    }

    /// One round: the program and the empty one; and what became of the last packet.
    ///
    /// # Errors
    /// The kernel doesn't run it.
    pub fn time(
        &mut self,
        [tested, empty]: [&ProgramFd; 2],
        course: &mut Course,
        sampling: Sampling,
    ) -> Result<(Sample, i32)> {
        let empty = self.run(empty, course, sampling.runs)?.nanoseconds;
        let run = self.run(tested, course, sampling.runs)?;
        course.next = (course.next + sampling.runs as usize) % course.flows;
        Ok((Sample { program: run.nanoseconds, empty }, run.action))
    }
}

impl Rig {
    /// Loads both.
    ///
    /// # Errors
    /// The kernel doesn't take them.
    pub fn new(options: BalancerOptions, services: &Services) -> Result<Self> {
        Self::of(LoadBalancer::builder().options(options), services)
    }

    /// As [`Rig::new`], with the stages of a builder, of which the first is measured with all that follows.
    ///
    /// # Errors
    /// The kernel doesn't take them, or there are stages behind the balancer alone.
    pub fn of(builder: Builder, services: &Services) -> Result<Self> {
        let mut balancer = builder.open()?;
        let now = Instant::now();
        let _ = balancer.apply(services, now)?;
        let (entry, empty) = (loaded(first(&balancer)?)?, loaded(own(&balancer, XDP_EMPTY)?)?);
        Ok(Self { balancer, now, driver: FrameDriver::load()?, entry, empty })
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
        self.driver.time([&self.entry, &self.empty], course, sampling)
    }

    /// One round: the program, and one that only makes frames as long as its answers instead of the empty one.
    ///
    /// # Errors
    /// The kernel doesn't run it.
    pub fn time_beyond_cutting(
        &mut self,
        course: &mut Course,
        (answer, sampling): (usize, Sampling),
    ) -> Result<(Sample, i32)> {
        let cutting = self.driver.cutting(course, answer)?;
        self.driver.time([&self.entry, &cutting], course, sampling)
    }

    /// The empty program.
    ///
    /// # Errors
    /// There is no room for a descriptor.
    pub fn empty(&self) -> Result<ProgramFd> {
        Ok(self.empty.try_clone()?)
    }

    /// Runs the balancer's program, or all stages, on so many packets.
    ///
    /// # Errors
    /// The kernel doesn't run it.
    pub fn send(&mut self, course: &Course, packets: u32) -> Result<Run> {
        self.driver.run(&self.entry, course, packets)
    }
}

fn xdp<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    Ok(ebpf.program_mut(name).ok_or(MISSING)?.try_into()?)
}

/// The kernel's number for the program that frames meet first.
fn first(balancer: &LoadBalancer) -> Result<u32> {
    match balancer.report().stages.first() {
        None => own(balancer, XDP_BALANCE),
        Some(stage) if stage.position == Position::Before => Ok(stage.id),
        Some(_) => Err("the number of a balancer that hands on isn't known".into()),
    }
}

fn own(balancer: &LoadBalancer, name: &str) -> Result<u32> {
    let programs = &balancer.report().programs;
    let program = programs.iter().find(|program| program.name == name);
    Ok(program.ok_or("it isn't loaded")?.id)
}

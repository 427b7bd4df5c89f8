//! A datapath in which one endpoint can be measured.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    error::Error,
    fs, io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use aya::programs::{ProgramFd, loaded_programs};
use flowgate_abi::{DropReason, event::Counter};
use flowgate_conformance::frames::{Frame, tcp};
use flowgate_datapath::{
    Datapath, Delivery, EndpointId, EndpointSpec, Events, Options, ProgramReport, Stage,
};
use flowgate_ebpf_progs::{OBJECT, TC_EMPTY, TC_FROM_ENDPOINT, TC_TO_ENDPOINT};
use flowgate_policy::plan::{Plan, PlannedEndpoint};

use crate::{
    course::{Course, Driver, Run},
    manifests,
    packets::{End, Packet},
    sampling::{Sample, Sampling},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Where the kernel runs test packets.
const LOOPBACK: &str = "lo";
/// `TC_ACT_UNSPEC`, `TC_ACT_SHOT` and `TC_ACT_REDIRECT`.
const PASSED: i32 = -1;
const DROPPED: i32 = 2;
const REDIRECTED: i32 = 7;

/// The bytes of an eBPF object.
pub type Object = Cow<'static, [u8]>;

/// The object to measure: that of the path `FLOWGATE_OBJECT`, or the shipped one.
///
/// # Errors
/// It can't be read.
pub fn object() -> io::Result<Object> {
    match std::env::var_os("FLOWGATE_OBJECT") {
        Some(path) => Ok(fs::read(path)?.into()),
        None => Ok(Cow::Borrowed(OBJECT)),
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on, to the stack or to the endpoint.
    Passed,
    /// It goes straight to another endpoint.
    Redirected,
    /// For this reason.
    Dropped(DropReason),
}

/// What was counted.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Packets that were dropped.
    pub drops: BTreeMap<DropReason, u64>,
    /// Flows that were opened.
    pub opened: u64,
    /// Flows whose place was taken by others.
    pub evicted: u64,
    /// Events for which the ring had no room.
    pub events_lost: u64,
}

/// The pods of [`manifests::NODE`]. The client is bound to loopback, so that the programs find it as
/// they find an endpoint on a link: by its interface index, in an array.
pub struct Rig {
    datapath: Datapath,
    events: Events,
    driver: Driver,
    programs: BTreeMap<&'static str, ProgramFd>,
}

impl Rig {
    /// Loads an object, attaches the pods and applies their policies.
    ///
    /// # Errors
    /// The kernel refuses something of it.
    ///
    /// # Panics
    /// Never.
    pub fn new(object: Object, delivery: Delivery, options: Options) -> Result<Self> {
        let plan = manifests::compile(&manifests::read(manifests::NODE));
        Self::of(&plan, object, delivery, options)
    }

    /// As [`Rig::new`], with the pods of another plan, the client among them.
    ///
    /// # Errors
    /// The kernel refuses something of it.
    ///
    /// # Panics
    /// Never.
    pub fn of(
        plan: &Arc<Plan>,
        object: Object,
        delivery: Delivery,
        options: Options,
    ) -> Result<Self> {
        let mut datapath = Datapath::builder().options(options).object(object).open()?;
        let events = datapath.events().expect("not taken before");
        let (own, others): (Vec<_>, Vec<_>) =
            plan.endpoints.iter().partition(|p| *p.workload.name == *End::Client.name());
        // First, so that it gets the slot that its interface index names.
        for planned in own.into_iter().chain(others) {
            let _ = attach(&mut datapath, planned, delivery)?;
        }
        let _ = datapath.apply(plan)?;
        let programs = programs(&datapath.report().programs)?;
        Ok(Self { datapath, events, driver: Driver::load()?, programs })
    }

    /// From now on each flow has a destination of its own.
    ///
    /// # Errors
    /// The kernel doesn't take the program for it.
    pub fn aim(&mut self, targets: &[IpAddr]) -> Result<()> {
        self.driver = Driver::to_targets(targets)?;
        Ok(())
    }

    /// What verifier and JIT said of the programs.
    #[must_use]
    pub fn reports(&self) -> Vec<ProgramReport> {
        self.datapath.report().programs.clone()
    }

    /// What becomes of a packet, with all effects.
    ///
    /// # Errors
    /// The kernel doesn't run it, or something is dropped in silence.
    pub fn send(&mut self, packet: &Packet, stage: Stage) -> Result<Fate> {
        let before = self.counted()?;
        let run = self.run(program(stage), &Course::of(packet, 1), 1)?;
        let fate = match run.action {
            PASSED => Fate::Passed,
            REDIRECTED => Fate::Redirected,
            DROPPED => Fate::Dropped(self.counted()?.new_drop(&before).ok_or("a silent drop")?),
            other => return Err(format!("the action {other} after {packet:?}").into()),
        };
        self.drain();
        Ok(fate)
    }

    /// Opens flows and has them answered; TCP by whole handshakes.
    ///
    /// # Errors
    /// The kernel doesn't run it.
    pub fn establish(&mut self, opening: &Frame, world: bool, flows: usize) -> Result<()> {
        let mut steps = vec![*opening];
        // What another local pod sends is met at its own link, which isn't here: the flow stays
        // unanswered, and takes the same way.
        if world {
            steps.extend([opening.answer(), opening.flags(tcp::ACK)]);
        }
        for frame in steps {
            let stage = if frame.reply { Stage::ToEndpoint } else { Stage::FromEndpoint };
            let course = Course::of(&Packet::new(&frame), flows);
            self.run(program(stage), &course, flows as u32)?;
            self.drain();
        }
        Ok(())
    }

    /// One round: the program and the empty one.
    ///
    /// # Errors
    /// The kernel doesn't run it.
    pub fn time(
        &mut self,
        stage: Stage,
        course: &mut Course,
        sampling: Sampling,
    ) -> Result<Sample> {
        let mut samples = Vec::new();
        for _ in 0..sampling.calls {
            let empty = self.run(TC_EMPTY, course, sampling.runs)?.nanoseconds;
            let run = match sampling.read {
                true => self.run_read(program(stage), course, sampling.runs)?,
                false => self.run(program(stage), course, sampling.runs)?,
            };
            course.next = (course.next + sampling.runs as usize) % course.flows;
            self.drain();
            samples.push(Sample { program: run.nanoseconds, empty });
        }
        Ok(Sample::mean(&samples))
    }

    /// One round: a program of another scheme, which lets every packet pass, and the empty one.
    ///
    /// # Errors
    /// The kernel doesn't run it, or the last packet doesn't pass.
    pub fn time_other(
        &mut self,
        other: &ProgramFd,
        course: &mut Course,
        runs: u32,
    ) -> Result<Sample> {
        let empty = self.run(TC_EMPTY, course, runs)?.nanoseconds;
        let run = self.driver.run(other, course, runs)?;
        if run.action != PASSED {
            return Err(format!("another scheme says {}", run.action).into());
        }
        course.next = (course.next + runs as usize) % course.flows;
        Ok(Sample { program: run.nanoseconds, empty })
    }

    fn run(&mut self, program: &'static str, course: &Course, runs: u32) -> Result<Run> {
        self.driver.run(&self.programs[program], course, runs)
    }

    /// While another thread reads the events.
    fn run_read(&mut self, program: &'static str, course: &Course, runs: u32) -> Result<Run> {
        let Self { events, driver, programs, .. } = self;
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    while events.try_next().is_some() {}
                    std::hint::spin_loop();
                }
            });
            let run = driver.run(&programs[program], course, runs);
            done.store(true, Ordering::Relaxed);
            reader.join().map_err(|_| "the reader panicked")?;
            run
        })
    }

    /// Reads the events that lie there.
    fn drain(&mut self) {
        while self.events.try_next().is_some() {}
    }

    /// What was counted so far.
    ///
    /// # Errors
    /// The tables couldn't be read.
    pub fn counted(&self) -> Result<Counted> {
        let counters = self.datapath.counters()?;
        let mut drops = BTreeMap::new();
        for (key, tally) in &counters.drops {
            *drops.entry(key.reason).or_default() += tally.packets;
        }
        Ok(Counted {
            drops,
            opened: counters.get(Counter::FlowsNew),
            evicted: counters.get(Counter::FlowsEvicted),
            events_lost: counters.get(Counter::EventsLost),
        })
    }
}

impl Counted {
    /// The reason for which more was dropped than before.
    fn new_drop(&self, before: &Self) -> Option<DropReason> {
        let more = |reason: &DropReason| self.dropped(*reason) > before.dropped(*reason);
        self.drops.keys().copied().find(more)
    }

    /// Packets that were dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(&reason).copied().unwrap_or_default()
    }

    /// Packets that were dropped.
    #[must_use]
    pub fn all_dropped(&self) -> u64 {
        self.drops.values().sum()
    }
}

fn program(stage: Stage) -> &'static str {
    match stage {
        Stage::FromEndpoint => TC_FROM_ENDPOINT,
        Stage::ToEndpoint => TC_TO_ENDPOINT,
    }
}

/// The loaded programs of a datapath, by name.
///
/// # Errors
/// The kernel doesn't give them out.
pub fn programs(reports: &[ProgramReport]) -> Result<BTreeMap<&'static str, ProgramFd>> {
    let mut programs = BTreeMap::new();
    for loaded in loaded_programs() {
        // One of another process may go while we ask.
        let Ok(loaded) = loaded else { continue };
        if let Some(report) = reports.iter().find(|report| report.id == loaded.id()) {
            programs.insert(report.name, loaded.fd()?);
        }
    }
    Ok(programs)
}

/// A loaded program, by the kernel's number for it.
///
/// # Errors
/// There is none, or the kernel doesn't give it out.
pub fn loaded(id: u32) -> Result<ProgramFd> {
    let mut all = loaded_programs().filter_map(std::result::Result::ok);
    Ok(all.find(|program| program.id() == id).ok_or("no such program")?.fd()?)
}

fn attach(
    datapath: &mut Datapath,
    planned: &PlannedEndpoint,
    delivery: Delivery,
) -> Result<EndpointId> {
    let workload = planned.workload.clone();
    let spec = match *workload.name == *End::Client.name() {
        true => EndpointSpec::new(workload, LOOPBACK),
        false => EndpointSpec::unlinked(workload),
    };
    let spec = planned.addresses.iter().fold(spec, |spec, at| spec.address(*at));
    Ok(datapath.attach(&spec.delivery(delivery))?.id)
}

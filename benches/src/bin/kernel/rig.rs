//! A datapath in which one endpoint can be measured.

use std::{
    error::Error,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use flowgate_abi::{DropReason, event::Counter};
use flowgate_benches::{manifests, packets::End};
use flowgate_conformance::frames::{Frame, tcp};
use flowgate_datapath::{
    Action, Datapath, Delivery, EndpointId, EndpointSpec, Events, Options, ProgramReport, Stage,
};
use flowgate_ebpf_progs::{TC_EMPTY, TC_FROM_ENDPOINT, TC_TO_ENDPOINT};
use flowgate_policy::plan::PlannedEndpoint;

use crate::sampling::Sample;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Where the kernel runs test packets.
const LOOPBACK: &str = "lo";

/// The pods of [`manifests::NODE`]. One of them is bound to loopback, so that the programs find it
/// as they find an endpoint on a link: by its interface index, in an array.
pub(crate) struct Rig {
    datapath: Datapath,
    events: Events,
    here: End,
    id: EndpointId,
}

impl Rig {
    pub(crate) fn new(here: End, delivery: Delivery, options: Options) -> Result<Self> {
        let mut datapath = Datapath::builder().options(options).open()?;
        let events = datapath.events().expect("not taken before");
        let plan = manifests::compile(&manifests::read(manifests::NODE));
        let (own, others): (Vec<_>, Vec<_>) =
            plan.endpoints.iter().partition(|planned| *planned.workload.name == *here.name());
        let [own] = own[..] else { return Err("one pod has that name".into()) };
        // First, so that it gets the slot that its interface index names.
        let spec = EndpointSpec::new(own.workload.clone(), LOOPBACK);
        let id = attach(&mut datapath, spec, own, delivery)?;
        for other in others {
            let spec = EndpointSpec::unlinked(other.workload.clone());
            let _ = attach(&mut datapath, spec, other, delivery)?;
        }
        let _ = datapath.apply(&plan)?;
        Ok(Self { datapath, events, here, id })
    }

    pub(crate) fn programs(&self) -> Vec<ProgramReport> {
        self.datapath.report().programs.clone()
    }

    /// What becomes of a packet at the measured pod, which sends it or gets it.
    pub(crate) fn send(&mut self, frame: &Frame, sender: End) -> Result<Action> {
        let stage = if sender == self.here { Stage::FromEndpoint } else { Stage::ToEndpoint };
        Ok(self.datapath.replay(self.id, stage, &frame.bytes())?.action)
    }

    /// A handshake, after which the connection is established; `false`: its SYN was dropped.
    pub(crate) fn establish(&mut self, syn: &Frame, ends: (End, End)) -> Result<bool> {
        for frame in [*syn, syn.answer(), syn.flags(tcp::ACK)] {
            let sender = if frame.reply { ends.1 } else { ends.0 };
            // What another local pod sends is met at its own link, which isn't here: the flow stays
            // unanswered, and takes the same way.
            if sender != self.here && sender != End::World {
                continue;
            }
            if !self.send(&frame, sender)?.passes() {
                return Ok(false);
            }
        }
        self.drain();
        Ok(true)
    }

    /// The same frame many times in one call: the program and the empty one.
    pub(crate) fn time(&mut self, stage: Stage, frame: &[u8], runs: u32) -> Result<Sample> {
        let id = self.id;
        let program = match stage {
            Stage::FromEndpoint => TC_FROM_ENDPOINT,
            Stage::ToEndpoint => TC_TO_ENDPOINT,
        };
        let mut time = |program| self.datapath.time(id, program, frame, runs);
        let empty = time(TC_EMPTY)?.as_nanos() as f64;
        Ok(Sample { program: time(program)?.as_nanos() as f64, empty })
    }

    /// As [`Rig::time`], while another thread reads the events.
    pub(crate) fn time_read(&mut self, stage: Stage, frame: &[u8], runs: u32) -> Result<Sample> {
        let lost = self.count(Counter::EventsLost)?;
        let id = self.id;
        assert_eq!(stage, Stage::FromEndpoint, "only that one is measured so");
        let (datapath, events) = (&mut self.datapath, &mut self.events);
        let done = AtomicBool::new(false);
        let sample = thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    while events.try_next().is_some() {}
                    std::hint::spin_loop();
                }
            });
            let mut time = |program| datapath.time(id, program, frame, runs);
            let sample = time(TC_EMPTY).and_then(|empty| {
                let (program, empty) = (time(TC_FROM_ENDPOINT)?, empty.as_nanos() as f64);
                Ok(Sample { program: program.as_nanos() as f64, empty })
            });
            done.store(true, Ordering::Relaxed);
            sample
        })?;
        self.drain();
        if self.count(Counter::EventsLost)? != lost {
            return Err("the reader was too slow: events were lost".into());
        }
        Ok(sample)
    }

    /// Reads the events that lie there.
    pub(crate) fn drain(&mut self) {
        while self.events.try_next().is_some() {}
    }

    pub(crate) fn count(&self, counter: Counter) -> Result<u64> {
        Ok(self.datapath.counters()?.get(counter))
    }

    /// Flows that were refused for want of room, or evicted for others.
    pub(crate) fn without_room(&self) -> Result<u64> {
        let counters = self.datapath.counters()?;
        let refused = counters.dropped(DropReason::FlowTableFull);
        Ok(refused + counters.get(Counter::FlowsEvicted))
    }
}

fn attach(
    datapath: &mut Datapath,
    spec: EndpointSpec,
    planned: &PlannedEndpoint,
    delivery: Delivery,
) -> Result<EndpointId> {
    let spec = planned.addresses.iter().fold(spec, |spec, at| spec.address(*at));
    Ok(datapath.attach(&spec.delivery(delivery))?.id)
}

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

use crate::sampling::Sample;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Where the kernel runs test packets.
const LOOPBACK: &str = "lo";
const PODS: [End; 3] = [End::Client, End::Server, End::Closed];

/// The pods of [`manifests::NODE`]. One of them is bound to loopback, so that the programs find it
/// as they find an endpoint on a link: by its interface index, in an array.
pub(crate) struct Rig {
    datapath: Datapath,
    events: Events,
    here: End,
    ids: [EndpointId; 3],
}

impl Rig {
    pub(crate) fn new(here: End, delivery: Delivery, options: Options) -> Result<Self> {
        let mut datapath = Datapath::builder().options(options).open()?;
        let events = datapath.events().expect("not taken before");
        let plan = manifests::compile(&manifests::read(manifests::NODE));
        let mut ids = [None; 3];
        // The one on loopback first: its slot is the one that its interface index names.
        let mut order = PODS;
        order.sort_by_key(|pod| *pod != here);
        for pod in order {
            let index = pod as usize;
            let planned = &plan.endpoints[index];
            let workload = planned.workload.clone();
            let spec = if pod == here {
                EndpointSpec::new(workload, LOOPBACK)
            } else {
                EndpointSpec::unlinked(workload)
            };
            let spec = planned.addresses.iter().fold(spec, |spec, at| spec.address(*at));
            ids[index] = Some(datapath.attach(&spec.delivery(delivery))?.id);
        }
        let _ = datapath.apply(&plan)?;
        let ids = ids.map(|id| id.expect("each was attached"));
        Ok(Self { datapath, events, here, ids })
    }

    pub(crate) fn programs(&self) -> Vec<ProgramReport> {
        self.datapath.report().programs.clone()
    }

    /// What becomes of a packet at whichever pod meets it first.
    pub(crate) fn send(&mut self, frame: &Frame, sender: End, receiver: End) -> Result<Action> {
        let (pod, stage) = match sender {
            End::World => (receiver, Stage::ToEndpoint),
            pod => (pod, Stage::FromEndpoint),
        };
        let id = self.ids[pod as usize];
        Ok(self.datapath.replay(id, stage, &frame.bytes())?.action)
    }

    /// A handshake, after which the connection is established.
    pub(crate) fn establish(&mut self, syn: &Frame, ends: (End, End)) -> Result<()> {
        let (source, destination) = ends;
        for frame in [*syn, syn.answer(), syn.flags(tcp::ACK)] {
            let (sender, receiver) =
                if frame.reply { (destination, source) } else { (source, destination) };
            if !self.send(&frame, sender, receiver)?.passes() {
                return Err(format!("{frame:?} is dropped").into());
            }
        }
        self.drain();
        Ok(())
    }

    /// The same frame many times in one call: the program and the empty one.
    pub(crate) fn time(&mut self, stage: Stage, frame: &[u8], runs: u32) -> Result<Sample> {
        let id = self.ids[self.here as usize];
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
        let id = self.ids[self.here as usize];
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

    /// No flow was refused for want of room, nor evicted.
    pub(crate) fn had_room(&self) -> Result<bool> {
        let counters = self.datapath.counters()?;
        let refused = counters.dropped(DropReason::FlowTableFull);
        Ok(refused + counters.get(Counter::FlowsEvicted) == 0)
    }
}

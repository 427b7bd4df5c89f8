//! The run with real traffic: everything that [`crate::predict`] can't do.

use std::{sync::Arc, time::Duration};

use flowgate_abi::event::Counter;
use flowgate_datapath::Datapath;
use flowgate_identity::LocalAllocator;
use flowgate_kubernetes::Manifests;
use flowgate_lab::Talk;
use flowgate_policy::{compile::Compiler, inventory::Workload, options::Options, plan::Plan};

use crate::{
    answer::Answer,
    change::{self, Change, Connection},
    enforce,
    failure::Failure,
    flow_log::Recorder,
    observe,
    report::{Changed, Talked, Traffic},
    stage::Stage,
};

/// Enough for an answer that comes at all, retransmissions included.
const SOON: Duration = Duration::from_secs(3);
/// Enough to be sure that none comes.
const LATER: Duration = Duration::from_millis(700);

/// What is given.
pub(crate) struct Setting<'a> {
    pub(crate) manifests: &'a Manifests,
    pub(crate) pods: &'a [&'a Workload],
    pub(crate) compiler: &'a mut Compiler<LocalAllocator>,
    pub(crate) plan: &'a Arc<Plan>,
}

impl Setting<'_> {
    /// Builds the stage, enforces the plan, tries every flow of the answers, changes a policy.
    pub(crate) fn run(mut self, answers: &mut [Answer<'_>]) -> Result<Traffic, Failure> {
        flowgate_lab::available()?;
        let stage = Stage::build(self.pods)?;
        let mut datapath = enforce::open(self.plan)?;
        let events = datapath.events().expect("nobody has taken the events yet");
        let recorder = Recorder::start(events)?;
        let attach = enforce::attach(&mut datapath, &stage)?;
        let apply = enforce::apply(&mut datapath, self.plan)?;
        observe::observe(&stage, answers)?;
        let change = self.change(&mut datapath, &stage, answers)?;
        datapath.sweep()?;
        let flow_log = recorder.finish()?;
        let counters = datapath.counters()?;
        let missed = [Counter::EventsSuppressed, Counter::EventsLost];
        let events_missed = missed.iter().map(|&counter| counters.get(counter)).sum();
        let datapath = datapath.report().to_string();
        Ok(Traffic { datapath, attach, apply, change, flow_log, events_missed })
    }

    /// Changes a policy while two connections are open.
    fn change(
        &mut self,
        datapath: &mut Datapath,
        stage: &Stage,
        answers: &[Answer<'_>],
    ) -> Result<Option<Changed>, Failure> {
        let inventory = &self.manifests.inventory;
        let found = change::find(inventory, &self.manifests.policies, answers)?;
        let Some(Change { what, policies, revoked, kept }) = found else { return Ok(None) };
        let mut talks = [open(stage, &revoked)?, open(stage, &kept)?];
        let plan = self.compiler.compile(inventory, &policies, &Options::default())?;
        let apply = enforce::apply(datapath, &Arc::new(plan))?;
        let [of_revoked, of_kept] = &mut talks;
        let revoked = Talked::new(&revoked, of_revoked.line("after", LATER)?.reached());
        let kept = Talked::new(&kept, of_kept.line("after", SOON)?.reached());
        Ok(Some(Changed { what, apply, revoked, kept }))
    }
}

/// Opens a connection and uses it once.
fn open(stage: &Stage, connection: &Connection<'_>) -> Result<Talk, Failure> {
    let flow = connection.flow;
    let port = flow.protocol.port().map_or(0, |(_, port)| port);
    let mut talk =
        stage.pod(&connection.question.from.id).talk((flow.destination, port).into(), SOON)?;
    match talk.line("before", SOON)?.reached() {
        true => Ok(talk),
        false => Err(Failure::Mute { flow }),
    }
}

//! Running the programs without a wire: frames replayed, packets timed, the table swept.

use std::{io, time::Duration};

use flowgate_abi::event::Hook;
use flowgate_ebpf_progs as progs;
use flowgate_pipeline::Verdict;
use flowgate_policy::install::Store;

use crate::{
    datapath::Datapath,
    endpoint::EndpointId,
    error::{ReplayError, TableError},
    sys::kernel::{KernelTables, Run},
    tables::Tables,
};

/// Which program a frame is replayed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// As if the endpoint had sent it.
    FromEndpoint,
    /// As if it came to the endpoint from elsewhere.
    ToEndpoint,
}

/// What became of a replayed frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// What happens to it.
    pub action: Action,
    /// The frame as it goes on, or the answer to it.
    pub frame: Vec<u8>,
}

/// What happens to a replayed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on, to the stack or to the endpoint.
    Pass,
    /// It goes straight to another local endpoint.
    Redirect,
    /// It is dropped; the reason is in the counters, or in the event.
    Drop,
    /// Likewise, and its sender is told: the answer goes back over the link.
    Answer,
}

impl Datapath {
    /// Tells of flows that have ended, and frees the entries of those that have been silent for too
    /// long. Call it about once a second; a packet never takes an expired entry for a live one,
    /// swept or not. Ends what [`Datapath::add`] and [`Datapath::remove`] began, which takes a grace
    /// period if there was anything.
    ///
    /// # Errors
    /// The kernel refused to run the program.
    pub fn sweep(&mut self) -> Result<(), TableError> {
        self.tables.settle()?;
        match &mut self.tables {
            Tables::Kernel(installer) => {
                let tables = installer.store_mut();
                let settings = *tables.settings();
                let buckets = settings.flow4_mask + settings.flow6_mask + 2;
                tables.time(progs::TC_SWEEP, &EMPTY_FRAME, buckets)?;
            }
            Tables::Host(host) => {
                host.installer.store().sweep();
                host.pump();
            }
        }
        Ok(())
    }

    /// Runs a frame through the endpoint's program as if it were on the wire, with all effects:
    /// flows are tracked, counters count, events are told. The kernel backend asks the loaded program
    /// (`BPF_PROG_TEST_RUN`); the frame goes nowhere.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn replay(
        &mut self,
        id: EndpointId,
        stage: Stage,
        frame: &[u8],
    ) -> Result<Replayed, ReplayError> {
        self.check_attached(id)?;
        match &mut self.tables {
            Tables::Kernel(installer) => installer.store_mut().replay(id.0, stage, frame),
            Tables::Host(host) => {
                check_length(frame)?;
                let store = host.installer.store();
                let ifindex = store.endpoint(id.0).ifindex;
                let passed = store.run(frame, ifindex, stage.hook());
                host.pump();
                Ok(match passed.answer {
                    Some(frame) => Replayed { action: Action::Answer, frame },
                    None => Replayed {
                        action: Action::from_verdict(passed.verdict),
                        frame: passed.frame,
                    },
                })
            }
        }
    }

    /// How long the kernel's program takes for a frame, on average over many runs of it.
    ///
    /// # Errors
    /// As [`Datapath::replay`]; the host backend has no programs.
    pub fn time(
        &mut self,
        id: EndpointId,
        program: &'static str,
        frame: &[u8],
        runs: u32,
    ) -> Result<Duration, ReplayError> {
        self.check_attached(id)?;
        let Tables::Kernel(installer) = &mut self.tables else {
            return Err(ReplayError::NoPrograms);
        };
        let tables = installer.store_mut();
        tables.on_loopback(id.0, |tables| tables.time(program, frame, runs))
    }

    fn check_attached(&self, id: EndpointId) -> Result<(), ReplayError> {
        let attached = self.tables.slots().contains(&id.0);
        attached.then_some(()).ok_or(ReplayError::NotAttached { slot: id.0 })
    }
}

impl KernelTables {
    /// Runs a frame through a program at the endpoint in a slot.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn replay(
        &mut self,
        slot: u32,
        stage: Stage,
        frame: &[u8],
    ) -> Result<Replayed, ReplayError> {
        check_length(frame)?;
        let run = self.on_loopback(slot, |tables| tables.run(stage.program(), frame))?;
        Ok(Replayed { action: Action::from_kernel(&run), frame: run.frame })
    }

    /// The kernel runs programs on loopback, which becomes the endpoint for as long. If it is
    /// another endpoint's already, the frame would be met by that one.
    fn on_loopback<T>(
        &mut self,
        slot: u32,
        run: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> Result<T, ReplayError> {
        let failed = |source| ReplayError::Tables(TableError(source));
        match self.endpoint_of(LOOPBACK).map_err(failed)? {
            Some(owner) if owner == slot => return run(self).map_err(failed),
            Some(owner) => return Err(ReplayError::LoopbackTaken { owner }),
            None => {}
        }
        self.set_link(LOOPBACK, Some(slot)).map_err(failed)?;
        let ran = run(self);
        self.set_link(LOOPBACK, None).map_err(failed)?;
        ran.map_err(failed)
    }

    /// The slot of the endpoint that is bound to an interface, found as the programs do.
    fn endpoint_of(&self, ifindex: u32) -> io::Result<Option<u32>> {
        let own = ifindex & self.settings().endpoint_mask;
        let mut candidates = vec![own];
        candidates.extend(self.links()?.into_iter().filter(|l| l.0 == ifindex).map(|l| l.1));
        Ok(candidates.into_iter().find(|slot| self.endpoint(*slot).ifindex == ifindex))
    }
}

/// The kernel takes no frame without an Ethernet header.
fn check_length(frame: &[u8]) -> Result<(), ReplayError> {
    let bytes = frame.len();
    if bytes < EMPTY_FRAME.len() { Err(ReplayError::TooShort { bytes }) } else { Ok(()) }
}

impl Stage {
    const fn hook(self) -> Hook {
        match self {
            Self::FromEndpoint => Hook::FromEndpoint,
            Self::ToEndpoint => Hook::ToEndpoint,
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::FromEndpoint => progs::TC_FROM_ENDPOINT,
            Self::ToEndpoint => progs::TC_TO_ENDPOINT,
        }
    }
}

impl Action {
    /// `TC_ACT_SHOT` is 2, `TC_ACT_REDIRECT` 7, `TC_ACT_UNSPEC` -1.
    const fn from_kernel(run: &Run) -> Self {
        match run.action {
            -1 => Self::Pass,
            7 if run.answered => Self::Answer,
            7 => Self::Redirect,
            _ => Self::Drop,
        }
    }

    const fn from_verdict(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass | Verdict::HostAlone | Verdict::Stack(_) => Self::Pass,
            Verdict::Redirect(_) | Verdict::RedirectPeer(_) => Self::Redirect,
            Verdict::Drop(_) => Self::Drop,
        }
    }

    /// It goes on.
    #[must_use]
    pub const fn passes(self) -> bool {
        !matches!(self, Self::Drop | Self::Answer)
    }
}

/// Interface index of loopback in every network namespace.
const LOOPBACK: u32 = 1;
/// An Ethernet header and nothing in it.
const EMPTY_FRAME: [u8; 14] = [0; 14];

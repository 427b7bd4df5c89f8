//! Running the programs without a wire: frames replayed, packets timed, the table swept.

use std::{io, time::Duration};

use flowgate_abi::event::Hook;
use flowgate_ebpf_progs as progs;
use flowgate_pipeline::Verdict;
use flowgate_policy::install::Store;

use crate::{datapath::Datapath, endpoint::EndpointId, error::TableError, tables::Tables};

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
    /// The frame as it goes on.
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
}

impl Datapath {
    /// Tells of flows that have ended, and frees the entries of those that have been silent for too
    /// long. Call it about once a second; a packet never takes an expired entry for a live one,
    /// swept or not.
    ///
    /// # Errors
    /// The kernel refused to run the program.
    pub fn sweep(&mut self) -> Result<(), TableError> {
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
    /// The frame is shorter than the kernel takes (Ethernet and IP header), or the endpoint isn't
    /// attached.
    pub fn replay(
        &mut self,
        id: EndpointId,
        stage: Stage,
        frame: &[u8],
    ) -> Result<Replayed, TableError> {
        if !self.tables.slots().contains(&id.0) {
            let text = format!("no endpoint is attached in slot {}", id.0);
            return Err(TableError(io::Error::new(io::ErrorKind::NotFound, text)));
        }
        if frame.len() < EMPTY_FRAME.len() {
            let text = format!("a frame of {} bytes has no Ethernet header", frame.len());
            return Err(TableError(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        match &mut self.tables {
            Tables::Kernel(installer) => {
                let program = match stage {
                    Stage::FromEndpoint => progs::TC_FROM_ENDPOINT,
                    Stage::ToEndpoint => progs::TC_TO_ENDPOINT,
                };
                let tables = installer.store_mut();
                // The kernel runs it on loopback, which becomes the endpoint for as long.
                tables.set_link(LOOPBACK, Some(id.0))?;
                let ran = tables.run(program, frame);
                tables.set_link(LOOPBACK, None)?;
                let (action, frame) = ran?;
                Ok(Replayed { action: Action::from_kernel(action), frame })
            }
            Tables::Host(host) => {
                let hook = match stage {
                    Stage::FromEndpoint => Hook::FromEndpoint,
                    Stage::ToEndpoint => Hook::ToEndpoint,
                };
                let store = host.installer.store();
                let ifindex = store.endpoint(id.0).ifindex;
                let passed = store.run(frame, ifindex, hook);
                host.pump();
                Ok(Replayed { action: Action::from_verdict(passed.verdict), frame: passed.frame })
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
    ) -> Result<Duration, TableError> {
        let Tables::Kernel(installer) = &mut self.tables else {
            return Err(TableError(io::Error::from(io::ErrorKind::Unsupported)));
        };
        let tables = installer.store_mut();
        tables.set_link(LOOPBACK, Some(id.0))?;
        let took = tables.time(program, frame, runs);
        tables.set_link(LOOPBACK, None)?;
        Ok(took?)
    }
}

impl Action {
    /// `TC_ACT_SHOT` is 2, `TC_ACT_REDIRECT` 7, `TC_ACT_UNSPEC` -1.
    const fn from_kernel(action: i32) -> Self {
        match action {
            -1 => Self::Pass,
            7 => Self::Redirect,
            _ => Self::Drop,
        }
    }

    const fn from_verdict(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass | Verdict::Stack(_) => Self::Pass,
            Verdict::Redirect(_) | Verdict::RedirectPeer(_) => Self::Redirect,
            Verdict::Drop(_) => Self::Drop,
        }
    }

    /// It goes on.
    #[must_use]
    pub const fn passes(self) -> bool {
        !matches!(self, Self::Drop)
    }
}

/// Interface index of loopback in every network namespace.
const LOOPBACK: u32 = 1;
/// An Ethernet header and nothing in it.
const EMPTY_FRAME: [u8; 14] = [0; 14];

//! Stages: XDP programs in front of the balancer and behind it, on the same interface.
//!
//! A stage is an ordinary XDP program of an object that may know nothing of flowgate: `XDP_PASS` hands a frame
//! on, anything else is the last word. Each stage is verified by itself; between two of them is a tail call.
//! Without stages the balancer's program is attached as it is.
//!
//! Not here: how programs become a chain (`sys::lb`). Tested by `kernel_stages` and `netns_stages`.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::StageError;
use crate::{error::OpenError, verification::VerifierCost};

/// What an XDP program says of a frame, by the kernel's numbers (`include/uapi/linux/bpf.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum XdpAction {
    /// The program failed; the frame is dropped.
    Aborted = 0,
    /// Dropped.
    Drop = 1,
    /// On to the host's stack.
    Pass = 2,
    /// Out of the interface by which it came.
    Transmit = 3,
    /// To another interface, CPU or socket.
    Redirect = 4,
}

impl XdpAction {
    pub(crate) const fn from_kernel(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Aborted),
            1 => Some(Self::Drop),
            2 => Some(Self::Pass),
            3 => Some(Self::Transmit),
            4 => Some(Self::Redirect),
            _ => None,
        }
    }
}

/// A program in front of the balancer or behind it.
///
/// Frames may lie in several buffers (`xdp.frags`): a stage sees the first of them by direct access, whatever
/// section it was written for.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    pub(crate) object: Cow<'static, [u8]>,
    pub(crate) program: String,
    pub(crate) takes: u8,
    pub(crate) globals: BTreeMap<String, Vec<u8>>,
    pub(crate) maps: Option<PathBuf>,
}

impl Stage {
    /// A program of an eBPF object, by its function's name, which is the stage's.
    pub fn object(object: impl Into<Cow<'static, [u8]>>, program: impl Into<String>) -> Self {
        Self {
            object: object.into(),
            program: program.into(),
            takes: 1 << XdpAction::Pass as u8,
            globals: BTreeMap::new(),
            maps: None,
        }
    }

    /// Which frames it gets: those of which the program before it said one of these, instead of those that
    /// were passed. What the stage says is the last word, so one that takes what is transmitted returns
    /// `XDP_TX` to leave it at that. The first stage of a chain gets every frame.
    pub fn takes(mut self, actions: &[XdpAction]) -> Self {
        self.takes = actions.iter().fold(0, |takes, action| takes | 1 << *action as u8);
        self
    }

    /// Sets a read-only global variable of the object, by its symbol and in its own layout.
    pub fn global(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.globals.insert(name.into(), value.into());
        self
    }

    /// Pins the object's maps in a directory of a BPF file system, and takes those over that are there: what
    /// is in them outlives the process. Otherwise each opening begins with maps of its own.
    pub fn pin_maps(mut self, directory: impl Into<PathBuf>) -> Self {
        self.maps = Some(directory.into());
        self
    }

    pub(crate) fn pins(&self) -> Option<&Path> {
        self.maps.as_deref()
    }
}

/// All stages of a balancer, in the order in which frames meet them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stages {
    pub(crate) before: Vec<Stage>,
    pub(crate) behind: Vec<Stage>,
}

/// Stages on each side of the balancer.
pub(crate) const MOST: usize = 8;

impl Stages {
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let mut names = BTreeSet::new();
        for Stage { program, .. } in self.before.iter().chain(&self.behind) {
            if !names.insert(program.as_str()) {
                return Err(StageError::Twice.of(program));
            }
        }
        for stages in [&self.before, &self.behind] {
            if let Some(stage) = stages.get(MOST) {
                return Err(StageError::TooMany { most: MOST }.of(&stage.program));
            }
        }
        Ok(())
    }

    /// Any of them, if there is one.
    pub(crate) fn first(&self) -> Option<&Stage> {
        self.before.first().or(self.behind.first())
    }
}

/// Where a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    /// In front of the balancer.
    Before,
    /// Behind it.
    Behind,
}

/// A stage that was loaded.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageReport {
    /// Its name: its program's.
    pub name: String,
    /// Where it stands.
    pub position: Position,
    /// The kernel's number for its program.
    pub id: u32,
    /// What the verifier said of it; `None`: nothing that is understood.
    pub cost: Option<VerifierCost>,
}

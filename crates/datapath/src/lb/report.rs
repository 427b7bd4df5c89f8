//! What was found and chosen: no downgrade is silent.

use std::fmt;

use super::{Position, StageReport};
use crate::report::{BackendKind, ProgramReport};

/// What opening a balancer found out and did.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalancerReport {
    /// Where the tables lie.
    pub backend: BackendKind,
    /// What became of earlier state.
    pub state: BalancerState,
    /// The programs, as the kernel sees them; empty for the host backend.
    pub programs: Vec<ProgramReport>,
    /// The stages in front of the balancer and behind it, in the order in which frames meet them.
    pub stages: Vec<StageReport>,
    /// The kernel's release; empty for the host backend.
    pub kernel: String,
    /// Bytes of all maps.
    pub memory: usize,
}

/// What became of earlier state.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalancerState {
    /// There was none.
    Fresh,
    /// An earlier process's is carried on.
    Adopted {
        /// Services that run and wait to be applied again.
        services: usize,
    },
}

impl fmt::Display for BalancerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.backend {
            BackendKind::Kernel => write!(f, "kernel {}", self.kernel)?,
            BackendKind::Host => f.write_str("host tables")?,
        }
        match self.state {
            BalancerState::Fresh => f.write_str(", fresh")?,
            BalancerState::Adopted { services } => write!(f, ", adopted {services} services")?,
        }
        write!(f, ", {} KiB", self.memory / 1024)?;
        if self.stages.is_empty() {
            return Ok(());
        }
        let names = |position| {
            let stages = self.stages.iter().filter(move |stage| stage.position == position);
            stages.map(|stage| stage.name.as_str())
        };
        let before = names(Position::Before).chain(["balancer"]);
        let chain: Vec<_> = before.chain(names(Position::Behind)).collect();
        write!(f, ", {}", chain.join(" > "))
    }
}

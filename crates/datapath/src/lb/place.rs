//! A place in libxdp's dispatcher, beside programs of others.
//!
//! Not here: how it is taken (`sys::lb::dispatcher`). Tested by `kernel_dispatcher`.

use super::XdpAction;

/// Where the balancer stands among the programs of a dispatcher, and what those behind it get.
///
/// [`Place::default`] is what libxdp takes of a program that says nothing: priority 50, going on with what is passed.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub(crate) priority: u32,
    actions: u32,
}

impl Default for Place {
    fn default() -> Self {
        Self { priority: 50, actions: 1 << XdpAction::Pass as u32 }
    }
}

impl Place {
    /// Programs stand in the order of this number (`run_prio`), those of the same in the order of their names; the
    /// balancer's is `flowgate`.
    pub const fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// What the balancer says of a frame that the next program gets, too (`chain_call_actions`); anything else is the
    /// last word.
    pub fn going_on(mut self, actions: &[XdpAction]) -> Self {
        self.actions = actions.iter().fold(0, |all, action| all | 1 << *action as u32);
        self
    }

    /// As a dispatcher has it: also on what an empty place says.
    pub(crate) const fn goes_on(self) -> u32 {
        self.actions | 1 << 31
    }
}

/// Who else the interface runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// The balancer has it alone, with its stages: no [`Place`] was asked for, or the kernel didn't permit
    /// one to the process from which it has it.
    Nobody,
    /// A dispatcher runs the balancer, and may run others.
    Dispatched {
        /// How many programs stood in front of it.
        position: usize,
        /// How many there were with it.
        programs: usize,
    },
    /// A [`Place`] was asked for, and the kernel doesn't permit to put programs in the place of functions (lockdown). The
    /// balancer has the interface alone, with its stages.
    NotPermitted,
}

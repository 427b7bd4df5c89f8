//! What becomes of connections that are established when a plan comes into force.
//!
//! Not here: which connections are established, and whose their addresses were then; the tables know.
//! Tested beside what tables do (`tests/established.rs`).

use std::fmt;

use crate::plan::Plan;

/// What becomes of an established connection with its next packet, whichever way that runs. Displays as
/// `passes`, `kept` or `ends`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// The plan allows it.
    Passes,
    /// The plan denies it, and keeps what is established as long as both addresses stay in the same hands.
    Kept,
    /// The plan denies it.
    Ends,
}

impl Plan {
    /// What becomes of established connections that it judges so: with
    /// [`Options::keep_established`](crate::options::Options::keep_established) they outlive a denial. What is
    /// still opening doesn't: that ends.
    ///
    /// ```
    /// # use flowgate_identity::LocalAllocator;
    /// # use flowgate_policy::{compile::Compiler, fate::Fate, inventory::Inventory, options::Options};
    /// let options = Options { keep_established: true, ..Options::default() };
    /// let mut compiler = Compiler::new(LocalAllocator::new());
    /// let plan = compiler.compile(&Inventory::default(), &[], &options)?;
    /// assert_eq!((plan.fate(true), plan.fate(false)), (Fate::Passes, Fate::Kept));
    /// # Ok::<(), flowgate_policy::compile::CompileError>(())
    /// ```
    #[must_use]
    pub const fn fate(&self, allowed: bool) -> Fate {
        match (allowed, self.keep_established) {
            (true, _) => Fate::Passes,
            (false, true) => Fate::Kept,
            (false, false) => Fate::Ends,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passes => "passes",
            Self::Kept => "kept",
            Self::Ends => "ends",
        })
    }
}

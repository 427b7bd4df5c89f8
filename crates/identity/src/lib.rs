//! Who the ends of traffic are: labels, selectors, numeric identities, and which address is whose.
//!
//! Not here: policies (`flowgate-policy`), kernel maps (`flowgate-datapath`), and any I/O; an
//! allocator over a store shared by a cluster implements [`IdentityAllocator`] in a crate of its own.
//!
//! Invariant: one [`Labels`] value holds one key space. A workload's labels and its namespace's
//! labels are two values and are never merged, so neither can imitate the other.
//!
//! Tested by unit tests beside the code, and by property tests against naive references.
//!
//! ```
//! use flowgate_identity::{IdentityAllocator, IdentityLabels, Labels, LocalAllocator, Scope, Selector};
//!
//! let web: Labels = [("app", "web")].into_iter().collect();
//! assert!(Selector::match_label("app", "web").matches(&web));
//!
//! let mut allocator = LocalAllocator::new();
//! let labels = IdentityLabels::workload("prod", Labels::new(), web);
//! let id = allocator.allocate(Scope::Global, &labels)?;
//! assert_eq!(allocator.labels(id), Some(&labels));
//! # Ok::<(), flowgate_identity::AllocateError>(())
//! ```
#![forbid(unsafe_code)]

mod allocator;
mod identity_labels;
mod ipcache;
mod labels;
mod numeric;
mod selector;

pub use allocator::{
    AllocateError, IdentityAllocator, LocalAllocator, ReleaseError, Released, ScopeCapacities,
};
pub use identity_labels::{CidrSet, IdentityLabels};
pub use ipcache::Ipcache;
pub use labels::Labels;
pub use numeric::{NumericIdentity, Scope};
pub use selector::{Operator, Requirement, Selector};

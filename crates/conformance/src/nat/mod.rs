//! What full NAT is compared with: packets written and read by offsets, a model that knows
//! flows alone, and walks beside it.

pub mod model;
pub mod packet;
pub mod report;
pub mod walk;

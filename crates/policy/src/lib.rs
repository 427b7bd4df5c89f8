//! flowgate-policy: typed network policies, compiled to dense tables, simulated and explained.

pub mod inventory;
pub mod model;

//! x
pub mod capture;
pub mod config;

//! x
pub mod capture;
pub mod config;
pub mod health;

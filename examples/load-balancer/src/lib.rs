//! x
pub mod api;
pub mod balancer;
pub mod capture;
pub mod config;
pub mod desired;
mod differences;
pub mod health;
pub mod plane;
mod respond;
pub mod saved;

//! The library's load balancer as a [`Plane`]: where it will be opened.
//!
//! `flowgate_datapath` has none yet that could be, so [`open`] refuses, and nobody is ever a [`Plane`] here.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use flowgate_services::Services;

use crate::{
    config::model::{Config, Interface},
    plane::{Counts, Explained, Flow, Plane, PlaneError, Simulated},
};

/// Said instead of balancing nothing in silence.
pub(crate) const MISSING: &str = "this build has no load balancer for the kernel";

/// Opens the load balancer, or adopts what an earlier process left pinned.
///
/// # Errors
///
/// Always, as yet.
pub(crate) fn open(_: &Config) -> Result<Infallible, PlaneError> {
    Err(MISSING.into())
}

impl Plane for Infallible {
    fn attach(&mut self, _: &Interface) -> Result<String, PlaneError> {
        match *self {}
    }

    fn detach(&mut self, _: &str) -> Result<(), PlaneError> {
        match *self {}
    }

    fn apply(&mut self, _: &Services, _: Instant) -> Result<String, PlaneError> {
        match *self {}
    }

    fn tick(&mut self, _: Instant) -> Result<Duration, PlaneError> {
        match *self {}
    }

    fn counts(&self) -> Result<Counts, PlaneError> {
        match *self {}
    }

    fn explain(&self, _: &Flow) -> Result<Option<Explained>, PlaneError> {
        match *self {}
    }

    fn simulate(&mut self, _: &[u8]) -> Result<Simulated, PlaneError> {
        match *self {}
    }
}

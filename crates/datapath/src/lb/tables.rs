//! One balancer over whichever tables the backend has.

use std::{convert::Infallible, io, time::Duration};

use flowgate_services::{
    Applied, ApplyError, Balancer, ClientFlow, Cost, Explained, NatTimeouts, ServiceStats,
    Services, SourceStats, Ticked, host::HostTables,
};

use crate::{error::TableError, sys::lb::BalancerTables};

/// The balancer, in the kernel or here.
#[derive(Debug)]
pub(super) enum Tables {
    Kernel(Box<Balancer<BalancerTables>>),
    Host(Box<Balancer<HostTables>>),
}

fn never<T>(result: Result<T, Infallible>) -> T {
    let Ok(value) = result;
    value
}

/// Over both kinds of tables, whose errors differ.
macro_rules! either {
    ($tables:expr, $balancer:ident => $do:expr) => {
        match $tables {
            Tables::Kernel($balancer) => $do,
            Tables::Host($balancer) => $do,
        }
    };
}

impl Tables {
    pub(super) fn apply(
        &mut self,
        services: &Services,
        time: Duration,
    ) -> Result<Applied, ApplyError<TableError>> {
        match self {
            Self::Kernel(balancer) => {
                balancer.apply(services, time).map_err(|error| error.map_store(TableError))
            }
            Self::Host(balancer) => balancer
                .apply(services, time)
                .map_err(|error| error.map_store(|never: Infallible| match never {})),
        }
    }

    pub(super) fn set_nat_timeouts(&mut self, timeouts: NatTimeouts) {
        either!(self, balancer => balancer.set_nat_timeouts(timeouts));
    }

    pub(super) fn tick(&mut self, time: Duration) -> io::Result<Ticked> {
        match self {
            Self::Kernel(balancer) => balancer.tick(time),
            Self::Host(balancer) => Ok(never(balancer.tick(time))),
        }
    }

    pub(super) fn stats(&self) -> io::Result<Vec<ServiceStats>> {
        match self {
            Self::Kernel(balancer) => balancer.stats(),
            Self::Host(balancer) => Ok(never(balancer.stats())),
        }
    }

    pub(super) fn sources(&self) -> Vec<SourceStats> {
        either!(self, balancer => balancer.sources())
    }

    pub(super) fn services(&self) -> &Services {
        either!(self, balancer => balancer.services())
    }

    pub(super) fn adopted(&self) -> usize {
        either!(self, balancer => balancer.adopted())
    }

    pub(super) fn cost(&self, services: &Services) -> Cost {
        either!(self, balancer => balancer.cost(services))
    }

    pub(super) fn explain(&self, flow: &ClientFlow) -> Option<Explained> {
        either!(self, balancer => balancer.explain(flow))
    }
}

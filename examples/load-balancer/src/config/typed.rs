//! What is written, as the library has it.

use std::net::IpAddr;

use flowgate_datapath::lb::{BalancerOptions, NatOptions, Place, XdpAction};
use flowgate_services::{
    NatTimeouts, ServiceError, Services, TableSize,
    model::{self, BackendState, NextHop, ServiceOptions},
};

use super::model::{
    Action, Backend, CheckPath, Config, Dispatcher, Forwarding, Fragments, Hash, Http, Https,
    Limits, Protocol, Quic, Service, Sources, State, TcpOption, Timeouts, Uplink,
};

impl Service {
    /// As the library has it.
    #[must_use]
    pub fn typed(&self) -> model::Service {
        let protocol = match self.protocol {
            Protocol::Tcp => model::Protocol::Tcp,
            Protocol::Udp => model::Protocol::Udp,
        };
        let mut typed = model::Service::new(self.name.as_str(), protocol, self.port)
            .forwarding(match self.forwarding {
                Forwarding::Tunnel => model::Forwarding::Tunnel,
                Forwarding::Gue(gue) => model::Forwarding::Gue { port: gue.port },
                Forwarding::Layer2 => model::Forwarding::Layer2,
                Forwarding::Snat => model::Forwarding::Snat,
            })
            .options(options(self));
        typed.addresses.clone_from(&self.addresses);
        typed.sources = match self.sources.clone() {
            None => model::SourceRanges::Any,
            Some(Sources::Allow(networks)) => model::SourceRanges::Allow(networks),
            Some(Sources::Deny(networks)) => model::SourceRanges::Deny(networks),
        };
        typed.table = self.table.and_then(TableSize::new);
        typed.backends = self.backends.iter().map(Backend::typed).collect();
        typed
    }
}

impl Config {
    /// These services, with the sources that are written.
    ///
    /// # Errors
    ///
    /// They contradict themselves or each other.
    pub fn balanced(
        &self,
        services: impl IntoIterator<Item = model::Service>,
    ) -> Result<Services, ServiceError> {
        let sources = self.nat.sources.iter().copied();
        Ok(Services::new(services)?.with_nat_sources(sources))
    }
}

impl Config {
    /// How large the tables are, and what all services have in common.
    #[must_use]
    pub fn options(&self) -> BalancerOptions {
        let limits = &self.limits;
        BalancerOptions {
            frontends: limits.frontends as usize,
            slots: limits.slots as usize,
            lines: lines(limits),
            services: limits.services as usize,
            sources: limits.networks as usize,
            tracked: limits.flows as usize,
            clients: limits.clients as usize,
            longest_idle: limits.idle,
            seed: self.seed,
            uplink: self.uplink.typed(),
            nat: NatOptions {
                sources: self.nat.sources.clone(),
                places4: self.nat.places4,
                places6: self.nat.places6,
                ports: self.nat.first_port..=self.nat.last_port,
                timeouts: self.nat.timeouts.typed(),
            },
            ..BalancerOptions::default()
        }
    }
}

/// Lines in which so many backends fit, however services share them: for each of two families a service
/// takes a quarter more than it has backends, or five more, in eights.
const fn lines(limits: &Limits) -> usize {
    let backends = limits.backends as usize;
    backends + backends / 4 + 2 * 12 * limits.services as usize
}

impl Timeouts {
    /// As the library has them.
    #[must_use]
    pub fn typed(&self) -> NatTimeouts {
        let Self { opening, established, answered, closing } = *self;
        NatTimeouts { opening, established, answered, closing }
    }
}

impl Dispatcher {
    /// As the library has it.
    pub fn typed(&self) -> Place {
        let action = |action: &Action| match action {
            Action::Pass => XdpAction::Pass,
            Action::Drop => XdpAction::Drop,
            Action::Transmit => XdpAction::Transmit,
        };
        let goes_on: Vec<XdpAction> = self.goes_on.iter().map(action).collect();
        Place::default().priority(self.priority).going_on(&goes_on)
    }
}

impl Service {
    /// How its packets reach backends, without the backends.
    #[must_use]
    pub fn without_backends(&self) -> model::Service {
        Self { backends: Vec::new(), ..self.clone() }.typed()
    }

    /// Which of its addresses a backend is asked for, through a tunnel: the first of the backend's family.
    #[must_use]
    pub fn asked(&self, backend: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|one| one.is_ipv4() == backend.is_ipv4())
    }

    /// A backend that can't be asked as it is written: through its tunnel, for an address of its family.
    #[must_use]
    pub fn unasked(&self) -> Option<IpAddr> {
        let path = self.check.as_ref().and_then(|check| check.path);
        let mut backends = self.backends.iter().map(|one| one.address);
        match path {
            Some(CheckPath::Tunnel) => backends.find(|one| self.asked(*one).is_none()),
            _ => None,
        }
    }
}

fn options(service: &Service) -> ServiceOptions {
    let mut options = ServiceOptions::default();
    options.hash = match service.hash {
        Hash::Connection => model::HashMode::Connection,
        Hash::Source => model::HashMode::Source,
        Hash::Port => model::HashMode::DestinationPort,
    };
    options.idle = service.idle;
    options.affinity = service.affinity.as_ref().map(|affinity| affinity.timeout);
    options.quic = service.quic.map(|Quic { rotation, octets, ids }| model::QuicServers {
        rotation,
        octets,
        ids,
    });
    options.tcp_option =
        service.tcp_option.map(|TcpOption { kind, ids }| model::TcpServers { kind, ids });
    options.fragments = match service.fragments {
        Fragments::Drop => model::Fragments::Drop,
        Fragments::Track => model::Fragments::Track,
    };
    options
}

impl Backend {
    /// As the library has it.
    #[must_use]
    pub fn typed(&self) -> model::Backend {
        let mut typed =
            model::Backend::new(self.address).weight(self.weight).state(match self.state {
                State::Active => BackendState::Active,
                State::Drain => BackendState::Draining,
            });
        typed.next_hop = self.mac.map_or(NextHop::Gateway, |mac| NextHop::Mac(mac.0));
        typed.mtu = self.mtu;
        typed.port = self.port.unwrap_or_default();
        typed.server_id = self.server_id;
        typed
    }
}

impl Uplink {
    /// As the library has it.
    #[must_use]
    pub fn typed(&self) -> flowgate_services::Uplink {
        flowgate_services::Uplink {
            gateway: self.gateway.map(|mac| mac.0),
            source4: self.source4,
            source6: self.source6,
            mtu: self.mtu,
        }
    }
}

impl Https {
    /// The request without its encryption.
    #[must_use]
    pub fn plain(&self) -> Http {
        Http {
            path: self.path.clone(),
            host: Some(self.host.clone()),
            least_status: self.least_status,
            most_status: self.most_status,
        }
    }
}

//! What the balancer answers to requests of the admin API.

use std::{collections::HashMap, time::Instant};

use flowgate_services::{
    ConnectionId,
    model::{BackendState, Forwarding},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    api::{Reply, Request, answer},
    balancer::{Balancer, Refused},
    capture::hex,
    config::model::{Protocol, State},
    health::{Health, Target},
    metrics::Measured,
    plane::{Flow, Plane, PlaneError, Sampling, SourceCounts},
};

impl<P: Plane> Balancer<P> {
    /// Answers, except for [`Request::Reload`]: reading files is the caller's.
    pub fn respond(&mut self, request: &Request, now: Instant) -> Reply<Value> {
        let answered = match request {
            Request::Status => self.status(now).map(value),
            Request::Services => Ok(value(self.services())),
            Request::Backends { service } => Ok(value(self.backends(service.as_deref(), now))),
            Request::Stats => self.stats(now).map(value),
            Request::Flows => self.flows().map(value),
            Request::Explain { client, service, protocol, quic_connection_id, server_id } => {
                let (client, service, protocol, server_id) =
                    (*client, *service, *protocol, *server_id);
                let quic = quic_connection_id.as_deref().map(connection_id).transpose();
                let flow = quic.map(|quic| Flow { client, service, protocol, quic, server_id });
                flow.and_then(|flow| self.explain(&flow)).map(value)
            }
            Request::Simulate { frames } => self.simulate(frames).map(value),
            Request::Sample { every, snaplen } => {
                self.sample(Sampling { every: *every, snaplen: *snaplen as usize }, now).map(value)
            }
            Request::Samples => self.samples(now).map(value),
            Request::Unsample => self.unsample().map(value),
            Request::Reload => Err("only the program that reads the file can do that".into()),
            change => self.alter(change, now).map(value).map_err(Into::into),
        };
        answered.map_or_else(|error| Reply::Error(error.to_string()), Reply::Ok)
    }

    /// What metrics are made of.
    ///
    /// # Errors
    ///
    /// The plane can't be read.
    pub fn measured(&self, now: Instant) -> Result<Measured, PlaneError> {
        let (counts, backends) = (self.plane.counts()?, self.backends(None, now));
        Ok(Measured { counts, backends, refused: self.refused.is_some() })
    }

    fn alter(&mut self, request: &Request, now: Instant) -> Result<answer::Done, Refused> {
        let desired = &self.desired;
        let changed = match request {
            Request::Drain { service, backend } => {
                desired.with_state(service, *backend, State::Drain)
            }
            Request::Undrain { service, backend } => {
                desired.with_state(service, *backend, State::Active)
            }
            Request::Add { service, backend } => desired.with_backend(service, backend.clone()),
            Request::Remove { service, backend } => desired.without_backend(service, *backend),
            _ => Ok(desired.clone()),
        }?;
        let said = crate::differences::between(desired, &changed);
        if !said.is_empty() {
            self.change(changed, now)?;
        }
        Ok(answer::Done { changed: said })
    }

    fn status(&self, now: Instant) -> Result<answer::Status, PlaneError> {
        let states = self.checks.states();
        let services = self.desired.services(|_| Health::Up);
        Ok(answer::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: (now - self.begun).as_secs(),
            config: self.source.clone(),
            refused: self.refused.clone(),
            interfaces: self.interfaces.iter().map(|one| self.as_it_is(one)).collect(),
            changes: self.desired.changes().describe().collect(),
            services: services.len(),
            backends: services.iter().map(|service| service.backends.len()).sum(),
            down: states.filter(|(_, state)| state.health == Health::Down).count(),
            dropped: self.plane.counts()?.drops.iter().map(|(_, packets)| packets).sum(),
        })
    }

    fn as_it_is(&self, interface: &answer::Attached) -> answer::Attached {
        let notice = self.plane.notice(&interface.name);
        answer::Attached { notice, ..interface.clone() }
    }

    fn services(&self) -> Vec<answer::Service> {
        let services = self.desired.services(|target| self.health(target));
        let protocols: HashMap<String, Protocol> =
            self.desired.written().map(|one| (one.name, one.protocol)).collect();
        let service = |typed: &flowgate_services::model::Service| {
            let active =
                |one: &&flowgate_services::model::Backend| one.state == BackendState::Active;
            answer::Service {
                name: typed.name.to_string(),
                addresses: typed.addresses.clone(),
                protocol: protocols[typed.name.as_str()],
                port: typed.port,
                forwarding: forwarding(typed.forwarding).to_owned(),
                slots: typed.slots().slots(),
                backends: typed.backends.len(),
                active: typed.backends.iter().filter(active).count(),
            }
        };
        services.iter().map(|typed| service(typed)).collect()
    }

    fn backends(&self, of: Option<&str>, now: Instant) -> Vec<answer::Backend> {
        let services = self.desired.services(|target| self.health(target));
        let wanted = services.iter().filter(|one| of.is_none_or(|name| one.name.as_str() == name));
        let backend = |service: &flowgate_services::model::Service,
                       one: &flowgate_services::model::Backend| {
            let target = Target { service: service.name.clone(), backend: one.address };
            let checked = self.checks.state(&target);
            let since = checked.as_ref().and_then(|state| state.since);
            answer::Backend {
                service: service.name.to_string(),
                address: one.address,
                weight: one.weight,
                state: state(one.state).to_owned(),
                health: checked.as_ref().map(|state| state.health),
                since: since.map(|since| (now - since).as_secs()),
                failure: checked.and_then(|state| state.failure).map(|failure| failure.to_string()),
            }
        };
        wanted
            .flat_map(|service| service.backends.iter().map(|one| backend(service, one)))
            .collect()
    }

    fn stats(&self, now: Instant) -> Result<answer::Stats, PlaneError> {
        let counts = self.plane.counts()?;
        let each = counts.services.iter().flat_map(|service| {
            service.backends.iter().map(|backend| answer::Counted {
                service: service.name.to_string(),
                backend: backend.address,
                packets: backend.packets,
                bytes: backend.bytes,
                opened: backend.opened,
            })
        });
        let drops = counts.drops.iter().filter(|(_, packets)| *packets > 0);
        Ok(answer::Stats {
            at: u64::try_from((now - self.begun).as_millis()).unwrap_or(u64::MAX),
            backends: each.collect(),
            drops: drops
                .map(|(reason, packets)| answer::Dropped {
                    reason: reason.clone(),
                    packets: *packets,
                })
                .collect(),
            sources: counts.sources.iter().copied().map(source).collect(),
        })
    }

    fn flows(&self) -> Result<Vec<answer::Flows>, PlaneError> {
        let counts = self.plane.counts()?;
        let flows = counts.services.iter().map(|service| answer::Flows {
            service: service.name.to_string(),
            slots: service.slots,
            moving_slots: service.moving_slots,
            pending_slots: service.pending_slots,
            tracked: service.tracked,
            refused: service.refused,
        });
        Ok(flows.collect())
    }

    fn explain(&self, flow: &Flow) -> Result<answer::Explained, PlaneError> {
        let (client, service) = (flow.client.ip(), flow.service.ip());
        if client.is_ipv4() != service.is_ipv4() {
            return Err(format!("{client} and {service} are of different families").into());
        }
        let Some(explained) = self.plane.explain(flow)? else {
            return Err(format!("no service has {}", flow.service).into());
        };
        Ok(answer::Explained {
            service: explained.service.to_string(),
            slot: explained.slot,
            backend: explained.backend,
            translated: explained
                .translated
                .map(|(source, destination)| answer::Translated { source, destination }),
            named: explained.named,
            why: explained.why,
        })
    }

    fn simulate(&mut self, frames: &[String]) -> Result<Vec<answer::Simulated>, PlaneError> {
        let one = |frame: &String| {
            let simulated = self.plane.simulate(&hex::bytes(frame)?)?;
            Ok(answer::Simulated {
                verdict: simulated.verdict,
                reason: simulated.reason,
                backend: simulated.backend,
                frame: hex::digits(&simulated.frame),
            })
        };
        frames.iter().map(one).collect()
    }

    fn health(&self, target: &Target) -> Health {
        self.checks.state(target).map_or(Health::Unknown, |state| state.health)
    }
}

fn connection_id(digits: &str) -> Result<ConnectionId, PlaneError> {
    let id = ConnectionId::new(&hex::bytes(digits)?);
    id.ok_or_else(|| format!("a connection id has up to {} octets", ConnectionId::MOST).into())
}

fn value(answer: impl Serialize) -> Value {
    serde_json::to_value(answer).expect("answers are plain data")
}

const fn source(counts: SourceCounts) -> answer::Source {
    let SourceCounts { address, retired, ports, taken } = counts;
    answer::Source { source: address, retired, ports, taken }
}

const fn state(state: BackendState) -> &'static str {
    match state {
        BackendState::Active => "active",
        BackendState::Draining => "draining",
        BackendState::Quarantined => "quarantined",
        BackendState::Terminating => "terminating",
        _ => "another",
    }
}

const fn forwarding(forwarding: Forwarding) -> &'static str {
    match forwarding {
        Forwarding::Tunnel => "tunnel",
        Forwarding::Gue { .. } => "gue",
        Forwarding::Layer2 => "layer2",
        Forwarding::Snat => "snat",
        _ => "another",
    }
}

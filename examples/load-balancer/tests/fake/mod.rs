//! A plane that notes what it is told, and refuses at will.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use flowgate_lb::{
    api::answer::{Named, Notice},
    capture::Frame,
    config::model::Interface,
    plane::{
        BackendCounts, Counts, Explained, Flow, Plane, PlaneError, Running, Sampled, Samples,
        Sampling, ServiceCounts, Simulated,
    },
};
use flowgate_services::{NatTimeouts, Services, model::BackendState};

/// What it was told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) services: Services,
    pub(crate) interfaces: BTreeMap<String, String>,
    pub(crate) applied: usize,
    pub(crate) sampling: Option<Sampling>,
    /// Since the start: none.
    pub(crate) nat_timeouts: Option<NatTimeouts>,
    /// What it refuses: an interface, `apply` or `sample`.
    pub(crate) refuses: Option<String>,
}

impl Told {
    fn refusal(&self, what: &str) -> Result<(), PlaneError> {
        match self.refuses.as_deref() == Some(what) {
            true => Err(format!("{what} is refused").into()),
            false => Ok(()),
        }
    }
}

/// Shared with the test.
#[derive(Clone, Default)]
pub(crate) struct Fake(pub(crate) Rc<RefCell<Told>>);

impl Fake {
    /// The states of a service's backends, by the last number of their addresses.
    #[allow(dead_code, reason = "each test target uses a part of it")]
    pub(crate) fn states(&self, service: &str) -> Vec<(u8, BackendState)> {
        let told = self.0.borrow();
        let service = told.services.get(&service.into()).expect("it was applied");
        let last = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(address) => address.octets()[3],
            std::net::IpAddr::V6(address) => address.octets()[15],
        };
        service.backends.iter().map(|one| (last(one.address), one.state)).collect()
    }
}

impl Plane for Fake {
    fn attach(&mut self, interface: &Interface) -> Result<Running, PlaneError> {
        let mut told = self.0.borrow_mut();
        told.refusal(&interface.name)?;
        let mode = format!("{:?}", interface.mode).to_lowercase();
        told.interfaces.insert(interface.name.clone(), mode.clone());
        Ok(Running { mode, dispatcher: None })
    }

    fn notice(&self, interface: &str) -> Option<Notice> {
        let told = self.0.borrow();
        (told.interfaces.get(interface)? == "native").then_some(Notice::VethPeer { dropped: 3 })
    }

    fn detach(&mut self, interface: &str) -> Result<(), PlaneError> {
        self.0.borrow_mut().interfaces.remove(interface);
        Ok(())
    }

    fn apply(&mut self, services: &Services, _: Instant) -> Result<Option<String>, PlaneError> {
        let mut told = self.0.borrow_mut();
        told.refusal("apply")?;
        told.services = services.clone();
        told.applied += 1;
        Ok(Some("applied".into()))
    }

    fn set_nat_timeouts(&mut self, timeouts: NatTimeouts) {
        self.0.borrow_mut().nat_timeouts = Some(timeouts);
    }

    fn tick(&mut self, _: Instant) -> Result<Duration, PlaneError> {
        Ok(Duration::from_secs(3600))
    }

    fn counts(&self) -> Result<Counts, PlaneError> {
        let told = self.0.borrow();
        let services = told.services.iter().map(|service| ServiceCounts {
            name: service.name.clone(),
            slots: service.slots().slots(),
            moving_slots: 0,
            pending_slots: 0,
            tracked: 0,
            refused: 0,
            pinned: 0,
            backends: service
                .backends
                .iter()
                .map(|one| BackendCounts {
                    address: one.address,
                    packets: 1,
                    bytes: 60,
                    opened: 1,
                    remembered: 0,
                })
                .collect(),
        });
        Ok(Counts {
            services: services.collect(),
            drops: vec![("no backend".into(), 3)],
            sources: Vec::new(),
            unpinned: 0,
            quic: [("named", 5), ("opening", 1), ("unknown", 0)],
            tcp: [("named", 7), ("unnamed", 2), ("unknown", 0)],
        })
    }

    fn explain(&self, flow: &Flow) -> Result<Option<Explained>, PlaneError> {
        let told = self.0.borrow();
        let found = told.services.iter().find(|one| one.addresses.contains(&flow.service.ip()));
        Ok(found.map(|service| Explained {
            service: service.name.clone(),
            slot: 7,
            backend: service.backends.first().map(|one| one.address),
            translated: None,
            named: flow.quic.map(|_| Named::Nobody { server_id: 11 }),
            why: "its slot's".into(),
        }))
    }

    fn sample(&mut self, sampling: Option<Sampling>) -> Result<(), PlaneError> {
        let mut told = self.0.borrow_mut();
        told.refusal("sample")?;
        told.sampling = sampling;
        Ok(())
    }

    fn samples(&mut self, _: usize) -> Result<Samples, PlaneError> {
        if self.0.borrow().sampling.is_none() {
            return Err("no frames are sampled".into());
        }
        let sampled = Sampled {
            time: UNIX_EPOCH + Duration::from_micros(1_000_002),
            interface: "eth0".into(),
            action: Some(3),
            verdict: "forwarded".into(),
            service: Some("web".into()),
            backend: Some("198.18.0.11".parse()?),
            frame: Frame { bytes: vec![0x0a, 0x0b], length: 60 },
        };
        Ok(Samples { frames: vec![sampled], lost: 7 })
    }

    fn simulate(&mut self, frame: &[u8]) -> Result<Simulated, PlaneError> {
        let reason = (frame.len() < 14).then(|| "too short".to_owned());
        let verdict = if reason.is_some() { "dropped" } else { "passed" }.to_owned();
        Ok(Simulated { verdict, reason, backend: None, frame: frame.to_vec() })
    }
}

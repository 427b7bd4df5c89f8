//! What happens, step by step.

use std::time::Instant;

use super::{
    DemoError,
    load::Load,
    report::{Report, Step},
    stage::{NAMES, Stage},
};
use crate::{
    api::{
        Request,
        answer::{Backend, Done, Flows},
        client::ClientError,
    },
    config::{Mac, model},
    health::Health,
};

const SERVICE: &str = "web";
const KILLED: usize = 0;
const DRAINED: usize = 1;
const ADDED: usize = 3;

/// Plays everything; each step lasts for so many requests at least.
pub(super) fn play(stage: Stage, requests: usize) -> Result<Report, DemoError> {
    let mut play = Play::begin(stage, requests)?;
    play.step("three backends", |_| Ok(()))?;
    play.step("one is killed", Play::kill)?;
    play.step("one is drained", Play::drain)?;
    play.step("one is added", Play::add)?;
    play.step("the balancer is killed", |play| play.stage.kill_balancer())?;
    play.step("and started again", |play| play.stage.start_balancer())?;
    Ok(play.end())
}

struct Play {
    stage: Stage,
    load: Load,
    requests: usize,
    steps: Vec<(Step, usize)>,
    /// When the balancer had taken the killed backend out.
    taken_out: Option<Instant>,
}

impl Play {
    fn begin(mut stage: Stage, requests: usize) -> Result<Self, DemoError> {
        stage.wait("the backends don't serve", || {
            let open = |one: &super::stage::Backend| {
                let to = one.socket();
                stage.client.run(|| std::net::TcpStream::connect(to).is_ok()).unwrap_or(false)
            };
            stage.backends.iter().all(open)
        })?;
        stage.start_balancer()?;
        wait_for_health(&stage, NAMES[..3].len(), Health::Up)?;
        let load = Load::start(&stage.client)?;
        Ok(Self { stage, load, requests, steps: Vec::new(), taken_out: None })
    }

    /// Does something, and waits for requests under its effect.
    fn step(
        &mut self,
        name: &'static str,
        action: impl FnOnce(&mut Self) -> Result<(), DemoError>,
    ) -> Result<(), DemoError> {
        self.steps.push((Step { name }, self.load.count()));
        action(self)?;
        let enough = self.load.count() + self.requests;
        self.stage.wait("requests aren't answered any more", || self.load.count() >= enough)
    }

    fn kill(&mut self) -> Result<(), DemoError> {
        self.stage.kill_backend(KILLED)?;
        wait_for_health(&self.stage, 1, Health::Down)?;
        self.taken_out = Some(Instant::now());
        Ok(())
    }

    fn drain(&mut self) -> Result<(), DemoError> {
        let backend = self.stage.backends[DRAINED].address();
        self.stage.api()?.ask::<Done>(&Request::Drain { service: SERVICE.into(), backend })?;
        self.settle()
    }

    fn add(&mut self) -> Result<(), DemoError> {
        let added = &self.stage.backends[ADDED];
        let backend = model::Backend {
            address: added.address(),
            port: None,
            weight: 1,
            state: model::State::Active,
            mac: Some(Mac(added.host.mac().0)),
            mtu: None,
            server_id: None,
        };
        self.stage.api()?.ask::<Done>(&Request::Add { service: SERVICE.into(), backend })?;
        self.settle()
    }

    /// Waits until new flows go where they should. Old ones are remembered for minutes after that.
    fn settle(&self) -> Result<(), DemoError> {
        let mut api = self.stage.api()?;
        self.stage.wait("new flows don't go where they should", || {
            let flows: Result<Vec<Flows>, ClientError> = api.ask(&Request::Flows);
            flows.is_ok_and(|flows| flows.iter().all(|one| one.pending_slots == 0))
        })
    }

    fn end(self) -> Report {
        let Self { steps, load, taken_out, stage, .. } = self;
        let records = load.stop();
        drop(stage);
        Report::new(steps, records, (NAMES[KILLED], taken_out))
    }
}

/// Waits until so many backends are in this health.
fn wait_for_health(stage: &Stage, count: usize, health: Health) -> Result<(), DemoError> {
    let mut api = stage.api()?;
    stage.wait("the checks don't find out how backends are", || {
        let all: Result<Vec<Backend>, ClientError> = api.ask(&Request::Backends { service: None });
        all.is_ok_and(|all| all.iter().filter(|one| one.health == Some(health)).count() == count)
    })
}

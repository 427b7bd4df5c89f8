//! The running balancer: what is desired, what checks say, and the plane that does it.
//!
//! It is told what happens ([`Balancer::reload`], [`Balancer::checked`], [`Balancer::tick`], requests in
//! `respond`) and when; it waits for nothing and opens no socket. [`crate::daemon`] drives it.
//!
//! Invariant: whatever fails leaves what ran before, in the plane as well as here. Tested without time and
//! privileges in `tests/balancer.rs`.

use std::time::{Duration, Instant};

use thiserror::Error;
use tracing::{info, warn};

use flowgate_datapath::health::Checks as TunnelChecks;

use crate::{
    api::answer::Attached,
    config::{Checked, model::Config},
    desired::{ChangeError, Desired},
    health::{Change, Checks, Health, Job, Target, probe::Failure},
    plane::{Plane, PlaneError, Running},
    sampling::Lease,
    saved::Saved,
};

/// After a plane that failed to tick, this long until the next attempt.
const RETRY: Duration = Duration::from_secs(1);

/// Why something wasn't done.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum Refused {
    /// A field that is fixed while the program runs.
    #[error("`{0}` is fixed while flowgate-lb runs: restart it")]
    Fixed(&'static str),
    /// An interface refuses, which its reason names.
    #[error("{0}")]
    Interface(#[source] PlaneError),
    /// A change that contradicts something.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The load balancer refuses.
    #[error("{0}")]
    Plane(#[source] PlaneError),
}

/// With what a balancer begins.
#[derive(Debug)]
pub struct Start<'a> {
    /// What the configuration is called.
    pub source: &'a str,
    /// The configuration.
    pub checked: Checked,
    /// What an earlier process saved; carried on if it belongs to the same configuration.
    pub saved: Option<Saved>,
    /// For the intervals of checks.
    pub seed: u64,
}

/// The running balancer.
#[derive(Debug)]
pub struct Balancer<P> {
    pub(crate) plane: P,
    pub(crate) desired: Desired,
    pub(crate) checks: Checks,
    pub(crate) interfaces: Vec<Attached>,
    pub(crate) begun: Instant,
    /// What errors and operators call the configuration.
    pub(crate) source: String,
    /// Why the file wasn't taken over when it was last read.
    pub(crate) refused: Option<String>,
    next_tick: Instant,
    pub(crate) sampling: Lease,
}

impl<P: Plane> Balancer<P> {
    /// Begins: attaches and applies.
    ///
    /// # Errors
    ///
    /// An interface or the plane refuses.
    pub fn start(
        mut plane: P,
        Start { source, checked, saved, seed }: Start<'_>,
        now: Instant,
    ) -> Result<Self, Refused> {
        let desired = Desired::new(checked);
        let (desired, down) = resume(desired, saved);
        let mut interfaces = Vec::new();
        for interface in &desired.file().interfaces {
            interfaces.push(attach(&mut plane, interface)?);
        }
        let mut balancer = Self {
            plane,
            desired,
            checks: Checks::new(seed),
            interfaces,
            begun: now,
            source: source.to_owned(),
            refused: None,
            next_tick: now,
            sampling: Lease::default(),
        };
        let known = |target: &Target| match down.contains(target) {
            true => Health::Down,
            false => Health::Unknown,
        };
        balancer.checks.replace(balancer.desired.plans(), known, now);
        apply((&mut balancer.plane, &balancer.checks), &balancer.desired, now)?;
        Ok(balancer)
    }

    /// Takes over another configuration, and drops what operators changed. What changes, in words.
    ///
    /// # Errors
    ///
    /// It can't be taken over; the old one runs on.
    pub fn reload(&mut self, checked: Checked, now: Instant) -> Result<Vec<String>, Refused> {
        fixed(self.desired.file(), &checked.config)?;
        let desired = Desired::new(checked);
        let mut said: Vec<String> =
            self.desired.changes().describe().map(|change| format!("undone: {change}")).collect();
        let attached = self.attach_added(desired.file())?;
        if let Err(error) = self.apply(&desired, now) {
            self.take_back(&attached);
            return Err(error);
        }
        self.plane.set_nat_timeouts(desired.file().nat.timeouts.typed());
        said.extend(crate::differences::between(&self.desired, &desired));
        self.desired = desired;
        self.detach_others(attached, &mut said);
        self.checks.replace(self.desired.plans(), |_| Health::Unknown, now);
        self.refused = None;
        Ok(said)
    }

    /// Replaces what is desired by a changed one.
    ///
    /// # Errors
    ///
    /// The plane refuses; what was desired before is still in force.
    pub(crate) fn change(&mut self, desired: Desired, now: Instant) -> Result<(), Refused> {
        self.apply(&desired, now)?;
        self.desired = desired;
        self.checks.replace(self.desired.plans(), |_| Health::Unknown, now);
        Ok(())
    }

    /// Takes the result of a check.
    pub fn checked(
        &mut self,
        job: (&Target, u64),
        result: Result<(), Failure>,
        now: Instant,
    ) -> bool {
        let Some(change) = self.checks.finished(job, result, now) else { return false };
        tell(&change);
        // Only a failing plane refuses states; the next change tries again.
        if let Err(error) = apply((&mut self.plane, &self.checks), &self.desired, now) {
            warn!(%error, "the change of a backend's health can't be applied");
        }
        self.next_tick = now;
        true
    }

    /// The checks that are to be made now.
    pub fn due(&mut self, now: Instant) -> Vec<Job> {
        self.checks.due(now)
    }

    /// What a job's check goes through; `None`: it goes directly.
    ///
    /// # Errors
    ///
    /// There is no way through a tunnel: the check has failed.
    pub fn tunnels(&mut self, job: &Job) -> Result<Option<TunnelChecks>, Failure> {
        if job.plan.tunnel.is_none() {
            return Ok(None);
        }
        let checks = self.plane.checks();
        checks.map(Some).map_err(|error| Failure::NoTunnel(error.to_string()))
    }

    /// Has time pass, if it is time.
    pub fn tick(&mut self, now: Instant) {
        self.end_unread(now);
        if now < self.next_tick {
            return;
        }
        let wait = self.plane.tick(now).unwrap_or_else(|error| {
            warn!(%error, "the load balancer can't be driven");
            RETRY
        });
        self.next_tick = now + wait;
    }

    /// When [`Balancer::tick`] or [`Balancer::due`] has something to do.
    #[must_use]
    pub fn next(&self) -> Instant {
        let due = [self.checks.next(), self.sampling.end()].into_iter().flatten();
        due.fold(self.next_tick, Instant::min)
    }

    /// The configuration that is in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.desired.file()
    }

    /// Notes why the file isn't taken over; `None`: it is.
    pub fn refuse(&mut self, why: Option<String>) {
        if why.is_none() && self.refused.is_some() {
            info!("the file is right again, and says what runs");
        }
        self.refused = why;
    }

    /// The plane, still running.
    #[must_use]
    pub fn into_plane(self) -> P {
        self.plane
    }

    /// What is to survive this process.
    #[must_use]
    pub fn saved(&self) -> Saved {
        let down = self.checks.states().filter(|(_, state)| state.health == Health::Down);
        Saved {
            config: self.desired.file().clone(),
            changes: self.desired.changes().clone(),
            down: down.map(|(target, _)| (target.service.to_string(), target.backend)).collect(),
        }
    }

    /// Has the plane do what is desired; what is desired isn't changed.
    fn apply(&mut self, desired: &Desired, now: Instant) -> Result<(), Refused> {
        apply((&mut self.plane, &self.checks), desired, now)?;
        self.next_tick = now;
        Ok(())
    }

    /// Attaches what the new file says otherwise than the running one; all of it, or nothing.
    fn attach_added(&mut self, new: &Config) -> Result<Vec<Attached>, Refused> {
        let running = self.desired.file().interfaces.clone();
        let mut attached = Vec::new();
        for interface in new.interfaces.iter().filter(|one| !running.contains(one)) {
            match attach(&mut self.plane, interface) {
                Ok(done) => attached.push(done),
                Err(error) => {
                    self.take_back(&attached);
                    return Err(error);
                }
            }
        }
        Ok(attached)
    }

    /// After a reload that failed.
    fn take_back(&mut self, attached: &[Attached]) {
        for interface in attached {
            let before =
                self.desired.file().interfaces.iter().find(|one| one.name == interface.name);
            let undone = match before {
                Some(before) => self.plane.attach(before).map(drop),
                None => self.plane.detach(&interface.name),
            };
            if let Err(error) = undone {
                warn!(interface = interface.name, %error, "can't be put back as it was");
            }
        }
    }

    fn detach_others(&mut self, attached: Vec<Attached>, said: &mut Vec<String>) {
        let wanted = |name: &str| self.desired.file().interfaces.iter().any(|one| one.name == name);
        let (kept, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.interfaces).into_iter().partition(|one| wanted(&one.name));
        for interface in left {
            said.push(format!("interface {} left", interface.name));
            if let Err(error) = self.plane.detach(&interface.name) {
                warn!(interface = interface.name, %error, "can't be detached");
            }
        }
        let again = |one: &Attached| attached.iter().any(|new| new.name == one.name);
        self.interfaces = kept.into_iter().filter(|one| !again(one)).collect();
        said.extend(attached.iter().map(ToString::to_string));
        self.interfaces.extend(attached);
    }
}

/// What was saved for the same configuration.
fn resume(desired: Desired, saved: Option<Saved>) -> (Desired, Vec<Target>) {
    let Some(saved) = saved else { return (desired, Vec::new()) };
    if saved.config != *desired.file() {
        for change in saved.changes.describe() {
            warn!("the configuration is another one: undone: {change}");
        }
        return (desired, Vec::new());
    }
    let target = |(service, backend): (String, _)| Target { service: service.into(), backend };
    let down = saved.down.into_iter().map(target).collect();
    match desired.with_changes(saved.changes) {
        Ok(changed) => (changed, down),
        Err(error) => {
            warn!(%error, "what operators changed can't be carried on");
            (desired, down)
        }
    }
}

fn apply<P: Plane>(
    (plane, checks): (&mut P, &Checks),
    desired: &Desired,
    now: Instant,
) -> Result<(), Refused> {
    let health =
        |target: &Target| checks.state(target).map_or(Health::Unknown, |state| state.health);
    let services = desired.services(health);
    if let Some(applied) = plane.apply(&services, now).map_err(Refused::Plane)? {
        info!(services = services.len(), "{applied}");
    }
    Ok(())
}

fn attach<P: Plane>(
    plane: &mut P,
    interface: &crate::config::model::Interface,
) -> Result<Attached, Refused> {
    let name = interface.name.clone();
    let Running { mode, dispatcher } = plane.attach(interface).map_err(Refused::Interface)?;
    let attached = Attached { notice: plane.notice(&name), name, mode, dispatcher };
    info!("attached: {attached}");
    if let Some(notice) = attached.notice {
        warn!(interface = attached.name, "{notice}");
    }
    Ok(attached)
}

fn fixed(old: &Config, new: &Config) -> Result<(), Refused> {
    let fields = [
        ("namespace", old.namespace == new.namespace),
        ("directory", old.directory == new.directory),
        ("pin", old.pin == new.pin),
        ("dispatcher", old.dispatcher == new.dispatcher),
        ("seed", old.seed == new.seed),
        ("limits", old.limits == new.limits),
        ("uplink", old.uplink == new.uplink),
        ("nat.first_port", old.nat.first_port == new.nat.first_port),
        ("nat.last_port", old.nat.last_port == new.nat.last_port),
        ("nat.places4", old.nat.places4 == new.nat.places4),
        ("nat.places6", old.nat.places6 == new.nat.places6),
    ];
    match fields.into_iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(Refused::Fixed(field)),
        None => Ok(()),
    }
}

fn tell(change: &Change) {
    let Target { service, backend } = &change.target;
    match &change.failure {
        Some(failure) => warn!(%service, %backend, "fails its checks: {failure}"),
        None => info!(%service, %backend, "succeeds in its checks"),
    }
}

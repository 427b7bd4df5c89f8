//! Who is to be asked when, and what is known of whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{Health, Plan, Target, Threshold, probe::Failure};

/// All checks. See the module for its contract.
#[derive(Debug)]
pub struct Checks {
    entries: BTreeMap<Target, Entry>,
    /// Those that aren't under way, by when they are due.
    queue: BTreeSet<(Instant, Target)>,
    /// Sequence of chance: the state of a linear generator (`SplitMix64`).
    chance: u64,
    jobs_made: u64,
}

/// A check that is to be made now.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Whose.
    pub target: Target,
    /// How.
    pub plan: Plan,
    /// Names the job: its result is for the plan of that time.
    pub number: u64,
}

/// Somebody is taken for something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who.
    pub target: Target,
    /// For what.
    pub health: Health,
    /// Why, if it fails.
    pub failure: Option<Failure>,
}

/// What is known of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// How it is.
    pub health: Health,
    /// Since when; `None`: since before the process began.
    pub since: Option<Instant>,
    /// What was wrong with the last check.
    pub failure: Option<Failure>,
}

#[derive(Debug)]
struct Entry {
    plan: Plan,
    threshold: Threshold,
    since: Option<Instant>,
    failure: Option<Failure>,
    next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Due(Instant),
    Running { job: u64, begun: Instant },
}

impl Checks {
    /// None yet. Those with another seed keep other intervals.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { entries: BTreeMap::new(), queue: BTreeSet::new(), chance: seed, jobs_made: 0 }
    }

    /// Replaces what is checked. Whose plan is the same carries on; a new or changed one is due at once, and
    /// begins with what `known` says of it.
    pub fn replace(
        &mut self,
        wanted: impl IntoIterator<Item = (Target, Plan)>,
        known: impl Fn(&Target) -> Health,
        now: Instant,
    ) {
        let mut before = std::mem::take(&mut self.entries);
        self.queue.clear();
        for (target, plan) in wanted {
            let entry = match before.remove(&target) {
                Some(entry) if entry.plan == plan => entry,
                Some(entry) => entry.by(plan, now),
                None => Entry::new(plan, known(&target), now),
            };
            if let Next::Due(due) = entry.next {
                self.queue.insert((due, target.clone()));
            }
            self.entries.insert(target, entry);
        }
    }

    /// The checks that are due; they count as under way until [`Checks::finished`].
    pub fn due(&mut self, now: Instant) -> Vec<Job> {
        let mut jobs = Vec::new();
        while self.queue.first().is_some_and(|(due, _)| *due <= now) {
            let Some((_, target)) = self.queue.pop_first() else { break };
            let Some(entry) = self.entries.get_mut(&target) else { continue };
            self.jobs_made += 1;
            entry.next = Next::Running { job: self.jobs_made, begun: now };
            jobs.push(Job { target, plan: entry.plan.clone(), number: self.jobs_made });
        }
        jobs
    }

    /// When the next check is due, unless all are under way.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// Takes a result; says whether it changes what somebody is taken for.
    pub fn finished(
        &mut self,
        (target, number): (&Target, u64),
        result: Result<(), Failure>,
        now: Instant,
    ) -> Option<Change> {
        let entry = self.entries.get_mut(target)?;
        let Next::Running { job, begun } = entry.next else { return None };
        if job != number {
            return None;
        }
        let wait = jittered(entry.plan.check.interval, entry.plan.check.jitter, &mut self.chance);
        // Time that the check took isn't waited for again.
        let due = (begun + wait).max(now);
        entry.next = Next::Due(due);
        self.queue.insert((due, target.clone()));
        let health = entry.threshold.result(result.is_ok());
        entry.failure = result.err();
        let health = health?;
        entry.since = Some(now);
        Some(Change { target: target.clone(), health, failure: entry.failure.clone() })
    }

    /// What is known of somebody; `None`: it isn't checked.
    #[must_use]
    pub fn state(&self, target: &Target) -> Option<State> {
        self.entries.get(target).map(Entry::state)
    }

    /// Everybody who is checked.
    pub fn states(&self) -> impl Iterator<Item = (&Target, State)> {
        self.entries.iter().map(|(target, entry)| (target, entry.state()))
    }
}

impl Entry {
    fn new(plan: Plan, health: Health, now: Instant) -> Self {
        let threshold = Threshold::new(health, plan.check.rise, plan.check.fall);
        Self { plan, threshold, since: None, failure: None, next: Next::Due(now) }
    }

    /// Asked otherwise from now on; what is known of it stays.
    fn by(self, plan: Plan, now: Instant) -> Self {
        let Self { threshold, since, failure, .. } = self;
        Self { since, failure, ..Self::new(plan, threshold.health(), now) }
    }

    fn state(&self) -> State {
        let health = self.threshold.health();
        State { health, since: self.since, failure: self.failure.clone() }
    }
}

/// An interval, longer or shorter by so many percent at most.
fn jittered(interval: Duration, percent: u8, chance: &mut u64) -> Duration {
    *chance = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *chance;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let fraction = f64::from((mixed >> 32) as u32) / f64::from(u32::MAX);
    interval.mul_f64(1.0 + (fraction * 2.0 - 1.0) * f64::from(percent) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Check, Probe};

    const INTERVAL: Duration = Duration::from_secs(10);

    fn plan(jitter: u8) -> Plan {
        let check = Check {
            probe: Probe::Tcp,
            port: None,
            path: None,
            interval: INTERVAL,
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 2,
            jitter,
        };
        Plan { address: "198.18.0.1:80".parse().unwrap(), tunnel: None, check }
    }

    fn target(last: u8) -> Target {
        Target { service: "web".into(), backend: [198, 18, 0, last].into() }
    }

    fn checks(now: Instant, lasts: &[u8]) -> Checks {
        let mut checks = Checks::new(1);
        let wanted = lasts.iter().map(|&last| (target(last), plan(0)));
        checks.replace(wanted, |_| Health::Unknown, now);
        checks
    }

    /// Has everything that is due answered at once.
    fn answer(checks: &mut Checks, now: Instant, good: bool) -> Vec<Change> {
        let result = || if good { Ok(()) } else { Err(Failure::TimedOut) };
        let jobs = checks.due(now);
        let changes =
            jobs.iter().filter_map(|job| checks.finished((&job.target, job.number), result(), now));
        changes.collect()
    }

    #[test]
    fn each_is_asked_once_in_an_interval() {
        let start = Instant::now();
        let mut checks = checks(start, &[1, 2]);
        assert_eq!(checks.due(start).len(), 2);
        assert_eq!((checks.due(start + INTERVAL * 9).len(), checks.next()), (0, None));
        let late = start + Duration::from_secs(3);
        assert!(checks.finished((&target(1), 1), Ok(()), late).is_some());
        assert_eq!(checks.next(), Some(start + INTERVAL));
        assert!(checks.due(start + INTERVAL - Duration::from_nanos(1)).is_empty());
        let jobs = checks.due(start + INTERVAL);
        assert_eq!(jobs.iter().map(|job| &job.target).collect::<Vec<_>>(), [&target(1)]);
    }

    #[test]
    fn what_took_longer_than_the_interval_is_due_at_once() {
        let start = Instant::now();
        let mut checks = checks(start, &[1]);
        checks.due(start);
        let late = start + INTERVAL * 3;
        checks.finished((&target(1), 1), Ok(()), late);
        assert_eq!(checks.next(), Some(late));
    }

    #[test]
    fn changes_are_told_once_with_the_reason() {
        let start = Instant::now();
        let mut checks = checks(start, &[1]);
        let mut changes = Vec::new();
        for (round, good) in (0..).zip([true, true, false, false, false, true, true]) {
            let now = start + INTERVAL * round;
            changes.extend(answer(&mut checks, now, good).into_iter().map(|c| (round, c.health)));
        }
        assert_eq!(changes, [(0, Health::Up), (3, Health::Down), (6, Health::Up)]);
        let state = checks.state(&target(1)).unwrap();
        assert_eq!((state.since, state.failure), (Some(start + INTERVAL * 6), None));
    }

    #[test]
    fn a_result_for_an_earlier_plan_changes_nothing() {
        let now = Instant::now();
        let mut checks = checks(now, &[1]);
        let job = checks.due(now).remove(0);
        checks.replace([(target(1), plan(1))], |_| Health::Unknown, now);
        let failed = || Err(Failure::TimedOut);
        assert_eq!(checks.finished((&job.target, job.number), failed(), now), None);
        let again = checks.due(now).remove(0);
        assert_eq!(checks.finished((&job.target, job.number), failed(), now), None);
        assert!(checks.finished((&again.target, again.number), failed(), now).is_some());
        checks.replace([], |_| Health::Unknown, now);
        assert_eq!(checks.finished((&again.target, again.number), Ok(()), now), None);
        assert_eq!(checks.state(&target(1)), None);
    }

    #[test]
    fn what_is_known_outlives_a_change_of_the_plan() {
        let now = Instant::now();
        let mut checks = checks(now, &[1]);
        answer(&mut checks, now, false);
        checks.replace([(target(1), plan(5)), (target(2), plan(5))], |_| Health::Down, now);
        let state = |last| checks.state(&target(last)).unwrap();
        assert_eq!([1, 2].map(|last| state(last).health), [Health::Down; 2]);
        assert_eq!([1, 2].map(|last| state(last).since), [Some(now), None]);
        assert_eq!([1, 2].map(|last| state(last).failure), [Some(Failure::TimedOut), None]);
    }

    #[test]
    fn intervals_differ_within_their_jitter() {
        let mut chance = 7;
        let all: Vec<Duration> = (0..1000).map(|_| jittered(INTERVAL, 10, &mut chance)).collect();
        let [least, most] =
            [all.iter().min().unwrap(), all.iter().max().unwrap()].map(Duration::as_millis);
        assert!(
            (9000..9100).contains(&least) && (10_900..=11_000).contains(&most),
            "{least} {most}"
        );
        assert!((0..9).all(|_| jittered(INTERVAL, 0, &mut chance) == INTERVAL));
    }
}

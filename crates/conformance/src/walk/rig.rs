//! The host pipeline and the reference model, side by side.

use std::{fmt, sync::Arc};

use flowgate_abi::{
    DropReason,
    event::{Counter, Hook},
};
use flowgate_pipeline::Verdict;
use flowgate_policy::{
    host::HostTables,
    install::{Installer, Store},
    plan::Plan,
};

use super::{Step, Walk};
use crate::{
    connections::{Connections, Fate, Tally, Timeouts, UNIT},
    frames::{Frame, error_about},
    trio::{Party, Rules, Trio},
};

/// Host tables with the three parties, walk after walk.
#[derive(Debug)]
pub struct Rig {
    trio: Trio,
    installer: Installer<HostTables>,
    rules: Rules,
    /// What the tables' clock says.
    now: u64,
    timeouts: Timeouts,
}

/// Where pipeline and model part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The number of the step, from 0.
    pub number: usize,
    /// The step.
    pub step: Step,
    /// What the model says.
    pub expected: String,
    /// What the pipeline did.
    pub found: String,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, step, expected, found } = self;
        write!(f, "step {number}, {step}: expected {expected}, found {found}")
    }
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}

impl Rig {
    /// Tables in which nothing has happened yet.
    #[must_use]
    pub fn new() -> Self {
        let trio = Trio::new();
        let rules = Rules::Open;
        let installer = trio.install(HostTables::for_plan(trio.widest()), rules);
        let [opening, established, closing, answered] =
            installer.store().settings().timeouts.0.map(u64::from);
        let timeouts = Timeouts { opening, established, closing, answered };
        Self { trio, installer, rules, now: clock(), timeouts }
    }

    /// The time-outs, by which waiting is measured.
    #[must_use]
    pub const fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Walks until the end, or until pipeline and model part.
    ///
    /// # Errors
    /// The first difference.
    pub fn walk(&mut self, walk: &Walk) -> Result<Tally, Divergence> {
        self.begin(walk);
        let mut model = Connections::new(self.timeouts, walk.start);
        let before = self.counted();
        for (number, &step) in walk.steps.iter().enumerate() {
            let diverged = |(expected, found)| Divergence { number, step, expected, found };
            self.step(&mut model, step).map_err(diverged)?;
            let (expected, found) = (model.tally(), difference(before, self.counted()));
            if expected != found {
                return Err(diverged((format!("{expected:?}"), format!("{found:?}"))));
            }
        }
        Ok(model.tally())
    }

    /// No flow is left, and time and rules are the walk's.
    fn begin(&mut self, walk: &Walk) {
        let Timeouts { opening, established, closing, answered } = self.timeouts;
        let longest = opening.max(established).max(closing).max(answered);
        self.set_time(self.now + (longest + 2) * UNIT);
        // The first sweep of a bucket tells of an entry, or frees it: one at a time.
        while self.installer.store().sweep() > 0 {}
        self.installer.store().take_events();
        self.set_time(walk.start);
        if self.rules != walk.rules {
            self.change(walk.rules);
        }
    }

    /// What the model expected and what was found, if they differ.
    fn step(&mut self, model: &mut Connections, step: Step) -> Result<(), (String, String)> {
        let rules = self.rules;
        let (expected, found) = match step {
            Step::Send(frame) => {
                let expected = model.packet(&frame, |flow| self.trio.allows(rules, flow));
                (expected, self.send(&frame.bytes(), frame.sender(), frame.receiver()))
            }
            Step::Report(frame) => {
                let expected = model.error(&frame, |flow| self.trio.allows(rules, flow));
                (expected, self.report(&frame))
            }
            Step::Wait(jiffies) => {
                model.wait(jiffies);
                self.set_time(self.now + jiffies);
                return Ok(());
            }
            Step::Sweep => {
                self.installer.store().sweep();
                return Ok(());
            }
            Step::Change(rules) => {
                model.rules_changed(false);
                self.change(rules);
                return Ok(());
            }
            Step::Keep(rules) => {
                model.rules_changed(true);
                self.apply(rules, self.trio.keeping_plan(rules).clone());
                return Ok(());
            }
        };
        if agree(expected, found) {
            return Ok(());
        }
        Err((format!("{expected:?}"), format!("{found:?}")))
    }

    /// By the sender's hook, if it is local.
    fn send(&self, bytes: &[u8], sender: std::net::IpAddr, receiver: std::net::IpAddr) -> Verdict {
        let (hook, ifindex) = match (Party::of(sender).ifindex(), Party::of(receiver).ifindex()) {
            (Some(sender), _) => (Hook::FromEndpoint, sender),
            (None, Some(receiver)) => (Hook::ToEndpoint, receiver),
            (None, None) => unreachable!("one end is local"),
        };
        let verdict = self.installer.store().run(bytes, ifindex, hook).verdict;
        self.installer.store().take_events();
        verdict
    }

    fn report(&self, about: &Frame) -> Verdict {
        let icmp_type = if about.sender().is_ipv4() { 3 } else { 1 };
        let bytes = error_about(about, about.receiver(), icmp_type);
        self.send(&bytes, about.receiver(), about.sender())
    }

    fn change(&mut self, rules: Rules) {
        self.apply(rules, self.trio.plan(rules).clone());
    }

    fn apply(&mut self, rules: Rules, plan: Arc<Plan>) {
        let _ = self.installer.apply(&plan).expect("the tables are sized for every plan");
        self.rules = rules;
    }

    fn set_time(&mut self, jiffies: u64) {
        self.installer.store().advance(jiffies.wrapping_sub(self.now));
        self.now = jiffies;
    }

    fn counted(&self) -> Tally {
        let counters = self.installer.store().counters();
        let of = |counter: Counter| counters[counter as usize];
        Tally {
            opened: of(Counter::FlowsNew),
            rejudged: of(Counter::FlowsRejudged),
            kept: of(Counter::FlowsKept),
            revoked: of(Counter::FlowsRevoked),
            related: of(Counter::Related),
        }
    }
}

/// What the clock of new tables says.
const fn clock() -> u64 {
    1 << 20
}

fn difference(before: Tally, after: Tally) -> Tally {
    Tally {
        opened: after.opened - before.opened,
        rejudged: after.rejudged - before.rejudged,
        kept: after.kept - before.kept,
        revoked: after.revoked - before.revoked,
        related: after.related - before.related,
    }
}

fn agree(expected: Fate, found: Verdict) -> bool {
    match (expected, found) {
        (Fate::Passes, found) => !matches!(found, Verdict::Drop(_)),
        (Fate::Denied, Verdict::Drop(reason)) => reason.is_policy(),
        // Where the new rules tell addresses apart that the old ones didn't, it is judged again each
        // time, and denied again.
        (Fate::Revoked, Verdict::Drop(reason)) => {
            reason == DropReason::Revoked || reason.is_policy()
        }
        (Fate::Orphan, Verdict::Drop(reason)) => {
            matches!(reason, DropReason::InvalidForFlow | DropReason::UnrelatedIcmpError)
        }
        _ => false,
    }
}

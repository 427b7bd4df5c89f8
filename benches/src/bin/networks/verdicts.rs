//! The loaded programs, by `BPF_PROG_TEST_RUN`: no packet goes anywhere.

use flowgate_abi::ipcache::Node;
use flowgate_benches::{
    course::Course,
    packets::{End, Packet, Version, syn},
    rig::{self, Counted, Rig},
    sampling::Sampling,
    spread::Spread,
};
use flowgate_conformance::frames::tcp;
use flowgate_datapath::{Delivery, Stage};

use crate::{Result, SIZES, load, load::Dice, tries::Tries};

const ROUNDS: usize = 7;
/// Packets of a round that open a flow each.
const OPENING: usize = 9000;
/// Flows of all rounds, each to a destination of its own: fewer than there are ports.
const FLOWS: usize = ROUNDS * OPENING;
const PORT: u16 = 1024;
/// Flows that are looked at one by one.
const CHECKED: usize = 1000;

/// Networks of one family, so many.
struct Case {
    size: usize,
    rig: Rig,
    /// Opens flows in flowgate, and in the other scheme.
    openings: [Course; 2],
    /// RST: judged each time, since they get no entry.
    resets: Course,
    tries: Tries,
    /// Nodes of the ipcache.
    nodes: usize,
    /// Nanoseconds: judged and opening, by flowgate, then by the other scheme.
    samples: [Vec<f64>; 4],
}

impl Case {
    fn new(version: Version, size: usize) -> Result<Self> {
        let mut dice = Dice(size as u64);
        let networks = load::networks(version, size, &mut dice);
        let targets = load::targets(&networks, FLOWS, &mut dice);
        let plan = load::plan(&networks)?;
        let options = load::sized(&plan, FLOWS);
        let mut rig = Rig::of(&plan, rig::object()?, Delivery::Stack, options)?;
        rig.aim(&targets)?;
        let opening = Packet::new(&syn(version, End::Client, End::World, PORT));
        // Of other flows.
        let reset = syn(version, End::Client, End::World, PORT + 1).flags(tcp::RST);
        let opening = Course::of(&opening, FLOWS);
        let mut case = Self {
            size,
            rig,
            openings: [opening.clone(), opening],
            resets: Course::of(&Packet::new(&reset), FLOWS),
            tries: Tries::load(&networks, FLOWS)?,
            nodes: plan.cost().ipcache_nodes,
            samples: Default::default(),
        };
        case.check_tries()?;
        Ok(case)
    }

    /// The other scheme lets packets pass; flowgate's counters are looked at in each round.
    fn check_tries(&mut self) -> Result<()> {
        let mut course = self.openings[1].clone();
        for _ in 0..CHECKED {
            self.rig.time_other(&self.tries.judging, &mut course, 1)?;
        }
        Ok(())
    }

    /// Everything has been looked up once before it is measured, so a look-up waits for what doesn't fit
    /// into the caches, and for nothing else.
    fn round(&mut self) -> Result<()> {
        let Self { rig, openings: [ours, others], resets, tries, .. } = self;
        let (all, some) = (Sampling::once(FLOWS as u32), Sampling::once(OPENING as u32));
        let before = rig.counted()?;
        rig.time(Stage::FromEndpoint, resets, all)?;
        let judged = rig.time(Stage::FromEndpoint, resets, all)?.net();
        let opened = rig.time(Stage::FromEndpoint, ours, some)?.net();
        check(&before, &rig.counted()?)?;
        rig.time_other(&tries.judging, others, FLOWS as u32)?;
        let tried = rig.time_other(&tries.judging, others, FLOWS as u32)?.net();
        let tracked = rig.time_other(&tries.tracking, others, OPENING as u32)?.net();
        for (samples, sample) in self.samples.iter_mut().zip([judged, opened, tried, tracked]) {
            samples.push(sample);
        }
        Ok(())
    }
}

/// Every packet that opens a flow did, but for one in a hundred; nothing else was dropped.
fn check(before: &Counted, after: &Counted) -> Result<()> {
    let dropped = after.all_dropped() - before.all_dropped();
    let opened = after.opened - before.opened;
    if (opened + dropped) as usize != OPENING || dropped as usize * 100 > OPENING {
        return Err(format!("{opened} flows opened, {dropped} packets dropped: {after:?}").into());
    }
    Ok(())
}

pub(crate) fn run() -> Result<()> {
    println!("ns per packet, net of the empty program; median of {ROUNDS} rounds");
    for (version, name) in [(Version::V4, "IPv4"), (Version::V6, "IPv6")] {
        let cases: Result<Vec<Case>> =
            SIZES.map(|size| Case::new(version, size)).into_iter().collect();
        let mut cases = cases?;
        for _ in 0..ROUNDS {
            cases.iter_mut().try_for_each(Case::round)?;
        }
        print(name, &cases);
    }
    Ok(())
}

fn print(name: &str, cases: &[Case]) {
    println!(
        "\n| {name} networks | new flow, flowgate | least | most | against {} | judged alone | \
         new flow, tries | judged alone | bytes of nodes for each |",
        SIZES[0]
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let median = |case: &Case, which: usize| Spread::of(case.samples[which].iter().copied()).median;
    for case in cases {
        let [judged, tried, tracked] = [0, 2, 3].map(|which| median(case, which));
        let opened = Spread::of(case.samples[1].iter().copied());
        let ratio = opened.median / median(&cases[0], 1);
        let bytes = case.nodes * size_of::<Node>() / case.size;
        println!(
            "| {} | {opened} | {ratio:.2} | {judged:.0} | {tracked:.0} | {tried:.0} | {bytes} |",
            case.size
        );
    }
}

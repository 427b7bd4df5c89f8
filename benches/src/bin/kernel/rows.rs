//! What is measured.

use std::{cell::RefCell, error::Error, rc::Rc};

use flowgate_abi::event::Counter;
use flowgate_benches::packets::{End, Version, syn};
use flowgate_conformance::frames::{Frame, tcp};
use flowgate_datapath::{Action, Delivery, Options, ProgramReport, Stage};

use crate::{
    rig::Rig,
    sampling::{Sample, Sampling, Spread},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Shared = Rc<RefCell<Rig>>;

const HOT: Sampling = Sampling::Hot(300_000);
/// A packet may be redirected as often as it has hops to lose, less one.
const REDIRECTED: Sampling = Sampling::Bursts(250, 400);
/// So few events that the program doesn't wake the reader.
const TOLD: Sampling = Sampling::Bursts(300, 400);
const READ: Sampling = Sampling::Read(100_000);
/// Packets in a round, each of a flow of its own.
const FLOWS: usize = 4000;
/// The source port of the connection that all hot rows use, and the first of many.
const PORT: u16 = 1024;

/// A row of the table.
pub(crate) struct Row {
    pub(crate) name: String,
    rig: Shared,
    stage: Stage,
    sampling: Sampling,
    frames: Vec<Frame>,
    opens: bool,
}

impl Row {
    /// One round.
    pub(crate) fn measure(&mut self, round: usize) -> Result<Sample> {
        let mut rig = self.rig.borrow_mut();
        let first = self.frames[0].bytes();
        match self.sampling {
            Sampling::Hot(runs) => rig.time(self.stage, &first, runs),
            Sampling::Read(runs) => rig.time_read(self.stage, &first, runs),
            Sampling::Bursts(runs, calls) => {
                let samples = (0..calls).map(|_| {
                    let sample = rig.time(self.stage, &first, runs);
                    rig.drain();
                    sample
                });
                Ok(mean(&samples.collect::<Result<Vec<_>>>()?))
            }
            Sampling::Single(count) => {
                let frames = self.frames.iter().cycle().skip(round * count).take(count);
                let samples = frames.map(|frame| {
                    let sample = rig.time(self.stage, &frame.bytes(), 1);
                    rig.drain();
                    sample
                });
                Ok(median(&samples.collect::<Result<Vec<_>>>()?))
            }
        }
    }

    /// What was measured is what was meant. A note about flows that found no room, if any.
    pub(crate) fn check_afterwards(&self) -> Result<Option<String>> {
        let rig = self.rig.borrow();
        let (opened, refused) = (rig.count(Counter::FlowsNew)?, rig.without_room()?);
        let flows = self.frames.len() as u64;
        if self.opens && opened + refused < flows {
            return Err(format!("{}: {opened} flows, not {flows}", self.name).into());
        }
        if refused * 100 > opened {
            return Err(format!("{}: {refused} of {flows} found no room", self.name).into());
        }
        let note = format!("{}: {refused} of {} found no room", self.name, opened + refused);
        Ok((refused > 0).then_some(note))
    }

    pub(crate) fn programs(&self) -> Vec<ProgramReport> {
        self.rig.borrow().programs()
    }
}

fn mean(samples: &[Sample]) -> Sample {
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / samples.len() as f64;
    Sample { program: mean(|sample| sample.program), empty: mean(|sample| sample.empty) }
}

fn median(samples: &[Sample]) -> Sample {
    let median = |of: fn(&Sample) -> f64| Spread::of(samples.iter().map(of)).median;
    Sample { program: median(|sample| sample.program), empty: median(|sample| sample.empty) }
}

/// All rows, for so many rounds.
pub(crate) fn rows(rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for version in [Version::V4, Version::V6] {
        established(&mut rows, version)?;
        denied(&mut rows, version)?;
        many(&mut rows, version, rounds * FLOWS)?;
    }
    Ok(rows)
}

fn rig(here: End, delivery: Delivery, options: Options) -> Result<Shared> {
    Ok(Rc::new(RefCell::new(Rig::new(here, delivery, options)?)))
}

fn silent() -> Options {
    Options { events_per_second: 0, ..Options::default() }
}

fn talkative() -> Options {
    Options { events_per_second: u32::MAX, event_bytes: 1 << 25, ..Options::default() }
}

fn row(name: &str, version: Version, rig: &Shared, sampling: Sampling, frame: Frame) -> Row {
    let name = format!("{name}, IP{}", if version == Version::V4 { "v4" } else { "v6" });
    let stage = Stage::FromEndpoint;
    Row { name, rig: Rc::clone(rig), stage, sampling, frames: vec![frame], opens: false }
}

fn established(rows: &mut Vec<Row>, version: Version) -> Result<()> {
    let client = rig(End::Client, Delivery::Stack, silent())?;
    let outwards = (End::Client, End::World);
    let frame = open(&client, version, outwards)?;
    rows.push(row("established, to the world", version, &client, HOT, frame));
    let answer = frame.answer().flags(tcp::ACK);
    let mut reply = row("established, reply from the world", version, &client, HOT, answer);
    reply.stage = Stage::ToEndpoint;
    rows.push(reply);
    let inwards = (End::Client, End::Server);
    let frame = open(&client, version, inwards)?;
    rows.push(row("established, to a local endpoint by the stack", version, &client, HOT, frame));
    let redirecting = rig(End::Client, Delivery::Redirect, silent())?;
    let frame = open(&redirecting, version, inwards)?;
    expect(&redirecting, &frame, Action::Redirect)?;
    let name = "established, redirected to a local endpoint";
    rows.push(row(name, version, &redirecting, REDIRECTED, frame));
    Ok(())
}

/// Establishes a connection; the initiator's next packet.
fn open(rig: &Shared, version: Version, ends: (End, End)) -> Result<Frame> {
    let syn = syn(version, ends.0, ends.1, PORT);
    match rig.borrow_mut().establish(&syn, ends)? {
        true => Ok(syn.flags(tcp::ACK)),
        false => Err(format!("{syn:?} is dropped").into()),
    }
}

fn expect(rig: &Shared, frame: &Frame, wanted: Action) -> Result<()> {
    let mut rig = rig.borrow_mut();
    let action = rig.send(frame, End::Client)?;
    rig.drain();
    if action == wanted { Ok(()) } else { Err(format!("{frame:?}: {action:?}").into()) }
}

fn denied(rows: &mut Vec<Row>, version: Version) -> Result<()> {
    let ends = (End::Client, End::Closed);
    let frame = syn(version, ends.0, ends.1, PORT);
    let quiet = rig(End::Client, Delivery::Stack, silent())?;
    let loud = rig(End::Client, Delivery::Stack, talkative())?;
    for rig in [&quiet, &loud] {
        expect(rig, &frame, Action::Drop)?;
    }
    rows.push(row("denied, no event", version, &quiet, HOT, frame));
    rows.push(row("denied, event told", version, &loud, TOLD, frame));
    rows.push(row("denied, event read meanwhile", version, &loud, READ, frame));
    // Judged each time, since a RST gets no entry.
    let frame = syn(version, End::Client, End::World, PORT).flags(tcp::RST);
    expect(&quiet, &frame, Action::Pass)?;
    rows.push(row("allowed without an entry (RST)", version, &quiet, HOT, frame));
    Ok(())
}

/// Rows of which each packet belongs to another flow, in tables of their own.
fn many(rows: &mut Vec<Row>, version: Version, flows: usize) -> Result<()> {
    let room = |options| Options { flows4: flows, flows6: flows, ..options };
    let ends = (End::Client, End::World);
    let opening: Vec<Frame> =
        (0..flows).map(|flow| syn(version, ends.0, ends.1, PORT + flow as u16)).collect();
    let single = Sampling::Single(FLOWS);
    let one = rig(End::Client, Delivery::Stack, silent())?;
    let frame = open(&one, version, ends)?;
    rows.push(row("established, one flow, run singly", version, &one, single, frame));
    let full = rig(End::Client, Delivery::Stack, room(silent()))?;
    let mut established = Vec::new();
    for frame in &opening {
        if full.borrow_mut().establish(frame, ends)? {
            established.push(frame.flags(tcp::ACK));
        }
    }
    let name = format!("established, {flows} flows, run singly");
    let mut known = row(&name, version, &full, single, opening[0]);
    known.frames = established;
    rows.push(known);
    for (name, options) in [("no event", silent()), ("event told", talkative())] {
        let fresh = rig(End::Client, Delivery::Stack, room(options))?;
        let name = format!("new flow, {name}, run singly");
        let mut new = row(&name, version, &fresh, single, opening[0]);
        new.frames.clone_from(&opening);
        new.opens = true;
        rows.push(new);
    }
    Ok(())
}

//! What each piece of the programs costs an established packet: the figures of objects that lack it.
//!
//! `cargo xtask ablate` builds the objects; a directory of such may be named on the command line. Needs
//! root; each round measures every object, and the empty program right before it.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use flowgate_benches::{
    course::Course,
    ending,
    packets::{End, Packet, Version, syn},
    rig::{Fate, Rig},
    sampling::Sampling,
    spread::Spread,
};
use flowgate_conformance::frames::{Frame, tcp};
use flowgate_datapath::{Delivery, Options, Stage};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Odd, so that the median is one of them.
const LOADS: usize = 3;
/// Of each load. The quickest one counts: a few nanoseconds are to be told apart.
const ROUNDS: usize = 7;
const FLOWS: usize = 1 << 16;
const PORT: u16 = 1024;
/// Version and flows of each column.
const COLUMNS: [(Version, usize); 3] = [(Version::V4, 1), (Version::V6, 1), (Version::V4, FLOWS)];

fn main() -> ExitCode {
    if let Err(missing) = ending::own_network() {
        return ending::skipped(&missing);
    }
    ending::status(run())
}

/// An object that lacks something.
struct Variant {
    name: String,
    object: PathBuf,
    many: bool,
    /// Of each column.
    samples: [Vec<f64>; COLUMNS.len()],
}

fn run() -> Result<()> {
    let directory = std::env::args_os().nth(1).map_or_else(default_directory, PathBuf::from);
    let mut variants = read(&directory)?;
    for _ in 0..LOADS {
        let mut rigs = variants.iter().map(rig).collect::<Result<Vec<_>>>()?;
        for _ in 0..ROUNDS {
            for (rig, variant) in rigs.iter_mut().zip(&mut variants) {
                measure(rig, variant)?;
            }
        }
    }
    print(&variants);
    Ok(())
}

fn default_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
        .join("ablation")
}

fn read(directory: &Path) -> Result<Vec<Variant>> {
    let index = directory.join("index");
    let text = fs::read_to_string(&index)
        .map_err(|error| format!("{}: {error}; run `cargo xtask ablate`", index.display()))?;
    let variants = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut fields = line.split('\t');
        let mut field = || fields.next().ok_or_else(|| format!("{}: {line}", index.display()));
        let (object, flows, name) = (field()?, field()?, field()?);
        Ok(Variant {
            name: name.to_owned(),
            object: directory.join(object),
            many: flows == "many",
            samples: Default::default(),
        })
    });
    variants.collect()
}

/// A rig in which all flows are established.
fn rig(variant: &Variant) -> Result<Rig> {
    let options =
        Options { events_per_second: 0, flows4: FLOWS, flows6: FLOWS, ..Options::default() };
    let mut rig = Rig::new(fs::read(&variant.object)?.into(), Delivery::Stack, options)?;
    for (version, flows) in variant.columns() {
        rig.establish(&opening(version), true, flows)?;
        let packet = segment(version);
        if rig.send(&packet, Stage::FromEndpoint)? != Fate::Passed {
            return Err(format!("without {}, the packet doesn't pass", variant.name).into());
        }
    }
    Ok(rig)
}

fn opening(version: Version) -> Frame {
    syn(version, End::Client, End::World, PORT)
}

fn segment(version: Version) -> Packet {
    Packet::new(&opening(version).flags(tcp::ACK))
}

fn measure(rig: &mut Rig, variant: &mut Variant) -> Result<()> {
    for (column, (version, flows)) in variant.columns().enumerate() {
        let opened = rig.counted()?.opened;
        let mut course = Course::of(&segment(version), flows);
        let sample =
            rig.time(Stage::FromEndpoint, &mut course, Sampling::once(flows.max(50_000) as u32))?;
        // Some may have lost their place to others.
        if rig.counted()?.opened - opened > flows as u64 / 100 {
            return Err(format!("without {}, flows aren't found again", variant.name).into());
        }
        variant.samples[column].push(sample.net());
    }
    Ok(())
}

impl Variant {
    fn columns(&self) -> impl Iterator<Item = (Version, usize)> + use<> {
        COLUMNS.into_iter().take(if self.many { COLUMNS.len() } else { COLUMNS.len() - 1 })
    }

    /// Of each column the median of what each load did at best.
    fn figures(&self) -> Vec<f64> {
        let measured = self.samples.iter().filter(|samples| !samples.is_empty());
        let best = |load: &[f64]| Spread::of(load.iter().copied()).least;
        measured.map(|samples| Spread::of(samples.chunks(ROUNDS).map(best)).median).collect()
    }
}

fn print(variants: &[Variant]) {
    println!(
        "ns per packet, net of the empty program, and how many fewer that are; \
         median of {LOADS} loads, of each the best of {ROUNDS} rounds\n"
    );
    println!("| without | IPv4 | saves | IPv6 | saves | IPv4, {FLOWS} flows | saves |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let whole = variants.first().map(Variant::figures).unwrap_or_default();
    for variant in variants {
        let cells = variant.figures().into_iter().zip(&whole);
        let cells = cells.map(|(net, whole)| format!(" {net:.0} | {:.0} |", whole - net));
        println!("| {} |{}", variant.name, cells.collect::<String>());
    }
}

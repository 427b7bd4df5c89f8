//! What a packet costs in the load balancer and in Katran, by `BPF_PROG_TEST_RUN`: the same packets in the same run, net of
//! the same empty program.
//!
//! Needs root, and in `KATRAN_OBJECTS` a directory with Katran's `balancer.o` for IPIP (`ipip.o`) and for GUE
//! (`gue.o`), which docs/measurements.md says how to build.

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use flowgate_benches::{
    balanced_rows::{self, Row, options, services},
    balancing::{PASSED, Rig, TRANSMITTED},
    course::Course,
    ending,
    katran::Katran,
    sampling::{Sample, Sampling},
    spread::Spread,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Together an odd number of rounds, so that the median is one of them.
const LOADS: usize = 3;
const ROUNDS: usize = 5;
/// New connections of a round, which Katran remembers: beyond 125,000 a second of one CPU it takes them for a
/// flood (`MAX_CONN_RATE`), and doesn't.
const NEW: u32 = 1 << 16;

/// What is compared: a row of the balancer's, and whose object it is for Katran. Katran answers packets that
/// are too big beyond a size that is built in.
const COMPARED: [(&str, &str); 10] = [
    ("TCP, established, I", "ipip.o"),
    ("TCP, established, 65,536 flows, I", "ipip.o"),
    ("SYN of 16M flows, I", "ipip.o"),
    ("SYN of new flows, every slot moving", "ipip.o"),
    ("UDP, I", "ipip.o"),
    ("UDP, 65,536 flows, I", "ipip.o"),
    ("TCP, established, GUE", "gue.o"),
    ("TCP, established, 65,536 flows, GUE", "gue.o"),
    ("too big for a path of 1,500 bytes, answered, I", "ipip.o"),
    ("not a service's", "ipip.o"),
];

fn main() -> ExitCode {
    let Some(objects) = std::env::var_os("KATRAN_OBJECTS") else {
        return ending::skipped(&"KATRAN_OBJECTS names no directory with Katran's objects");
    };
    if let Err(missing) = ending::own_network() {
        return ending::skipped(&missing);
    }
    ending::status(run(&PathBuf::from(objects)))
}

/// A row, and what came of it here and there.
struct Compared {
    row: Row,
    object: usize,
    course: Course,
    sampling: Sampling,
}

fn run(objects: &Path) -> Result<()> {
    let mut lines: Vec<(String, [Vec<Sample>; 2])> = Vec::new();
    for load in 0..LOADS {
        let empty = Rig::new(options(), &services(true)?)?.empty()?;
        let katran = |object: &str| Katran::load(&objects.join(object), empty.try_clone()?);
        let mut katrans = [katran("ipip.o")?, katran("gue.o")?];
        let mut rows = compared(load)?;
        if load == 0 {
            lines = rows.iter().map(|one| (one.row.name.clone(), Default::default())).collect();
        }
        for _ in 0..ROUNDS {
            for (one, (_, [here, there])) in rows.iter_mut().zip(&mut lines) {
                here.push(one.row.measure()?);
                there.push(one.at_katran(&mut katrans)?);
            }
        }
    }
    print(&lines);
    Ok(())
}

fn compared(load: usize) -> Result<Vec<Compared>> {
    let rows = balanced_rows::rows(load, ROUNDS)?.into_iter();
    let rows = rows.filter_map(|mut row| {
        let (_, object) = COMPARED.iter().find(|(name, _)| row.name.starts_with(name))?;
        if row.name.starts_with("SYN of 16M") {
            row.shorten(NEW);
        }
        let (course, sampling) = row.course();
        Some(Compared { row, object: usize::from(*object == "gue.o"), course, sampling })
    });
    Ok(rows.collect())
}

fn is_opening(row: &Row) -> bool {
    row.name.starts_with("SYN")
}

impl Compared {
    /// One round; what was measured is what was meant.
    fn at_katran(&mut self, katrans: &mut [Katran; 2]) -> Result<Sample> {
        if is_opening(&self.row) {
            thread::sleep(Duration::from_millis(1100));
        }
        let (sample, action) = katrans[self.object].time(&mut self.course, self.sampling)?;
        let name = &self.row.name;
        let meant = if name.starts_with("not") { PASSED } else { TRANSMITTED };
        match action == meant {
            true => Ok(sample),
            false => Err(format!("{name}: Katran says {action}, meant was {meant}").into()),
        }
    }
}

fn print(lines: &[(String, [Vec<Sample>; 2])]) {
    println!("ns per packet, net of the empty program; median of {} rounds\n", LOADS * ROUNDS);
    println!("| packet | flowgate | least | most | Katran | least | most | ratio |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for (name, samples) in lines {
        let [here, there] = samples.each_ref().map(|all| Spread::of(all.iter().map(Sample::net)));
        let ratio = here.median / there.median;
        println!("| {name} | {here} | {there} | {ratio:.2} |");
    }
    println!();
}

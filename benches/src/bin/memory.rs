//! What the maps take: by [`Options::memory`], and by what the kernel accounts for each.
//!
//! Needs root for the kernel's side. What one flow, endpoint or peer more costs is the difference
//! between tables of two sizes.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    os::fd::{AsFd, AsRawFd},
    process::ExitCode,
};

use aya::{maps::loaded_maps, programs::loaded_programs};
use flowgate_benches::{ending, manifests};
use flowgate_datapath::{Datapath, Options};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    ending::status(run())
}

fn run() -> Result<()> {
    print_maps()?;
    print_units()?;
    print_plan();
    Ok(())
}

/// Every map with the default options.
fn print_maps() -> Result<()> {
    let options = Options::default();
    let maps = accounted(&options)?;
    println!("| map | KiB |\n|---|--:|");
    for (name, bytes) in &maps {
        println!("| `{name}` | {:.0} |", *bytes as f64 / 1024.0);
    }
    let kib = |bytes: usize| bytes as f64 / 1024.0;
    println!("| all, as the kernel accounts | {:.0} |", kib(maps.values().sum()));
    println!("| all, by `Options::memory` | {:.0} |\n", kib(options.memory()));
    Ok(())
}

/// What one more costs.
fn print_units() -> Result<()> {
    type Resize = fn(&mut Options) -> &mut usize;
    let units: [(&str, Resize); 8] = [
        ("IPv4 flow", |o| &mut o.flows4),
        ("IPv6 flow", |o| &mut o.flows6),
        ("endpoint", |o| &mut o.endpoints),
        ("peer", |o| &mut o.peers),
        ("row cell", |o| &mut o.row_cells),
        ("decision cell", |o| &mut o.decision_cells),
        ("decision", |o| &mut o.decisions),
        ("node of the ipcache", |o| &mut o.ipcache_nodes),
    ];
    println!("| one more | bytes, as the kernel accounts | by `Options::memory` |\n|---|--:|--:|");
    for (name, resize) in units {
        let sized = |size: usize| -> Result<(usize, usize)> {
            let mut options = Options::default();
            *resize(&mut options) = size;
            Ok((accounted(&options)?.values().sum(), options.memory()))
        };
        // Tables of flows and endpoints grow by doubling.
        let (small, large) = (1 << 13, 1 << 14);
        let (before, after) = (sized(small)?, sized(large)?);
        let each = |before: usize, after: usize| (after - before) as f64 / (large - small) as f64;
        let (accounted, said) = (each(before.0, after.0), each(before.1, after.1));
        println!("| {name} | {accounted:.0} | {said:.0} |");
    }
    println!();
    Ok(())
}

/// What policies take of the tables, in one of two generations.
fn print_plan() {
    println!("| pods and policies | rules | KiB | bytes for each rule |\n|--:|--:|--:|--:|");
    for pods in [50, 100, 200] {
        let read = manifests::read(&manifests::cluster(pods));
        let rules = read.policies.iter().flat_map(|policy| [&policy.ingress, &policy.egress]);
        let rules = rules.flatten().flatten().count();
        let plan = manifests::compile(&read);
        let cells = 2 * (plan.row.len() + plan.decision.len());
        let bytes = cells + plan.decisions.len() * size_of_val(&plan.decisions[0]);
        println!("| {pods} | {rules} | {:.0} | {} |", bytes as f64 / 1024.0, bytes / rules);
    }
}

/// Bytes of each map of a datapath with these options, by name.
fn accounted(options: &Options) -> Result<BTreeMap<String, usize>> {
    let datapath = Datapath::builder().options(options.clone()).open()?;
    let ours: BTreeSet<u32> = datapath.report().programs.iter().map(|report| report.id).collect();
    let mut wanted = BTreeSet::new();
    // What goes while we ask is another process's.
    for program in loaded_programs().flatten().filter(|program| ours.contains(&program.id())) {
        wanted.extend(program.map_ids()?.unwrap_or_default());
    }
    let mut maps = BTreeMap::new();
    for map in loaded_maps().flatten().filter(|map| wanted.contains(&map.id())) {
        let name = map.name_as_str().unwrap_or("?").to_owned();
        *maps.entry(name).or_default() += locked(map.fd()?.as_fd().as_raw_fd())?;
    }
    Ok(maps)
}

/// The line `memlock` of a map's description.
fn locked(fd: i32) -> Result<usize> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(bytes.ok_or("the kernel doesn't account for maps")?.trim().parse()?)
}

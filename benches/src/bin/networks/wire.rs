//! The same over veth: what a new flow costs on its whole way, beside an nftables set.
//!
//! IPv6 alone: of what is set aside for documentation, only its networks are enough.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Instant,
};

use flowgate_benches::{
    course::Course, live::stay_on_one_cpu, packets::Version, spread::Spread, way::Way,
};
use flowgate_datapath::{Datapath, EndpointSpec};
use ipnet::IpNet;

use crate::load::{self, Dice};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const SIZES: [usize; 4] = [100, 1000, 10_000, 100_000];
const ROUNDS: usize = 7;
/// Packets of a round, each of which opens a flow.
const OPENING: usize = 7000;
const FLOWS: usize = ROUNDS * OPENING;

/// What decides.
enum Decider {
    Nobody,
    Flowgate { _datapath: Box<Datapath> },
    Nftables,
}

struct Row {
    way: Way,
    course: Course,
    _decider: Decider,
    /// Seconds that it took to load the networks.
    loading: f64,
    /// Nanoseconds per packet.
    samples: Vec<f64>,
}

impl Row {
    /// Moves this thread into a node of its own.
    fn new(
        networks: &[IpNet],
        decider: impl FnOnce(&Way, &[IpNet]) -> Result<Decider>,
    ) -> Result<Self> {
        let targets = load::targets(networks, FLOWS, &mut Dice(1));
        let way = Way::to_targets(&targets)?;
        let begun = Instant::now();
        let decider = decider(&way, networks)?;
        let loading = begun.elapsed().as_secs_f64();
        let course = way.openings(Version::V6, FLOWS);
        Ok(Self { way, course, _decider: decider, loading, samples: Vec::new() })
    }

    fn measure(&mut self) -> Result<()> {
        self.samples.push(self.way.send(&mut self.course, OPENING as u32)?);
        Ok(())
    }

    fn cells(&self) -> String {
        let spread = Spread::of(self.samples.iter().copied());
        format!("{spread} | {:.1}", self.loading)
    }
}

fn flowgate(way: &Way, networks: &[IpNet]) -> Result<Decider> {
    let plan = load::plan(networks).map_err(|error| error.to_string())?;
    let mut datapath = Datapath::builder().options(load::sized(&plan, FLOWS)).open()?;
    let client = &plan.endpoints[0];
    let spec = EndpointSpec::new(client.workload.clone(), way.client.host_interface());
    let spec = client.addresses.iter().fold(spec, |spec, at| spec.address(*at));
    let _ = datapath.attach(&spec.mac(way.client.mac().0))?;
    let _ = datapath.apply(&plan)?;
    Ok(Decider::Flowgate { _datapath: Box::new(datapath) })
}

/// Conntrack, a set of the networks, deny by default.
fn nftables(_way: &Way, networks: &[IpNet]) -> Result<Decider> {
    let elements: Vec<String> = networks.iter().map(ToString::to_string).collect();
    let ruleset = format!(
        "table ip6 networks {{
  set allowed {{ type ipv6_addr; flags interval; auto-merge; elements = {{ {} }} }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    ip6 daddr @allowed tcp dport 80 accept
  }}
}}
",
        elements.join(", ")
    );
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().ok_or("no pipe")?;
    input.write_all(ruleset.as_bytes())?;
    drop(input);
    match child.wait()?.success() {
        true => Ok(Decider::Nftables),
        false => Err("nft refuses the ruleset".into()),
    }
}

fn has_nft() -> bool {
    Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_ok()
}

pub(crate) fn run() -> Result<()> {
    stay_on_one_cpu()?;
    println!("\nns per packet over veth, a new IPv6 flow each; median of {ROUNDS} rounds\n");
    println!(
        "| networks | decided by | ns | least | most | loading, s |\n|--:|---|--:|--:|--:|--:|"
    );
    if !has_nft() {
        println!("| | nftables | SKIPPED: there is no nft | | | |");
    }
    let mut rows = rows()?;
    for _ in 0..ROUNDS {
        rows.iter_mut().try_for_each(|(_, _, row)| row.measure())?;
    }
    for (size, name, row) in &rows {
        println!("| {size} | {name} | {} |", row.cells());
    }
    Ok(())
}

type Named = (usize, &'static str, Row);

fn rows() -> Result<Vec<Named>> {
    let mut rows = Vec::new();
    for size in SIZES {
        let networks = load::networks(Version::V6, size, &mut Dice(size as u64));
        if size == SIZES[0] {
            rows.push((size, "nobody (routing)", Row::new(&networks, |_, _| Ok(Decider::Nobody))?));
        }
        rows.push((size, "flowgate, by the stack", Row::new(&networks, flowgate)?));
        if has_nft() {
            rows.push((size, "conntrack and nftables", Row::new(&networks, nftables)?));
        }
    }
    Ok(rows)
}

//! Frames that come by a wire and go by it: how many the balancer sends on, beside a program that only sends them
//! back.
//!
//! Everything happens on one CPU, so the time of a call is what its frames cost: their making, veth both ways, the
//! program, and counting them.

use std::{error::Error, time::Instant};

use flowgate_benches::{
    balanced_rows::{MANY, established, options, services},
    bouncing::{Link, Source},
    course::Course,
    live::stay_on_one_cpu,
    spread::Spread,
};
use flowgate_datapath::lb::{LoadBalancer, XdpAttach, XdpMode};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Odd, so that the median is one of them.
const ROUNDS: usize = 15;
/// Frames of a round: whole turns of all flows.
const FRAMES: u32 = 16 * MANY as u32;

struct Row {
    name: &'static str,
    /// Of the links below.
    link: usize,
    course: Course,
    /// Nanoseconds for each frame, of each round.
    samples: Vec<f64>,
}

pub(crate) fn run() -> Result<()> {
    let mut source = Source::new()?;
    let mut links = [source.link("bounce")?, source.link("balancer")?];
    links[0].bounce()?;
    let balancer = balancer(&links[1])?;
    stay_on_one_cpu()?;
    let mut rows = rows();
    for _ in 0..ROUNDS {
        for row in &mut rows {
            row.samples.push(source.send(&links[row.link], &mut row.course, FRAMES)?);
        }
    }
    let sent = balancer.stats()?.services.iter().map(|s| s.total().packets).sum::<u64>();
    let meant = 2 * ROUNDS as u64 * u64::from(FRAMES);
    if sent != meant {
        return Err(format!("{sent} frames were balanced of {meant}").into());
    }
    print(&rows);
    Ok(())
}

fn rows() -> [Row; 4] {
    let row = |name, link, flows| {
        let course = Course { flows, ..established() };
        Row { name, link, course, samples: Vec::new() }
    };
    [
        row("sends back, one flow", 0, 1),
        row("balances, one flow", 1, 1),
        row("sends back, 65,536 flows", 0, MANY),
        row("balances, 65,536 flows", 1, MANY),
    ]
}

/// At the far end of a link.
fn balancer(link: &Link) -> Result<LoadBalancer> {
    let services = services(true).map_err(|error| error.to_string())?;
    let mut balancer = LoadBalancer::builder().options(options()).open()?;
    let _ = balancer.apply(&services, Instant::now())?;
    let attached = link.far.run(|| balancer.attach(link.far.interface(), XdpAttach::Native))??;
    match attached.mode {
        XdpMode::Native => Ok(balancer),
        mode => Err(format!("native XDP was asked for, {mode:?} it is").into()),
    }
}

fn print(rows: &[Row]) {
    println!("\n| at the far end of the wire | million/s | ns | least | most | net, ns |");
    println!("|---|--:|--:|--:|--:|--:|");
    let spread = |row: &Row| Spread::of(row.samples.iter().copied());
    for pair in rows.chunks(2) {
        let floor = spread(&pair[0]).median;
        for row in pair {
            let all = spread(row);
            let (millions, net) = (1000.0 / all.median, all.median - floor);
            println!("| {} | {millions:.2} | {all} | {net:.0} |", row.name);
        }
    }
}

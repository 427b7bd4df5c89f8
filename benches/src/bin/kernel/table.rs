//! What is printed.

use std::error::Error;

use flowgate_benches::{sampling::Sample, spread::Spread};
use flowgate_datapath::ProgramReport;

use crate::row::Row;

/// A row over all loads.
pub(crate) struct Line {
    name: String,
    obstacle: Option<String>,
    samples: Vec<Sample>,
    pub(crate) refused: u64,
}

impl Line {
    pub(crate) fn of(row: &Row) -> Result<Self, Box<dyn Error>> {
        let (name, obstacle) = (row.name.clone(), row.obstacle()?);
        Ok(Self { name, obstacle, samples: Vec::new(), refused: 0 })
    }

    /// One round, unless what would be measured isn't what is meant.
    pub(crate) fn measure(&mut self, row: &mut Row) -> Result<(), Box<dyn Error>> {
        if self.obstacle.is_none() {
            self.samples.push(row.measure()?);
        }
        Ok(())
    }

    fn print(&self) {
        if let Some(obstacle) = &self.obstacle {
            println!("| {} | {obstacle} | | | |", self.name);
            return;
        }
        let net = Spread::of(self.samples.iter().map(Sample::net));
        let empty = Spread::of(self.samples.iter().map(|sample| sample.empty));
        println!("| {} | {net} | {:.0} |", self.name, empty.median);
    }
}

/// The table of packets.
pub(crate) fn print(lines: &[Line], rounds: usize) {
    println!("ns per packet, net of the empty program; median of {rounds} rounds\n");
    println!("| packet | net | least | most | empty program |");
    println!("|---|--:|--:|--:|--:|");
    lines.iter().for_each(Line::print);
    for line in lines.iter().filter(|line| line.refused > 0) {
        println!("\n{}: {} packets found no room", line.name, line.refused);
    }
}

/// The table of programs.
pub(crate) fn print_programs(reports: &[ProgramReport]) {
    println!("\n| program | verified instructions | bytes of machine code |");
    println!("|---|--:|--:|");
    for report in reports {
        let verified = report.verified_instructions.map_or("?".to_owned(), |n| n.to_string());
        println!("| `{}` | {verified} | {} |", report.name, report.jited_bytes);
    }
}

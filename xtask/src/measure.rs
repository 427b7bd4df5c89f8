//! `cargo xtask measure`: runs the benches and puts what they print into `docs/measurements.md`.
//!
//! Each table lies between two comments that name its bench; what is written around them is left
//! alone. A bench that says SKIPPED leaves its table as it was.

use crate::ablate;
use crate::error::Error;
use crate::process;
use crate::tree;

/// Relative to the root.
const PAPER: &str = "docs/measurements.md";

/// A bench whose output is a part of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Bench {
    /// Kinds of packets in the loaded programs
    Kernel,
    /// Pieces of the programs
    Ablation,
    /// Ways from pod to pod
    Wire,
    /// Attaching endpoints
    Attach,
    /// What the maps take
    Memory,
    /// What size costs
    Scale,
    /// New flows among many networks
    Networks,
    /// The load balancer: kinds of packets, size
    Lb,
    /// The load balancer beside Katran, of which it needs the objects
    Katran,
}

/// Runs the benches named, or all.
pub(crate) fn run(benches: &[Bench]) -> Result<(), Error> {
    let all = <Bench as clap::ValueEnum>::value_variants();
    let benches = if benches.is_empty() { all } else { benches };
    benches.iter().try_for_each(|bench| update(*bench))
}

fn update(bench: Bench) -> Result<(), Error> {
    let name = clap::ValueEnum::to_possible_value(&bench)
        .map_or_else(String::new, |value| value.get_name().to_owned());
    if bench == Bench::Ablation {
        ablate::run()?;
    }
    let mut command = process::cargo();
    command.args(["run", "--locked", "--release", "-p", "flowgate-benches", "--bin", &name]);
    let output = process::capture(&mut command)?;
    print!("{output}");
    if output.starts_with("SKIPPED") {
        return Ok(());
    }
    let path = tree::root().join(PAPER);
    let text = replaced(&tree::read_text(&path)?, &name, &output)
        .ok_or_else(|| Error::NoPlace { bench: name, path: path.clone() })?;
    tree::write(&path, text.as_bytes())
}

/// A text with something else between the comments of a bench; `None`: they aren't there.
fn replaced(text: &str, bench: &str, output: &str) -> Option<String> {
    let [begin, end] = ["begin", "end"].map(|word| format!("<!-- {word} {bench} -->\n"));
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", output.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_the_comments_is_replaced_and_nothing_else() {
        let text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n";
        let new = replaced(text, "x", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- begin x -->\n\nnew\n\n<!-- end x -->\nb\n");
        assert_eq!(replaced(&new, "x", "new\n"), Some(new));
        assert_eq!(replaced(text, "y", "new"), None);
    }

    #[test]
    fn the_paper_has_a_place_for_every_bench() {
        let text = tree::read_text(&tree::root().join(PAPER)).unwrap();
        for bench in <Bench as clap::ValueEnum>::value_variants() {
            let name = clap::ValueEnum::to_possible_value(bench).unwrap();
            assert!(replaced(&text, name.get_name(), "").is_some(), "{bench:?}");
        }
    }
}

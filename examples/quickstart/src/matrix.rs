//! The reachability matrix: a grid for each service, a row for each source, a column for each
//! destination. In a cell stand the prediction and what the sockets saw.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
};

use flowgate_policy::inventory::Workload;

use crate::{
    answer::{Answer, Answered},
    question::{Family, Service},
};

const LEGEND: &str = "In each cell: predicted, then observed by sockets. + reached, - not, ? not \
                      tried; ! marks a mismatch.";
const LEGEND_OF_PREDICTION: &str = "In each cell: predicted. + allowed, - denied.";

/// Cells by source and destination, as they are numbered.
type Grid = BTreeMap<(usize, usize), String>;

/// All grids as text.
pub(crate) fn print(pods: &[&Workload], answers: &[Answer<'_>]) -> String {
    let mut text = String::new();
    write(&mut text, pods, answers).expect("a string takes all text");
    text
}

fn write(text: &mut String, pods: &[&Workload], answers: &[Answer<'_>]) -> fmt::Result {
    let tried = answers.iter().flat_map(|a| a.families.values()).any(|a| a.observed.is_some());
    writeln!(text, "{}", if tried { LEGEND } else { LEGEND_OF_PREDICTION })?;
    let cell = if tried { cell_of_both } else { cell_of_prediction };
    let mut by_service: BTreeMap<Service, Vec<&Answer<'_>>> = BTreeMap::new();
    for answer in answers {
        by_service.entry(answer.question.service).or_default().push(answer);
    }
    for (service, answers) in by_service {
        for (grid, families) in grids(pods, &answers, cell) {
            let families: Vec<_> = families.iter().map(Family::to_string).collect();
            writeln!(text, "\n{service} over {}", families.join(" and "))?;
            write_grid(text, pods, &grid)?;
        }
    }
    Ok(())
}

/// A service's grids: one for both families if they look the same.
fn grids(
    pods: &[&Workload],
    answers: &[&Answer<'_>],
    cell: fn(&Answered) -> String,
) -> Vec<(Grid, BTreeSet<Family>)> {
    let numbers: BTreeMap<_, _> = pods.iter().enumerate().map(|(n, pod)| (&pod.id, n)).collect();
    let mut grids: BTreeMap<Family, Grid> = BTreeMap::new();
    for answer in answers {
        let place = (numbers[&answer.question.from.id], numbers[&answer.question.to.id]);
        for (family, answered) in &answer.families {
            grids.entry(*family).or_default().insert(place, cell(answered));
        }
    }
    let mut merged: Vec<(Grid, BTreeSet<Family>)> = Vec::new();
    for (family, grid) in grids {
        match merged.iter_mut().find(|(other, _)| *other == grid) {
            Some((_, families)) => _ = families.insert(family),
            None => merged.push((grid, BTreeSet::from([family]))),
        }
    }
    merged
}

fn write_grid(text: &mut String, pods: &[&Workload], grid: &Grid) -> fmt::Result {
    let names: Vec<String> = pods.iter().map(|pod| pod.id.to_string()).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    write!(text, "  {:>3} {:<width$}  to", "", "from")?;
    (1..=pods.len()).try_for_each(|number| write!(text, " {number:>3}"))?;
    writeln!(text)?;
    for (from, name) in names.iter().enumerate() {
        write!(text, "  {:>3} {name:<width$}    ", from + 1)?;
        for to in 0..pods.len() {
            write!(text, " {:>3}", grid.get(&(from, to)).map_or(".", String::as_str))?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn cell_of_both(answered: &Answered) -> String {
    let mark = if answered.is_as_predicted() { "" } else { "!" };
    let observed = answered.observed.map_or('?', sign);
    format!("{mark}{}{observed}", sign(answered.predicted.allowed))
}

fn cell_of_prediction(answered: &Answered) -> String {
    sign(answered.predicted.allowed).to_string()
}

fn sign(reached: bool) -> char {
    if reached { '+' } else { '-' }
}

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

const LEGEND: &str = "\
In each cell: predicted, then observed. + reached, - not, ? not tried; ! marks a mismatch.";

/// By source and destination, as they are numbered.
type Grid<'a> = BTreeMap<(usize, usize), &'a Answered>;

/// All grids as text.
pub(crate) fn print(pods: &[&Workload], answers: &[Answer<'_>]) -> String {
    let mut text = String::new();
    write(&mut text, pods, answers).expect("a string takes all text");
    text
}

fn write(text: &mut String, pods: &[&Workload], answers: &[Answer<'_>]) -> fmt::Result {
    writeln!(text, "{LEGEND}")?;
    let services: BTreeSet<Service> =
        answers.iter().map(|answer| answer.question.service).collect();
    for service in services {
        for (families, grid) in grids(pods, answers, service) {
            let families: Vec<_> = families.iter().map(Family::to_string).collect();
            writeln!(text, "\n{service} over {}", families.join(" and "))?;
            write_grid(text, pods, &grid)?;
        }
    }
    Ok(())
}

/// A service's grids: one for both families if they look the same.
fn grids<'a>(
    pods: &[&Workload],
    answers: &'a [Answer<'_>],
    service: Service,
) -> Vec<(Vec<Family>, Grid<'a>)> {
    let numbers: BTreeMap<_, _> = pods.iter().enumerate().map(|(n, pod)| (&pod.id, n)).collect();
    let mut grids: BTreeMap<Family, Grid<'_>> = BTreeMap::new();
    for answer in answers.iter().filter(|answer| answer.question.service == service) {
        let place = (numbers[&answer.question.from.id], numbers[&answer.question.to.id]);
        for (family, answered) in &answer.families {
            grids.entry(*family).or_default().insert(place, answered);
        }
    }
    let mut merged: Vec<(Vec<Family>, Grid<'_>)> = Vec::new();
    for (family, grid) in grids {
        match merged.iter_mut().find(|(_, other)| look_alike(other, &grid)) {
            Some((families, _)) => families.push(family),
            None => merged.push((vec![family], grid)),
        }
    }
    merged
}

fn look_alike(one: &Grid<'_>, other: &Grid<'_>) -> bool {
    let cells = |grid: &Grid<'_>| -> Vec<_> { grid.iter().map(|(at, a)| (*at, cell(a))).collect() };
    cells(one) == cells(other)
}

fn write_grid(text: &mut String, pods: &[&Workload], grid: &Grid<'_>) -> fmt::Result {
    let names: Vec<String> = pods.iter().map(|pod| pod.id.to_string()).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    write!(text, "  {:>3} {:<width$}  to", "", "from")?;
    (1..=pods.len()).try_for_each(|number| write!(text, " {number:>3}"))?;
    writeln!(text)?;
    for (from, name) in names.iter().enumerate() {
        write!(text, "  {:>3} {name:<width$}    ", from + 1)?;
        for to in 0..pods.len() {
            let cell = grid.get(&(from, to)).map_or_else(|| ".".to_owned(), |a| cell(a));
            write!(text, " {cell:>3}")?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn cell(answered: &Answered) -> String {
    let sign = |reached| if reached { '+' } else { '-' };
    let predicted = sign(answered.predicted.allowed);
    let observed = answered.observed.map_or('?', sign);
    let mark = if answered.is_as_predicted() { "" } else { "!" };
    format!("{mark}{predicted}{observed}")
}

//! The matrix as text: what each kernel can do, and what each program costs there.

use std::fmt::Write;
use std::time::Duration;

use crate::budget::{Budget, Program};
use crate::error::Error;
use crate::findings::{Finding, Seen};
use crate::kernels::Wanted;
use crate::said::Agreed;

/// A kernel and what became of it.
pub(crate) struct Row {
    pub(crate) wanted: Wanted,
    /// Its release, or what was asked for.
    pub(crate) kernel: String,
    pub(crate) seen: Result<Seen, Error>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) took: Duration,
}

impl Row {
    /// It said something that isn't as it must be, or nothing though it's here.
    pub(crate) fn failed(&self) -> bool {
        match &self.seen {
            Ok(_) => self.findings.iter().any(Finding::fails),
            Err(error) => !error.is_absence(),
        }
    }
}

/// A line for each kernel, and below it a line for each limit.
pub(crate) fn matrix(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<30} {:<7} {:<20} {:<20} {:>8}\n",
        "kernel", "loads", "corpus agrees", "JIT hardened", "seconds"
    );
    for row in rows {
        let _infallible = match &row.seen {
            Ok(seen) => writeln!(
                text,
                "{:<30} {:<7} {:<20} {:<20} {:>8.1}",
                row.kernel,
                loads(seen),
                agrees(&seen.corpus),
                seen.hardened.as_ref().map_or("SKIPPED".to_owned(), agrees),
                row.took.as_secs_f32()
            ),
            Err(error) => writeln!(text, "{}", unseen(&row.kernel, error)),
        };
        for finding in &row.findings {
            let _infallible = writeln!(text, "    {finding}");
        }
        if row.seen.as_ref().is_ok_and(|seen| seen.hardened.is_none()) {
            text.push_str(
                "    SKIPPED hardening: it is a setting of this machine (--harden-running)\n",
            );
        }
    }
    text
}

/// A line for each program on each kernel.
pub(crate) fn figures(rows: &[Row], budget: &Budget) -> String {
    let mut text = format!(
        "{:<8} {:<20} {:>12} {:>7} {:<34} {:>8} {:>12}\n",
        "kernel", "program", "instructions", "of 1 M", "stack", "bytes", "recorded"
    );
    for seen in rows.iter().filter_map(|row| row.seen.as_ref().ok()) {
        let recorded = budget.lines.get(&seen.line);
        for (name, program) in seen.programs.iter().flatten() {
            let Program::Accepted(cost) = program else { continue };
            let recorded = match recorded.and_then(|recorded| recorded.programs.get(name)) {
                Some(Program::Accepted(recorded)) => recorded.instructions.to_string(),
                Some(Program::Refused { .. }) => "refused".to_owned(),
                None => "-".to_owned(),
            };
            let share = f64::from(cost.instructions) / 10_000.0;
            let _infallible = writeln!(
                text,
                "{:<8} {name:<20} {:>12} {share:>5.1} % {:<34} {:>8} {recorded:>12}",
                seen.line.to_string(),
                cost.instructions,
                cost.stack,
                cost.jited_bytes
            );
        }
    }
    text
}

fn unseen(kernel: &str, error: &Error) -> String {
    let why = error.to_string();
    let why = why.lines().next().unwrap_or_default();
    if error.is_absence() {
        format!("{kernel:<30} SKIPPED: {why}")
    } else {
        format!("{kernel:<30} FAILED: {why}")
    }
}

fn loads(seen: &Seen) -> String {
    let programs: Vec<&Program> =
        seen.programs.iter().flatten().map(|(_, program)| program).collect();
    let accepted =
        programs.iter().filter(|program| matches!(program, Program::Accepted(_))).count();
    match accepted {
        0 => "none".to_owned(),
        all if all == programs.len() => format!("all {all}"),
        some => format!("{some} of {}", programs.len()),
    }
}

fn agrees(corpus: &Result<Agreed, String>) -> String {
    match corpus {
        Ok(Agreed { cases, tests: 1 }) => format!("{cases} cases"),
        Ok(Agreed { cases, tests }) => format!("{cases}, {} tests", tests - 1),
        Err(_) => "NO".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::budget::Cost;
    use crate::line::Line;

    fn row(program: Program) -> Row {
        let seen = Seen {
            line: Line::new(5, 10),
            programs: Ok(BTreeMap::from([("tc_a".to_owned(), program)])),
            corpus: Ok(Agreed { cases: 3004, tests: 1 }),
            hardened: Some(Err("Opening at a/b".to_owned())),
        };
        let findings = vec![Finding::Note("hardened corpus: Opening at a/b".to_owned())];
        let took = Duration::from_millis(41_250);
        let kernel = "5.10.0-46-cloud-amd64".to_owned();
        Row { wanted: Wanted::Line(Line::new(5, 10)), kernel, seen: Ok(seen), findings, took }
    }

    fn accepted() -> Program {
        Program::Accepted(Cost {
            instructions: 280_461,
            stack: "4+312".to_owned(),
            jited_bytes: 32_404,
        })
    }

    fn words(text: &str) -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn a_limit_stands_in_a_line_below_its_kernel() {
        let text = matrix(&[row(accepted())]);
        assert_eq!(
            words(&text)[1..],
            ["5.10.0-46-cloud-amd64 all 1 3004 cases NO 41.2", "hardened corpus: Opening at a/b"]
        );
        let refused = Program::Refused { refused: "R1 !read_ok".to_owned() };
        assert!(matrix(&[row(refused)]).contains(" none "));
    }

    #[test]
    fn what_could_not_be_asked_is_skipped_or_failed_with_a_reason() {
        let no_kernel = Error::NoKernel { line: "5.10".to_owned(), why: "no network".to_owned() };
        let skipped = Row { seen: Err(no_kernel), findings: vec![], ..row(accepted()) };
        assert!(matrix(&[skipped]).contains("SKIPPED: kernel 5.10 can't be had here: no network"));
        let stuck = Error::Machine { timed_out: true, tail: "a\nb".to_owned() };
        let failed = Row { seen: Err(stuck), findings: vec![], ..row(accepted()) };
        assert!(failed.failed());
        assert!(matrix(&[failed]).contains("FAILED: the virtual machine ended"));
    }

    #[test]
    fn figures_stand_beside_their_record() {
        let rows = [row(accepted())];
        let text = figures(&rows, &Budget::default());
        assert_eq!(words(&text)[1], "5.10 tc_a 280461 28.0 % 4+312 32404 -");
        let mut budget = Budget::default();
        let expected = rows[0].seen.as_ref().unwrap().expected().unwrap();
        budget.lines.insert(Line::new(5, 10), expected);
        assert_eq!(
            words(&figures(&rows, &budget))[1],
            "5.10 tc_a 280461 28.0 % 4+312 32404 280461"
        );
    }
}

//! What a kernel said of the programs: read from the lines that the kernel tests print there.

use std::collections::BTreeMap;

use crate::budget::{Cost, Program};
use crate::machine::Finished;
use crate::namespaces;

/// What precedes the verifier's word on a program.
const VERIFIER: &str = "verifier: ";
/// As much of a reason as fits into a table.
const REASON: usize = 140;

/// The corpus went through the kernel, and all agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) cases: u32,
    pub(crate) tests: u32,
}

/// The verifier's word on each program, or why there is none.
pub(crate) fn programs(finished: &Finished) -> Result<BTreeMap<String, Program>, String> {
    let lines = finished.lines.iter().filter_map(|line| line.strip_prefix(VERIFIER));
    let programs: BTreeMap<_, _> = lines.filter_map(program).collect();
    if programs.is_empty() { Err(reason(finished)) } else { Ok(programs) }
}

/// Whether everything that ran agreed, or the reason of the first that didn't.
pub(crate) fn agreement(finished: &Finished) -> Result<Agreed, String> {
    let tests = all_passed(finished)?;
    match cases(&finished.lines) {
        Some(cases) => Ok(Agreed { cases, tests }),
        None => Err("no cases were compared".to_owned()),
    }
}

/// How many tests passed, if some ran, and none was skipped or failed.
fn all_passed(finished: &Finished) -> Result<u32, String> {
    let skipped = finished.lines.iter().any(|line| namespaces::says_skipped(line));
    match passed(&finished.lines) {
        Some(tests @ 1..) if finished.code == 0 && !skipped => Ok(tests),
        _ => Err(reason(finished)),
    }
}

/// Whether several programs' tests agreed, and those of compositions passed, which compare no cases: all counts
/// together, or the reason of the first that didn't.
pub(crate) fn agreement_of_all(
    finished: &[&Finished],
    composition: &[Finished],
) -> Result<Agreed, String> {
    let mut all = Agreed { cases: 0, tests: 0 };
    for finished in finished {
        let Agreed { cases, tests } = agreement(finished)?;
        all = Agreed { cases: all.cases + cases, tests: all.tests + tests };
    }
    for finished in composition {
        all.tests += all_passed(finished)?;
    }
    Ok(all)
}

/// `NAME: instructions N, stack A+B max N, jited N` or `NAME: refused: WHY`.
fn program(line: &str) -> Option<(String, Program)> {
    let (name, said) = line.split_once(": ")?;
    if let Some(why) = said.strip_prefix("refused: ") {
        return Some((name.to_owned(), Program::Refused { refused: shortened(why) }));
    }
    let mut parts = said.split(", ");
    let mut part = |name: &str| parts.next()?.strip_prefix(name)?.strip_prefix(' ');
    let instructions = part("instructions")?.parse().ok()?;
    let stack = part("stack")?.to_owned();
    let jited_bytes = part("jited")?.trim().parse().ok()?;
    Some((name.to_owned(), Program::Accepted(Cost { instructions, stack, jited_bytes })))
}

/// libtest's count.
fn passed(lines: &[String]) -> Option<u32> {
    let result = lines.iter().rev().find_map(|line| line.strip_prefix("test result: "))?;
    result.split_once(". ")?.1.split(' ').next()?.parse().ok()
}

/// `N cases, ...`, as the comparison prints it.
fn cases(lines: &[String]) -> Option<u32> {
    lines.iter().find_map(|line| line.split_once(" cases, ")?.0.parse().ok())
}

/// One line: that a test skipped itself, how the first one failed, or the exit code.
fn reason(finished: &Finished) -> String {
    let lines = &finished.lines;
    let skipped = lines.iter().find(|line| namespaces::says_skipped(line));
    let panicked = lines.iter().position(|line| line.contains(" panicked at "));
    let reason = skipped.or_else(|| lines.get(panicked? + 1));
    match reason {
        Some(reason) => shortened(reason),
        None if finished.code == 0 => "no test ran".to_owned(),
        None => format!("exit status {}", finished.code),
    }
}

fn shortened(text: &str) -> String {
    text.trim().chars().take(REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(code: i32, text: &str) -> Finished {
        Finished { code, lines: text.lines().map(str::to_owned).collect() }
    }

    #[test]
    fn programs_are_accepted_at_a_cost_or_refused_with_a_reason() {
        let said = finished(
            101,
            "running 1 test\n\
             verifier: tc_a: instructions 280461, stack 4+312+0+368, jited 32404\n\
             verifier: tc_b: refused: R1 !read_ok\n\
             verifier: tc_c: instructions 2, stack 8+0 max 32, jited 19\n",
        );
        let cost =
            Cost { instructions: 280_461, stack: "4+312+0+368".to_owned(), jited_bytes: 32_404 };
        let newer = Cost { instructions: 2, stack: "8+0 max 32".to_owned(), jited_bytes: 19 };
        let expected = BTreeMap::from([
            ("tc_a".to_owned(), Program::Accepted(cost)),
            ("tc_b".to_owned(), Program::Refused { refused: "R1 !read_ok".to_owned() }),
            ("tc_c".to_owned(), Program::Accepted(newer)),
        ]);
        assert_eq!(programs(&said), Ok(expected));
    }

    #[test]
    fn without_a_word_on_any_program_there_is_a_reason() {
        let said = finished(101, "thread 'a' panicked at b.rs:1:2:\nno such map\nnote: c\n");
        assert_eq!(programs(&said), Err("no such map".to_owned()));
        assert_eq!(programs(&finished(1, "")), Err("exit status 1".to_owned()));
    }

    #[test]
    fn agreement_has_counts() {
        let said = "test a ... ok\n3004 cases, 821 judged by the oracle\ntest result: ok. 17 passed; 0 failed";
        let said = finished(0, said);
        assert_eq!(agreement(&said), Ok(Agreed { cases: 3004, tests: 17 }));
        assert_eq!(agreement_of_all(&[&said, &said], &[]), Ok(Agreed { cases: 6008, tests: 34 }));
        let composed = finished(0, "test result: ok. 9 passed; 0 failed");
        let both = agreement_of_all(&[&said], &[composed]);
        assert_eq!(both, Ok(Agreed { cases: 3004, tests: 26 }));
        let failed = finished(101, "test result: ok. 17 passed; 0 failed");
        assert!(agreement_of_all(&[&said, &failed], &[]).is_err());
        assert!(agreement_of_all(&[&said], &[failed]).is_err());
    }

    #[test]
    fn neither_failing_nor_skipping_nor_running_nothing_is_agreement() {
        let failed = "thread 'a' (7) panicked at b.rs:1:2:\nOpening at a/b\ntest result: FAILED. 16 passed; 1 failed";
        assert_eq!(agreement(&finished(101, failed)), Err("Opening at a/b".to_owned()));
        let skipped = "SKIPPED: CAP_BPF is missing\ntest result: ok. 1 passed; 0 failed";
        let reason = "SKIPPED: CAP_BPF is missing".to_owned();
        assert_eq!(agreement(&finished(0, skipped)), Err(reason));
        let nothing = finished(0, "test result: ok. 0 passed; 0 failed");
        assert_eq!(agreement(&nothing), Err("no test ran".to_owned()));
        let other = finished(0, "test result: ok. 3 passed; 0 failed");
        assert_eq!(agreement(&other), Err("no cases were compared".to_owned()));
    }
}

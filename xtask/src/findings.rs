//! What a kernel said, held against what is promised and what is recorded.
//!
//! A promised kernel must load every program and agree on the corpus. Any other is reported as far as it goes:
//! only what it could do when it was recorded must still hold. Figures that are recorded may grow by a tenth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::budget::{AGREES, Cost, Expected, Program};
use crate::line::Line;
use crate::said::Agreed;

/// How far a figure may lie over its record, in percent.
const MARGIN: u64 = 10;
/// Half of what the verifier walks at most.
const HALF: u32 = 500_000;
/// How a figure becomes the recorded one.
const RECORD: &str = "if that is meant, run `cargo xtask kernels --record` and commit crates/ebpf-progs/objects/budget.json";

/// What a kernel said.
pub(crate) struct Seen {
    pub(crate) line: Line,
    pub(crate) programs: Result<BTreeMap<String, Program>, String>,
    pub(crate) corpus: Result<Agreed, String>,
    /// The corpus with a hardened JIT compiler; none if that wasn't tried.
    pub(crate) hardened: Option<Result<Agreed, String>>,
}

/// What is asked of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Every program loads, and the corpus agrees.
    pub(crate) promised: bool,
    /// Every program has its figures on record.
    pub(crate) recorded: bool,
}

/// Something to tell about a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    Failure(String),
    Warning(String),
    /// A limit of a kernel that isn't promised, or something to know.
    Note(String),
}

impl Finding {
    pub(crate) fn fails(&self) -> bool {
        matches!(self, Self::Failure(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failure(text) => write!(f, "FAILED: {text}"),
            Self::Warning(text) => write!(f, "warning: {text}"),
            Self::Note(text) => write!(f, "{text}"),
        }
    }
}

impl Seen {
    /// What would be recorded; nothing if the verifier wasn't heard.
    pub(crate) fn expected(&self) -> Option<Expected> {
        let programs = self.programs.as_ref().ok()?.clone();
        let hardened = self.hardened.iter().filter_map(|corpus| corpus.as_ref().err());
        let why = self.corpus.as_ref().err().into_iter().chain(hardened).next();
        Some(Expected { corpus: why.map_or(AGREES, String::as_str).to_owned(), programs })
    }

    /// Everything to tell, in the order of programs, corpus, hardened corpus.
    pub(crate) fn findings(&self, expected: Option<&Expected>, terms: Terms) -> Vec<Finding> {
        let mut findings = self.of_programs(expected, terms);
        let agreed = terms.promised || expected.is_some_and(|e| e.corpus == AGREES);
        let corpora = [("corpus", Some(&self.corpus)), ("hardened corpus", self.hardened.as_ref())];
        for (what, corpus) in corpora {
            if let Some(Err(why)) = corpus {
                findings.push(broken(agreed, format!("{what}: {why}")));
            }
        }
        findings
    }

    fn of_programs(&self, expected: Option<&Expected>, terms: Terms) -> Vec<Finding> {
        let nothing = BTreeMap::new();
        let recorded = expected.map_or(&nothing, |expected| &expected.programs);
        let seen = match &self.programs {
            Ok(programs) => programs,
            Err(why) => {
                let loaded = recorded.values().any(|p| matches!(p, Program::Accepted(_)));
                return vec![broken(terms.promised || loaded, format!("nothing loads: {why}"))];
            }
        };
        if recorded.is_empty() && !terms.recorded {
            let unloaded = seen.iter().flat_map(|(name, now)| of_program(name, None, now, terms));
            let note = Finding::Note(format!("no figures of {} are recorded", self.line));
            return unloaded.chain([note]).collect();
        }
        let names: BTreeSet<&String> = seen.keys().chain(recorded.keys()).collect();
        names
            .into_iter()
            .flat_map(|name| match seen.get(name) {
                Some(now) => of_program(name, recorded.get(name), now, terms),
                None => vec![Finding::Failure(format!(
                    "{name} is recorded, and the object has no such program; {RECORD}"
                ))],
            })
            .collect()
    }
}

/// A failure where the opposite was promised or recorded.
fn broken(fails: bool, text: String) -> Finding {
    if fails { Finding::Failure(text) } else { Finding::Note(text) }
}

fn of_program(name: &str, recorded: Option<&Program>, now: &Program, terms: Terms) -> Vec<Finding> {
    match (recorded, now) {
        (Some(Program::Accepted(_)), Program::Refused { refused }) => {
            vec![Finding::Failure(format!("{name} loaded when it was recorded, now: {refused}"))]
        }
        (_, Program::Refused { refused }) => {
            vec![broken(terms.promised, format!("{name} doesn't load: {refused}"))]
        }
        (Some(Program::Refused { .. }), Program::Accepted(_)) => {
            vec![Finding::Note(format!("{name} was refused when it was recorded, and loads now"))]
        }
        (None, Program::Accepted(cost)) => {
            let mut findings = half(name, None, cost, terms);
            if terms.recorded {
                let text = format!("{name}: {} isn't recorded; {RECORD}", cost.instructions);
                findings.push(Finding::Failure(text));
            }
            findings
        }
        (Some(Program::Accepted(old)), Program::Accepted(new)) => {
            let mut findings = half(name, Some(old), new, terms);
            findings.extend(grown(name, old, new));
            findings
        }
    }
}

/// Half of the verifier's patience is gone, which nobody recorded.
fn half(name: &str, old: Option<&Cost>, new: &Cost, terms: Terms) -> Vec<Finding> {
    let known = old.is_some_and(|old| old.instructions > HALF);
    if !terms.promised || known || new.instructions <= HALF {
        return Vec::new();
    }
    let instructions = new.instructions;
    vec![Finding::Warning(format!(
        "{name}: {instructions} of 1000000 instructions are over a half"
    ))]
}

fn grown(name: &str, old: &Cost, new: &Cost) -> Vec<Finding> {
    let chains = old.deepest_chain().zip(new.deepest_chain()).unwrap_or_default();
    let figures = [
        ("instructions", old.instructions, new.instructions),
        ("largest stack frame", old.largest_frame(), new.largest_frame()),
        ("deepest chain of stack frames", chains.0, chains.1),
        ("bytes of machine code", old.jited_bytes, new.jited_bytes),
    ];
    let over = |old: u32, new: u32| u64::from(new) * 100 > u64::from(old) * (100 + MARGIN);
    figures
        .into_iter()
        .filter(|(_, old, new)| over(*old, *new))
        .map(|(what, old, new)| {
            Finding::Failure(format!(
                "{name}: {what}: recorded {old}, now {new}, more than {MARGIN} % over; {RECORD}"
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISED: Terms = Terms { promised: true, recorded: true };
    const AS_FAR_AS_IT_GOES: Terms = Terms { promised: false, recorded: false };
    const AGREED: Result<Agreed, String> = Ok(Agreed { cases: 7, tests: 1 });

    fn accepted(instructions: u32) -> Program {
        Program::Accepted(Cost { instructions, stack: "8+312".to_owned(), jited_bytes: 1000 })
    }

    fn refused() -> Program {
        Program::Refused { refused: "R1 !read_ok".to_owned() }
    }

    fn seen(program: Program) -> Seen {
        Seen {
            line: Line::new(6, 1),
            programs: Ok(BTreeMap::from([("tc_a".to_owned(), program)])),
            corpus: AGREED,
            hardened: Some(AGREED),
        }
    }

    fn expected(program: Program) -> Expected {
        seen(program).expected().unwrap()
    }

    fn failures(findings: &[Finding]) -> usize {
        findings.iter().filter(|finding| finding.fails()).count()
    }

    #[test]
    fn a_tenth_over_the_record_is_within_the_margin_and_more_is_not() {
        let record = expected(accepted(1000));
        assert_eq!(seen(accepted(1100)).findings(Some(&record), PROMISED), []);
        for terms in [PROMISED, AS_FAR_AS_IT_GOES] {
            let findings = seen(accepted(1101)).findings(Some(&record), terms);
            let [Finding::Failure(text)] = findings.as_slice() else { panic!("{findings:?}") };
            for part in ["recorded 1000", "now 1101", "cargo xtask kernels --record"] {
                assert!(text.contains(part), "{text}");
            }
        }
    }

    #[test]
    fn stack_and_machine_code_have_their_margins_too() {
        let record = expected(accepted(1000));
        let cost = |stack: &str, jited_bytes| {
            Program::Accepted(Cost { instructions: 1000, stack: stack.to_owned(), jited_bytes })
        };
        let findings = seen(cost("8+400", 1200)).findings(Some(&record), PROMISED);
        assert_eq!(failures(&findings), 2, "{findings:?}");
        let record = expected(cost("8+312 max 352", 1000));
        let findings = seen(cost("300+312 max 512", 1000)).findings(Some(&record), PROMISED);
        assert_eq!(failures(&findings), 1, "{findings:?}");
    }

    #[test]
    fn a_promised_kernel_loads_everything_and_agrees() {
        let record = expected(refused());
        assert_eq!(failures(&seen(refused()).findings(Some(&record), PROMISED)), 1);
        let record = expected(accepted(1000));
        let wrong = || Err("Opening at a/b".to_owned());
        let corpus = Seen { corpus: wrong(), ..seen(accepted(1000)) };
        assert_eq!(failures(&corpus.findings(Some(&record), PROMISED)), 1);
        let hardened = Seen { hardened: Some(wrong()), ..seen(accepted(1000)) };
        assert_eq!(failures(&hardened.findings(Some(&record), PROMISED)), 1);
        let silent = Seen { programs: Err("no such map".to_owned()), ..seen(accepted(1000)) };
        assert_eq!(failures(&silent.findings(Some(&record), PROMISED)), 1);
    }

    #[test]
    fn another_kernel_goes_as_far_as_it_went() {
        let limit = seen(refused()).findings(Some(&expected(refused())), AS_FAR_AS_IT_GOES);
        let note = Finding::Note("tc_a doesn't load: R1 !read_ok".to_owned());
        assert_eq!(limit, [note]);
        let broken = seen(refused()).findings(Some(&expected(accepted(7))), AS_FAR_AS_IT_GOES);
        assert_eq!(failures(&broken), 1);
        let better = seen(accepted(7)).findings(Some(&expected(refused())), AS_FAR_AS_IT_GOES);
        assert!(matches!(better.as_slice(), [Finding::Note(text)] if text.contains("loads now")));
    }

    #[test]
    fn a_corpus_that_agreed_must_agree() {
        let wrong = || Seen { corpus: Err("x".to_owned()), ..seen(accepted(7)) };
        let agreed = expected(accepted(7));
        assert_eq!(failures(&wrong().findings(Some(&agreed), AS_FAR_AS_IT_GOES)), 1);
        let disagreed = wrong().expected().unwrap();
        let findings = wrong().findings(Some(&disagreed), AS_FAR_AS_IT_GOES);
        assert_eq!(findings, [Finding::Note("corpus: x".to_owned())]);
    }

    #[test]
    fn what_must_be_on_record_is_missed() {
        assert_eq!(failures(&seen(accepted(7)).findings(None, PROMISED)), 1);
        let running = Terms { promised: true, recorded: false };
        let findings = seen(accepted(7)).findings(None, running);
        assert!(matches!(findings.as_slice(), [Finding::Note(text)] if text.contains("6.1")));
        let gone = Expected {
            programs: BTreeMap::from([("tc_b".to_owned(), accepted(7))]),
            ..expected(accepted(7))
        };
        assert_eq!(failures(&seen(accepted(7)).findings(Some(&gone), PROMISED)), 2);
    }

    #[test]
    fn half_of_the_limit_is_a_warning_unless_recorded() {
        let warns = |record: u32, terms| {
            let findings =
                seen(accepted(500_001)).findings(Some(&expected(accepted(record))), terms);
            findings.iter().any(|finding| matches!(finding, Finding::Warning(_)))
        };
        assert!(warns(499_000, PROMISED));
        assert!(!warns(500_001, PROMISED));
        assert!(!warns(499_000, AS_FAR_AS_IT_GOES));
    }
}

//! The verifier's budget: what each program costs on each line of kernels, recorded in the tree.
//!
//! `crates/ebpf-progs/objects/budget.json` is the only source; `cargo xtask kernels --record` writes it, a
//! line of text for each program, and every other run compares with it by [`crate::findings`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::line::Line;
use crate::tree;

const FILE: &str = "budget.json";
/// How the corpus is recorded that all agreed on; anything else is a reason why not.
pub(crate) const AGREES: &str = "agrees";

/// Between the frames of a stack and its deepest chain.
const MAX: &str = " max ";

/// What verifying a program takes, and what comes out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Instructions that the verifier walked, of a million.
    pub(crate) instructions: u32,
    /// Bytes of stack: the program's and each subprogram's, joined by `+`; where the kernel tells it, behind
    /// `max` those of the deepest chain of calls.
    pub(crate) stack: String,
    /// Bytes of machine code, without hardening.
    pub(crate) jited_bytes: u32,
}

impl Cost {
    /// The largest frame of the stack.
    pub(crate) fn largest_frame(&self) -> u32 {
        let frames = self.stack.split(MAX).next().unwrap_or_default().split('+');
        frames.filter_map(|frame| frame.parse().ok()).max().unwrap_or(0)
    }

    /// The deepest chain of calls, if the kernel tells it.
    pub(crate) fn deepest_chain(&self) -> Option<u32> {
        self.stack.split_once(MAX)?.1.parse().ok()
    }
}

/// The verifier's word on a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Program {
    Accepted(Cost),
    Refused {
        /// The reason, for readers: another reason is no other result.
        refused: String,
    },
}

/// What is expected of a line of kernels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Expected {
    /// [`AGREES`], or why not.
    pub(crate) corpus: String,
    #[serde(flatten)]
    pub(crate) programs: BTreeMap<String, Program>,
}

/// The whole record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Budget {
    pub(crate) lines: BTreeMap<Line, Expected>,
}

impl Budget {
    /// Where it lies in the tree.
    pub(crate) fn place() -> PathBuf {
        tree::root().join(tree::SHIPPED.objects).join(FILE)
    }

    /// Reads a record; there may be none yet.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        if !path.exists() {
            return Ok(Self::default());
        }
        serde_json::from_slice(&tree::read(path)?)
            .map_err(|source| Error::Json { what: path.display().to_string(), source })
    }

    /// The text that is committed: a line for each program, so that a change reads well.
    pub(crate) fn to_text(&self) -> Result<String, Error> {
        let kernels = self.lines.iter().map(|(line, expected)| {
            let corpus =
                serde_json::to_string(&expected.corpus).map(|c| format!("    \"corpus\": {c}"));
            let programs = expected.programs.iter().map(|(name, program)| {
                serde_json::to_string(program).map(|text| format!("    \"{name}\": {text}"))
            });
            let body = std::iter::once(corpus).chain(programs).collect::<Result<Vec<_>, _>>()?;
            Ok(format!("  \"{line}\": {{\n{}\n  }}", body.join(",\n")))
        });
        let kernels = kernels
            .collect::<Result<Vec<_>, serde_json::Error>>()
            .map_err(|source| Error::Json { what: FILE.to_owned(), source })?;
        Ok(format!("{{\n{}\n}}\n", kernels.join(",\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Budget {
        let cost = Cost { instructions: 7, stack: "8+312+0".to_owned(), jited_bytes: 19 };
        let refused = Program::Refused { refused: "a \"word\"".to_owned() };
        let expected = |program| Expected {
            corpus: AGREES.to_owned(),
            programs: BTreeMap::from([("tc_a".to_owned(), program)]),
        };
        let lines = BTreeMap::from([
            (Line::new(6, 1), expected(Program::Accepted(cost))),
            (Line::new(5, 10), expected(refused)),
        ]);
        Budget { lines }
    }

    #[test]
    fn a_record_is_a_line_of_text_for_each_program() {
        let text = example().to_text().unwrap();
        let expected = r#"{
  "5.10": {
    "corpus": "agrees",
    "tc_a": {"refused":"a \"word\""}
  },
  "6.1": {
    "corpus": "agrees",
    "tc_a": {"instructions":7,"stack":"8+312+0","jited_bytes":19}
  }
}
"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        assert_eq!(Budget::read(&path).unwrap(), Budget::default());
        tree::write(&path, example().to_text().unwrap().as_bytes()).unwrap();
        assert_eq!(Budget::read(&path).unwrap(), example());
        tree::write(&path, b"{\"6.x\": {\"corpus\": \"agrees\"}}").unwrap();
        assert!(matches!(Budget::read(&path), Err(Error::Json { .. })));
    }

    #[test]
    fn the_largest_frame_counts_and_the_deepest_chain_if_it_is_told() {
        let cost = |stack: &str| Cost { instructions: 7, stack: stack.to_owned(), jited_bytes: 19 };
        let stack = |stack| (cost(stack).largest_frame(), cost(stack).deepest_chain());
        assert_eq!(stack("8+312+0"), (312, None));
        assert_eq!(stack("8+0+312 max 384"), (312, Some(384)));
        assert_eq!(stack("0"), (0, None));
    }

    #[test]
    fn the_record_in_the_tree_is_in_its_own_form() {
        let path = Budget::place();
        let budget = Budget::read(&path).unwrap();
        assert_eq!(budget.to_text().unwrap(), tree::read_text(&path).unwrap());
    }
}

//! What a kernel's verifier says of a program: what it costs to verify, or why it is refused.
//!
//! The figures come from the verifier's own log (`BPF_LOG_STATS`), because the kernel keeps only one of
//! them with a loaded program, and that only since Linux 5.16. Tested below on logs of several kernels, and
//! on the running one by `the_verifier_accepts_every_program`.

use std::fmt;

/// A program and what became of it; made by [`Builder::verify`](crate::Builder::verify).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// The program's name.
    pub program: &'static str,
    /// What it costs, or why the kernel refuses it: the verifier's last word, or the system call's.
    pub verdict: Result<VerifierCost, String>,
}

/// What verifying a program takes, and what came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierCost {
    /// Instructions that the verifier walked; the limit is a million.
    pub instructions: u32,
    /// Bytes of stack of the program and of each of its subprograms.
    pub stack: Vec<u32>,
    /// Bytes of stack of the deepest chain of calls, rounded up as the kernel does (Linux 7.2); the limit
    /// is 512.
    pub deepest_chain: Option<u32>,
    /// Bytes of machine code; 0 without a JIT compiler.
    pub jited_bytes: u32,
}

impl Verification {
    pub(crate) fn accepted(program: &'static str, log: &str, jited_bytes: u32) -> Self {
        let unknown =
            || format!("accepted, with an unknown log: {}", log.trim().replace('\n', "; "));
        let verdict = VerifierCost::read(log, jited_bytes).ok_or_else(unknown);
        Self { program, verdict }
    }

    pub(crate) fn refused(program: &'static str, log: &str, error: &std::io::Error) -> Self {
        let reason = last_word(log).map_or_else(|| error.to_string(), str::to_owned);
        Self { program, verdict: Err(reason) }
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Ok(VerifierCost { instructions, stack, deepest_chain, jited_bytes }) => {
                let stack: Vec<String> = stack.iter().map(u32::to_string).collect();
                let chain = deepest_chain.map_or_else(String::new, |bytes| format!(" max {bytes}"));
                let (program, stack) = (self.program, stack.join("+") + &chain);
                write!(
                    f,
                    "{program}: instructions {instructions}, stack {stack}, jited {jited_bytes}"
                )
            }
            Err(reason) => write!(f, "{}: refused: {reason}", self.program),
        }
    }
}

impl VerifierCost {
    /// From the verifier's log.
    pub(crate) fn read(log: &str, jited_bytes: u32) -> Option<Self> {
        let instructions = log.lines().find_map(|line| line.strip_prefix(PROCESSED))?;
        let mut stack = log.lines().find_map(|line| line.strip_prefix(STACK))?.split(" max ");
        let frames = stack.next()?.split('+');
        Some(Self {
            instructions: instructions.split(' ').next()?.parse().ok()?,
            stack: frames.map(|frame| frame.parse().ok()).collect::<Option<_>>()?,
            deepest_chain: stack.next().map(str::parse).transpose().ok()?,
            jited_bytes,
        })
    }
}

/// The last line that is no statistics.
fn last_word(log: &str) -> Option<&str> {
    let statistics = |line: &&str| STATISTICS.iter().any(|beginning| line.starts_with(beginning));
    log.lines().map(str::trim).rfind(|line| !line.is_empty() && !statistics(line))
}

const PROCESSED: &str = "processed ";
const STACK: &str = "stack depth ";
/// What the lines of statistics begin with.
const STATISTICS: [&str; 4] = [PROCESSED, STACK, "insns processed ", "verification time "];

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: &str = "verification time 151443 usec\nstack depth 0+304+368\n\
        processed 77305 insns (limit 1000000) max_states_per_insn 23 total_states 4231 \
        peak_states 1290 mark_read 0\n";

    /// The same of Linux 7.2.
    const ACCEPTED_SINCE_7_2: &str = "verification time 151443 usec\n\
        stack depth 0+304+368 max 384\ninsns processed 77305\n\
        processed 77305 insns (limit 1000000) max_states_per_insn 23 total_states 4231 \
        peak_states 1290 mark_read 0\n";

    #[test]
    fn the_cost_is_read_from_the_statistics() {
        for (log, stack) in [(ACCEPTED, "0+304+368"), (ACCEPTED_SINCE_7_2, "0+304+368 max 384")] {
            let verification = Verification::accepted("tc_sweep", log, 1234);
            assert_eq!(
                verification.to_string(),
                format!("tc_sweep: instructions 77305, stack {stack}, jited 1234")
            );
        }
    }

    #[test]
    fn a_log_without_statistics_is_no_cost() {
        assert!(Verification::accepted("tc_sweep", "processed 1 insns\n", 0).verdict.is_err());
        for stack in ["8+x", "8 max x"] {
            let log = format!("stack depth {stack}\nprocessed 1 insns\n");
            assert!(Verification::accepted("tc_sweep", &log, 0).verdict.is_err());
        }
    }

    #[test]
    fn a_refusal_is_the_verifiers_last_word() {
        let log = "BPF program is too large. Processed 1000001 insn\nverification time 9 usec\n\
                   stack depth 0+8\ninsns processed 1000001\nprocessed 1000001 insns (limit 1000000)\n\n";
        let error = std::io::Error::from_raw_os_error(7);
        let refused = Verification::refused("tc_sweep", log, &error);
        let reason = "BPF program is too large. Processed 1000001 insn";
        assert_eq!(refused.verdict, Err(reason.to_owned()));
        let silent = Verification::refused("tc_sweep", "", &error);
        assert_eq!(silent.verdict, Err(error.to_string()));
    }
}

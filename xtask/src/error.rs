//! What can go wrong in a chore, with the operands that a developer needs to mend it.

use std::path::PathBuf;
use std::process::ExitStatus;

/// Why a chore failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error("cannot start `{command}`")]
    Start { command: String, source: std::io::Error },
    #[error("`{command}` failed: {status}")]
    Failed { command: String, status: ExitStatus },
    #[error("{}: {doing}", path.display())]
    File { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{what} isn't the JSON that was expected")]
    Json { what: String, source: serde_json::Error },
    #[error("{what} isn't the TOML that was expected: {why}")]
    Toml { what: String, why: String },
    #[error("the object can't be parsed: {why}")]
    Object { why: String },
    #[error("{}: no comments that begin and end {bench}", path.display())]
    NoPlace { bench: String, path: PathBuf },
    #[error("{}: no function {name} with a body", path.display())]
    NoFunction { name: String, path: PathBuf },
    #[error(
        "the object holds subprograms that {list} doesn't name: {}\n\
         (a closure here means that the kernel refuses the object's BTF; make it a function, or add \
         the name to the list if it is meant to be a subprogram)",
        names.join(", ")
    )]
    Subprograms { list: PathBuf, names: Vec<String> },
    #[error("no toolchain that builds for {target}: run `cargo xtask setup`")]
    NoToolchain { target: &'static str },
    #[error("`{program}` isn't in PATH: run `cargo xtask setup{hint}`")]
    MissingProgram { program: &'static str, hint: &'static str },
    #[error(
        "a prebuilt object is stale: {what}\n  recorded {recorded}\n  now      {now}\n\
             run `cargo xtask build-ebpf` (with `--bench` for the bench's) and commit what it writes"
    )]
    Stale { what: &'static str, recorded: String, now: String },
    #[error("{reason}")]
    Privileges { reason: String },
    #[error("no test executable came out of `cargo test -p {package} --test {test}`")]
    NoTestBinary { package: String, test: String },
    #[error("no index of packages: {why}")]
    NoIndex { why: String },
    #[error("kernel {line} can't be had here: {why}")]
    NoKernel { line: String, why: String },
    #[error("no kernel could be asked: {}", kernels.join(", "))]
    NoKernels { kernels: Vec<String> },
    #[error("`{release}` is no release of a kernel")]
    Release { release: String },
    #[error("{}: no {what} inside", tree.display())]
    KernelTree { tree: PathBuf, what: &'static str },
    #[error("the virtual machine ended without a result{}; its last lines:\n{tail}",
            if *timed_out { " (time ran out)" } else { "" })]
    Machine { timed_out: bool, tail: String },
    #[error(
        "the virtual machine's kernel went down before it ran a program; its last lines:\n{tail}"
    )]
    Boot { tail: String },
    #[error("{package} would bring a build-time compiler for eBPF: {found}")]
    CompilerInTree { package: String, found: String },
    #[error("{count} inputs make a fuzz target fail: see the list above")]
    Findings { count: usize },
    #[error("no fuzz target is called {name}; there are {}", known.join(", "))]
    NoTarget { name: String, known: Vec<String> },
    #[error("the corpus couldn't be merged: see {}", log.display())]
    Merge { log: PathBuf },
    #[error(
        "no llvm-profdata and llvm-cov of LLVM {major}, which is the compiler's: \
         `rustup component add llvm-tools`, or `apt-get install llvm-{major}`"
    )]
    NoLlvmTools { major: String },
    #[error("no cargo-mutants: `cargo install cargo-mutants --locked`")]
    NoMutants,
    #[error("no file that decides is called {name}: `cargo xtask mutants --help`")]
    NoSuchCode { name: String },
    #[error("{count} mutants survived without a reason: see the list above")]
    Survivors { count: usize },
    #[error("{count} of {total} {what} failed")]
    Some { count: usize, total: usize, what: &'static str },
}

impl Error {
    /// Whether something is absent from this machine, rather than wrong in this tree.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Privileges { .. }
                | Self::NoToolchain { .. }
                | Self::MissingProgram { .. }
                | Self::NoKernel { .. }
                | Self::NoKernels { .. }
                | Self::NoLlvmTools { .. }
                | Self::NoMutants
        )
    }
}

/// The error and its causes, one to a line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!("\n  because: {inner}"));
        cause = inner.source();
    }
    text
}

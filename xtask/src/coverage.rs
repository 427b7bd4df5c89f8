//! `cargo xtask coverage`: which lines of the code the fuzz targets' inputs reach.
//!
//! The targets are built with the compiler's own instrumentation and replay every input of the
//! corpora and every kept crasher; llvm-profdata and llvm-cov of the compiler's LLVM count lines.
//! Only what a target compiles is counted: tests are not.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde::Deserialize;

use crate::error::Error;
use crate::fuzz::{self, Build};
use crate::process;
use crate::tree;

const INSTRUMENTED: Build =
    Build { directory: "fuzz/coverage", flags: &["-Cinstrument-coverage", "--cfg=coverage"] };
/// Whose files are listed one by one.
const LISTED: &str = "crates/pipeline/src";
/// Whose files are summed up.
const SUMMED: [&str; 5] = [
    "crates/abi/src",
    "crates/identity/src",
    "crates/kubernetes/src",
    "crates/policy/src/compile",
    "crates/policy/src/install",
];

/// Replays and prints; what is absent here is said in a line.
pub(crate) fn run() -> Result<ExitCode, Error> {
    report_or_skip().map(|()| ExitCode::SUCCESS)
}

/// The report, or why there is none.
pub(crate) fn report_or_skip() -> Result<(), Error> {
    match report() {
        Err(error) if error.is_absence() => {
            println!("SKIPPED coverage: {error}");
            Ok(())
        }
        other => other,
    }
}

fn report() -> Result<(), Error> {
    let tools = Tools::find()?;
    let targets = fuzz::targets()?;
    let executables = INSTRUMENTED.executables(&targets)?;
    let raw = tree::target().join("fuzz/coverage/raw");
    if raw.is_dir() {
        std::fs::remove_dir_all(&raw).map_err(|source| Error::File {
            doing: "cannot be removed",
            path: raw.clone(),
            source,
        })?;
    }
    let mut inputs = 0;
    for (target, executable) in targets.iter().zip(&executables) {
        let found = target.inputs()?;
        inputs += found.len();
        let profile = raw.join(format!("{}-%p.profraw", target.name));
        fuzz::run_inputs(executable, &found, |command| {
            command.env("LLVM_PROFILE_FILE", &profile);
        })?;
    }
    let files = tools.lines(&fuzz::inputs_in(&raw)?, &executables)?;
    println!("\nlines reached by {inputs} inputs of {} targets", targets.len());
    print(&files);
    Ok(())
}

fn print(files: &[Lines]) {
    println!("{:<44} {:>7} {:>7} {:>7}", "file", "lines", "reached", "%");
    let listed = files.iter().filter(|file| file.path.starts_with(LISTED));
    listed.clone().for_each(|file| file.print(&file.path.display().to_string()));
    for directory in [LISTED].iter().chain(&SUMMED) {
        let inside = files.iter().filter(|file| file.path.starts_with(directory));
        let sum = inside.fold(Lines::default(), |sum, file| Lines {
            count: sum.count + file.count,
            covered: sum.covered + file.covered,
            ..sum
        });
        sum.print(&format!("{directory}, all"));
    }
}

/// How many lines a file has that are compiled, and how many of them were reached.
#[derive(Default)]
struct Lines {
    /// Relative to the root.
    path: PathBuf,
    count: u64,
    covered: u64,
}

impl Lines {
    fn print(&self, name: &str) {
        let Self { count, covered, .. } = self;
        let percent = 100.0 * *covered as f64 / (*count).max(1) as f64;
        println!("{name:<44} {count:>7} {covered:>7} {percent:>7.1}");
    }
}

/// llvm-profdata and llvm-cov.
struct Tools {
    profdata: PathBuf,
    cov: PathBuf,
}

impl Tools {
    /// Those of the compiler's LLVM: they read what it writes, others may not.
    fn find() -> Result<Self, Error> {
        let version = fuzz::rustc_says("LLVM version:")?;
        let major = version.split('.').next().unwrap_or_default().to_owned();
        let tool =
            |name: &str| candidates(name, &major).into_iter().find(|path| is_of(path, &major));
        match (tool("llvm-profdata"), tool("llvm-cov")) {
            (Some(profdata), Some(cov)) => Ok(Self { profdata, cov }),
            _ => Err(Error::NoLlvmTools { major }),
        }
    }

    /// The lines of every file of this tree.
    fn lines(&self, raw: &[PathBuf], executables: &[PathBuf]) -> Result<Vec<Lines>, Error> {
        let merged = tree::target().join("fuzz/coverage/merged.profdata");
        let mut merge = Command::new(&self.profdata);
        process::capture(merge.args(["merge", "-sparse", "-o"]).arg(&merged).args(raw))?;
        let mut export = Command::new(&self.cov);
        export.args(["export", "-summary-only", "-instr-profile"]).arg(&merged);
        for executable in executables {
            export.arg("-object").arg(executable);
        }
        let text = process::capture(&mut export)?;
        let export: Export = serde_json::from_str(&text)
            .map_err(|source| Error::Json { what: "llvm-cov's output".to_owned(), source })?;
        Ok(export.data.into_iter().flat_map(|data| data.files).filter_map(File::lines).collect())
    }
}

/// Where a tool of LLVM may lie: rustup's component, Debian's packages, PATH.
fn candidates(name: &str, major: &str) -> Vec<PathBuf> {
    let sysroot = process::ask(Command::new("rustc").args(["--print", "target-libdir"]));
    let component = sysroot.map(|libdir| Path::new(&libdir).with_file_name("bin").join(name));
    let package = PathBuf::from(format!("/usr/lib/llvm-{major}/bin")).join(name);
    let versioned = process::find(&format!("{name}-{major}"));
    let plain = process::find(name);
    component.into_iter().chain([package]).chain(versioned).chain(plain).collect()
}

fn is_of(tool: &Path, major: &str) -> bool {
    let version = process::ask(Command::new(tool).arg("--version")).unwrap_or_default();
    version.contains(&format!("version {major}."))
}

#[derive(Deserialize)]
struct Export {
    data: Vec<Data>,
}

#[derive(Deserialize)]
struct Data {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    filename: PathBuf,
    summary: Summary,
}

#[derive(Deserialize)]
struct Summary {
    lines: Counts,
}

#[derive(Deserialize)]
struct Counts {
    count: u64,
    covered: u64,
}

impl File {
    /// `None`: it isn't of this tree.
    fn lines(self) -> Option<Lines> {
        let Counts { count, covered } = self.summary.lines;
        // The targets lie beside the crates, so that a path may go through their directory.
        let fuzz = fuzz::directory();
        let root = tree::root();
        let path = self
            .filename
            .strip_prefix(fuzz.join(".."))
            .or_else(|_| self.filename.strip_prefix(&root));
        Some(Lines { path: path.ok()?.to_owned(), count, covered })
    }
}

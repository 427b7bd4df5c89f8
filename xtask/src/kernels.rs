//! `cargo xtask kernels`: the kernel tests on other kernels.
//!
//! Each kernel boots in a virtual machine with the test executable in its initramfs, prints what the test
//! prints, and ends with its exit code. The corpus is smaller there, because emulation is slow.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::error::{self, Error};
use crate::initramfs::Initramfs;
use crate::kernel_image::{self, KernelImage};
use crate::machine::{self, BEGIN, END, Finished, QEMU};
use crate::namespaces;
use crate::process;
use crate::test_binary::TestTarget;
use crate::tree;

/// The versions that are promised.
const VERSIONS: [&str; 2] = ["6.1", "6.12"];
/// What the datapath and its tests use that may be a module.
const MODULES: [&str; 4] = ["veth", "dummy", "sch_ingress", "cls_bpf"];
/// Cases of the corpus under emulation.
const CORPUS: &str = "1000";
const BUSYBOX: &str = "busybox";
/// How the programs come that the rig needs, after `cargo xtask setup`.
const VM_SETUP: &str = " --install --vm";

/// Which kernels, and what to run on them.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Kernel versions, such as 6.1; all that are promised if none is named
    versions: Vec<String>,
    /// Run this executable instead of the datapath's kernel tests
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Seconds that one kernel may take
    #[arg(long, default_value_t = 300)]
    timeout: u64,
}

/// Runs the matrix and prints it.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Error> {
    require_programs()?;
    let binary = options.binary.clone().map_or_else(kernel_tests, Ok)?;
    let limit = Duration::from_secs(options.timeout);
    matrix(&options.versions, &binary, limit).map(|()| ExitCode::SUCCESS)
}

/// The matrix as CI runs it.
pub(crate) fn run_promised() -> Result<(), Error> {
    require_programs()?;
    matrix(&[], &kernel_tests()?, Duration::from_secs(300))
}

/// Fails with the first program that the rig needs and that isn't installed.
fn require_programs() -> Result<(), Error> {
    [QEMU, BUSYBOX, "modprobe", "depmod", "xz", "zstd", "dpkg", "apt-get"]
        .into_iter()
        .find(|program| process::find(program).is_none())
        .map_or(Ok(()), |program| Err(Error::MissingProgram { program, hint: VM_SETUP }))
}

fn kernel_tests() -> Result<PathBuf, Error> {
    TestTarget::kernel().build().map(|built| built.executable)
}

fn matrix(versions: &[String], binary: &Path, limit: Duration) -> Result<(), Error> {
    let defaults = VERSIONS.map(str::to_owned);
    let versions = if versions.is_empty() { &defaults } else { versions };
    let rows: Vec<Row> = versions.iter().map(|v| Row::of(v, binary, limit)).collect();
    println!("\n{:<28} {:<8} {:<32} {:>8}", "kernel", "loaded", "corpus", "seconds");
    rows.iter().for_each(|row| println!("{row}"));
    match rows.iter().filter(|row| row.failed).count() {
        0 => Ok(()),
        count => Err(Error::Some { count, total: rows.len(), what: "kernels" }),
    }
}

/// A line of the table.
struct Row {
    kernel: String,
    loaded: &'static str,
    corpus: String,
    failed: bool,
    took: Duration,
}

impl Row {
    fn of(version: &str, binary: &Path, limit: Duration) -> Self {
        println!("--- kernel {version}");
        let begun = Instant::now();
        let (kernel, result) = match KernelImage::of(version) {
            Ok(image) => (image.release.clone(), run_on(&image, binary, limit)),
            Err(error) => (version.to_owned(), Err(error)),
        };
        let took = begun.elapsed();
        match result {
            Ok(finished) => Self {
                kernel,
                loaded: loaded(&finished.lines),
                corpus: corpus(&finished),
                failed: finished.code != 0,
                took,
            },
            Err(error) => {
                eprintln!("{}", error::chain(&error));
                Self { kernel, loaded: "-", corpus: "did not run".to_owned(), failed: true, took }
            }
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, loaded, corpus, took, .. } = self;
        write!(f, "{kernel:<28} {loaded:<8} {corpus:<32} {:>8.1}", took.as_secs_f32())
    }
}

fn run_on(image: &KernelImage, binary: &Path, limit: Duration) -> Result<Finished, Error> {
    let archive = pack(image, binary)?;
    let directory = tempfile::tempdir().map_err(|source| Error::File {
        doing: "no temporary directory",
        path: std::env::temp_dir(),
        source,
    })?;
    let initramfs = directory.path().join("initramfs");
    tree::write(&initramfs, &archive)?;
    machine::boot(&image.vmlinuz, &initramfs, limit)
}

fn pack(image: &KernelImage, binary: &Path) -> Result<Vec<u8>, Error> {
    let mut archive = Initramfs::default();
    for directory in ["/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/lib/modules"] {
        archive.directory(directory);
    }
    let busybox =
        process::find(BUSYBOX).ok_or(Error::MissingProgram { program: BUSYBOX, hint: VM_SETUP })?;
    archive.program("/bin/busybox", &busybox)?;
    archive.program("/job", binary)?;
    let mut inserts = String::new();
    for file in image.modules(&MODULES)? {
        let stem = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path =
            format!("/lib/modules/{}", stem.trim_end_matches(".xz").trim_end_matches(".zst"));
        archive.file(&path, &kernel_image::module_bytes(&file)?);
        inserts.push_str(&format!("insmod {path}\n"));
    }
    archive.file("/init", init(&inserts).as_bytes());
    Ok(archive.finish())
}

/// What the machine runs: mounts, modules, the program, the end.
fn init(inserts: &str) -> String {
    format!(
        "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root FLOWGATE_CORPUS={CORPUS} RUST_BACKTRACE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
{inserts}ip link set lo up
ulimit -l unlimited
echo '{BEGIN}'
/job --test-threads=1 --show-output
echo \"{END}$?\"
poweroff -f
"
    )
}

/// From libtest's lines: the tests that load have `load` in their names.
fn loaded(lines: &[String]) -> &'static str {
    let results: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "))
        .filter(|(name, _)| name.contains("load"))
        .map(|(_, result)| result)
        .collect();
    match results.as_slice() {
        [] => "-",
        all if all.iter().all(|result| *result == "ok") => "yes",
        _ => "NO",
    }
}

/// libtest's last word, with what skipped itself.
fn corpus(finished: &Finished) -> String {
    let result = finished.lines.iter().rev().find_map(|line| line.strip_prefix("test result: "));
    let Some(result) = result else { return format!("exit status {}", finished.code) };
    let parts: Vec<&str> = result.split(';').take(2).map(str::trim).collect();
    let skipped = finished.lines.iter().filter(|line| namespaces::says_skipped(line)).count();
    match skipped {
        0 => parts.join(", "),
        count => format!("{}, {count} skipped", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn loading_is_read_from_the_tests_names() {
        assert_eq!(
            loaded(&lines("test every_program_loads ... ok\ntest agrees ... FAILED")),
            "yes"
        );
        assert_eq!(loaded(&lines("test every_program_loads ... FAILED")), "NO");
        assert_eq!(loaded(&lines("test agrees ... ok")), "-");
    }

    #[test]
    fn a_skipped_test_is_told() {
        let text = "SKIPPED tcx: too old\ntest result: ok. 3 passed; 0 failed; 0 ignored";
        let finished = Finished { code: 0, lines: lines(text) };
        assert_eq!(corpus(&finished), "ok. 3 passed, 0 failed, 1 skipped");
    }
}

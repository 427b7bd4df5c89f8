//! What a virtual machine gets to run: programs of this machine in an initramfs, one after the other.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::Error;
use crate::initramfs::Initramfs;
use crate::kernel_image::{self, KernelImage};
use crate::machine::{self, BEGIN, DONE, END, Finished};
use crate::process;
use crate::setup::VM_SETUP;
use crate::tree;

/// What the datapath and its tests use that may be a module.
const MODULES: [&str; 5] = ["veth", "dummy", "bridge", "sch_ingress", "cls_bpf"];
const BUSYBOX: &str = "busybox";
pub(crate) const STRIP: &str = "strip";

/// A test executable with its arguments, and how the JIT compiler is set while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) executable: PathBuf,
    /// What it starts, at the same place in the machine.
    pub(crate) programs: Vec<PathBuf>,
    pub(crate) arguments: Vec<&'static str>,
    /// Constants blinded for all users (`net.core.bpf_jit_harden` 2), or as they are (0).
    pub(crate) hardened: bool,
}

/// Boots a kernel and runs the jobs on it, with `FLOWGATE_CORPUS` cases; at most for `limit`.
pub(crate) fn run(
    image: &KernelImage,
    jobs: &[Job],
    corpus: u32,
    limit: Duration,
) -> Result<Vec<Finished>, Error> {
    let directory = tempfile::tempdir().map_err(|source| Error::File {
        doing: "no temporary directory",
        path: std::env::temp_dir(),
        source,
    })?;
    let archive = pack(image, jobs, (corpus, directory.path()))?;
    let initramfs = directory.path().join("initramfs");
    tree::write(&initramfs, &archive)?;
    let name = image.release.split('-').next().unwrap_or_default();
    machine::boot(&image.vmlinuz, &initramfs, limit, name)
}

/// With a directory for what lies on the disk meanwhile.
fn pack(
    image: &KernelImage,
    jobs: &[Job],
    (corpus, directory): (u32, &Path),
) -> Result<Vec<u8>, Error> {
    let mut archive = Initramfs::default();
    for directory in ["/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/lib/modules"] {
        archive.directory(directory);
    }
    let busybox =
        process::find(BUSYBOX).ok_or(Error::MissingProgram { program: BUSYBOX, hint: VM_SETUP })?;
    archive.program("/bin/busybox", &busybox)?;
    for job in jobs {
        archive.program(&place(&job.executable), &stripped(&job.executable, directory)?)?;
        for program in &job.programs {
            archive.program(&program.to_string_lossy(), &stripped(program, directory)?)?;
        }
    }
    let mut inserts = String::new();
    for file in image.modules(&MODULES)? {
        let stem = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path =
            format!("/lib/modules/{}", stem.trim_end_matches(".xz").trim_end_matches(".zst"));
        archive.file(&path, &kernel_image::module_bytes(&file)?);
        inserts.push_str(&format!("insmod {path}\n"));
    }
    archive.file("/init", init(&inserts, jobs, corpus).as_bytes());
    Ok(archive.finish())
}

/// An executable without what debuggers read: nine tenths of it, of which the machine's memory hasn't room for many.
fn stripped(executable: &Path, directory: &Path) -> Result<PathBuf, Error> {
    let to = directory.join(executable.file_name().unwrap_or_default());
    process::capture(Command::new(STRIP).arg("--strip-debug").arg(executable).arg("-o").arg(&to))?;
    Ok(to)
}

/// Where an executable lies in the machine.
fn place(executable: &Path) -> String {
    format!("/jobs/{}", executable.file_name().unwrap_or_default().to_string_lossy())
}

/// What the machine runs: mounts, modules, the jobs, the end.
fn init(inserts: &str, jobs: &[Job], corpus: u32) -> String {
    let jobs: String = jobs.iter().map(script).collect();
    format!(
        "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root FLOWGATE_CORPUS={corpus} RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
{inserts}ip link set lo up
ulimit -l unlimited
{jobs}echo '{DONE}'
poweroff -f
"
    )
}

/// A job whose setting is refused doesn't run: it would say nothing about that setting.
fn script(job: &Job) -> String {
    let harden = if job.hardened { 2 } else { 0 };
    let command = std::iter::once(place(&job.executable))
        .chain(job.arguments.iter().map(|argument| format!("'{argument}'")))
        .collect::<Vec<_>>()
        .join(" ");
    format!(
        "echo '{BEGIN}'
echo {harden} > /proc/sys/net/core/bpf_jit_harden && {command}
echo \"{END}$?\"
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_runs_under_its_own_setting() {
        let job = |hardened| Job {
            executable: "/target/kernel-1".into(),
            programs: Vec::new(),
            arguments: vec!["--exact", "a_test"],
            hardened,
        };
        let script = init("", &[job(false), job(true)], 7);
        let place = |text: &str| script.find(text).unwrap_or_else(|| panic!("{text}: {script}"));
        let off = place("echo 0 > /proc/sys/net/core/bpf_jit_harden && /jobs/kernel-1");
        let on = place("echo 2 > /proc/sys/net/core/bpf_jit_harden && /jobs/kernel-1");
        assert!(off < on && on < place(DONE) && place(DONE) < place("poweroff"));
        assert!(script.contains("/jobs/kernel-1 '--exact' 'a_test'\n"));
        assert!(script.contains("FLOWGATE_CORPUS=7"));
    }
}

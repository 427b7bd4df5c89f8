//! `cargo xtask setup`: what a rebuild of the objects needs, what is missing, and how to get it.
//!
//! Users of the crates need none of this; neither does `cargo test` without privileges.

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::error::Error;
use crate::process;
use crate::toolchain::{self, BPF_LINKER, Compiler, Kind, Toolchain};

/// Debian's toolchain for the programs, and the LLVM that bpf-linker is built against.
const BUILD_PACKAGES: [&str; 6] = [
    "llvm-22-dev",
    "libpolly-22-dev",
    "rustc-web",
    "cargo-web",
    "libstd-rust-web-dev-bpf",
    "rust-web-llvm",
];
/// What `cargo xtask kernels` runs. (qemu-utils isn't named: apt may have to remove it.)
const VM_PACKAGES: [&str; 6] =
    ["qemu-system-x86", "binutils", "busybox-static", "kmod", "zstd", "xz-utils"];
/// How a hint goes on that means the packages of the virtual machines.
pub(crate) const VM_SETUP: &str = " --install --vm";
const LLVM_BIN: &str = "/usr/lib/llvm-22/bin";

/// What to look at, and whether to mend it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run the commands that are missing (as root, on Debian)
    #[arg(long)]
    install: bool,
    /// Also what the virtual machines of `cargo xtask kernels` need
    #[arg(long)]
    vm: bool,
}

/// Reports, installs if asked, and fails while something is missing.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Error> {
    let missing = report(options);
    if missing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if !options.install {
        println!("\nmissing; `cargo xtask setup --install` runs these:");
        missing.iter().for_each(|step| println!("  {}", step.shown()));
        return Ok(ExitCode::FAILURE);
    }
    for step in &missing {
        step.run()?;
    }
    let left = report(options);
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A command that brings something missing.
enum Step {
    Packages(Vec<&'static str>),
    BpfLinker,
}

impl Step {
    fn shown(&self) -> String {
        match self {
            Self::Packages(names) => {
                format!("apt-get update && apt-get install -y {}", names.join(" "))
            }
            Self::BpfLinker => format!(
                "PATH={LLVM_BIN}:$PATH cargo install bpf-linker --version {BPF_LINKER} --locked \
                 --no-default-features --features llvm-22"
            ),
        }
    }

    fn run(&self) -> Result<(), Error> {
        match self {
            Self::Packages(names) => install_packages(names),
            Self::BpfLinker => process::run(&mut install_bpf_linker()),
        }
    }
}

/// A fresh machine has no package lists, or old ones.
fn install_packages(names: &[&str]) -> Result<(), Error> {
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-o", "Acquire::Retries=3"]).args(arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    process::run(&mut apt(&["update"]))?;
    process::run(apt(&["install", "-y", "--no-install-recommends"]).args(names))
}

fn install_bpf_linker() -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::iter::once(LLVM_BIN.into()).chain(std::env::split_paths(&path)));
    let mut command = process::cargo();
    command
        .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"])
        .args(["--no-default-features", "--features", "llvm-22"])
        .current_dir(std::env::temp_dir());
    if let Ok(path) = path {
        command.env("PATH", path);
    }
    command
}

/// Prints what is there and returns the steps to what isn't.
fn report(options: &Options) -> Vec<Step> {
    let mut missing = Vec::new();
    let compilers = report_compilers();
    let linker = report_linker();
    let mut packages = Vec::new();
    if !compilers {
        packages.extend(BUILD_PACKAGES);
    } else if !linker {
        packages.extend(&BUILD_PACKAGES[..2]);
    }
    if options.vm {
        packages.extend(VM_PACKAGES);
    }
    packages.retain(|name| !is_installed(name));
    if options.vm {
        let absent = VM_PACKAGES.iter().filter(|name| packages.contains(name)).count();
        println!("virtual machines   {}", if absent == 0 { "ready" } else { "packages missing" });
    }
    if !packages.is_empty() {
        missing.push(Step::Packages(packages));
    }
    if !linker {
        missing.push(Step::BpfLinker);
    }
    if let Ok(toolchain) = Toolchain::find(None) {
        println!("chosen             {}", toolchain.describe());
    }
    missing
}

fn report_compilers() -> bool {
    let debian = Compiler::find(Kind::Debian).is_some();
    let nightly = Compiler::find(Kind::Nightly).is_some();
    let target = toolchain::TARGET;
    println!("Debian's rustc     {}", found(debian, &format!("no prebuilt core for {target}")));
    println!("rustup's nightly   {}", found(nightly, "no nightly with rust-src"));
    debian || nightly
}

/// Another version might work, but its objects wouldn't be comparable.
fn report_linker() -> bool {
    let version = process::find("bpf-linker")
        .and_then(|path| process::ask(Command::new(path).arg("--version")))
        .unwrap_or_default();
    let right = version.ends_with(BPF_LINKER);
    println!("bpf-linker {BPF_LINKER}  {}", found(right, "not installed in this version"));
    right
}

fn found(yes: bool, otherwise: &str) -> String {
    if yes { "found".to_owned() } else { format!("not found ({otherwise})") }
}

fn is_installed(package: &str) -> bool {
    Path::new("/usr/bin/dpkg-query").exists()
        && process::ask(Command::new("dpkg-query").args([
            "-W",
            "-f",
            "${db:Status-Status}",
            package,
        ]))
        .is_some_and(|status| status == "installed")
}

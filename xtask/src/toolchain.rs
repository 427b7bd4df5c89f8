//! Which compiler builds the eBPF programs.
//!
//! Two kinds will do: Debian's rustc with its prebuilt `core` for BPF (the pinned one: the shipped object
//! came from it), or rustup's nightly with `rust-src`. Nothing here reads the environment's own choice of
//! a toolchain: `cargo xtask` itself runs under one that can't compile for BPF.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::manifest;
use crate::process;

/// What the programs are compiled for.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// The linker's version that the shipped object was built with.
pub(crate) const BPF_LINKER: &str = "0.13.0";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// The kinds of toolchain that can build the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Debian's rustc with its prebuilt `core` for BPF
    Debian,
    /// rustup's nightly, which builds `core` from rust-src
    Nightly,
}

/// A toolchain that was found.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    pub(crate) kind: Kind,
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    pub(crate) bpf_linker: PathBuf,
    pub(crate) sysroot: PathBuf,
    pub(crate) versions: manifest::Toolchain,
}

impl Toolchain {
    /// The toolchain asked for, or the first one found, the pinned kind first.
    pub(crate) fn find(wanted: Option<Kind>) -> Result<Self, Error> {
        let bpf_linker = process::find("bpf-linker")
            .ok_or(Error::MissingProgram { program: "bpf-linker", hint: "" })?;
        let kinds = wanted.map_or_else(|| vec![Kind::Debian, Kind::Nightly], |kind| vec![kind]);
        let (kind, compiler) = kinds
            .into_iter()
            .find_map(|kind| Compiler::find(kind).map(|found| (kind, found)))
            .ok_or(Error::NoToolchain { target: TARGET })?;
        let versions = versions(&compiler.rustc, &bpf_linker)?;
        let Compiler { cargo, rustc, sysroot } = compiler;
        Ok(Self { kind, cargo, rustc, bpf_linker, sysroot, versions })
    }

    /// One line that says what this is.
    pub(crate) fn describe(&self) -> String {
        let kind = match self.kind {
            Kind::Debian => "Debian's rustc with a prebuilt core",
            Kind::Nightly => "rustup's nightly with build-std",
        };
        let manifest::Toolchain { rustc, llvm, bpf_linker } = &self.versions;
        format!("{kind}: rustc {rustc}, LLVM {llvm}, bpf-linker {bpf_linker}")
    }
}

/// A compiler with a `core` for the target.
pub(crate) struct Compiler {
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    pub(crate) sysroot: PathBuf,
}

impl Compiler {
    /// The compiler of a kind, if it is installed with what the target needs.
    pub(crate) fn find(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Debian => Self::debian(),
            Kind::Nightly => Self::nightly(),
        }
    }

    fn debian() -> Option<Self> {
        let sysroot = sysroot(Path::new(DEBIAN_RUSTC))?;
        let core = sysroot.join("lib/rustlib").join(TARGET).join("lib");
        let (cargo, rustc) = (PathBuf::from(DEBIAN_CARGO), PathBuf::from(DEBIAN_RUSTC));
        (core.is_dir() && cargo.is_file()).then_some(Self { cargo, rustc, sysroot })
    }

    fn nightly() -> Option<Self> {
        let mut rustup = Command::new("rustup");
        rustup.args(["run", "nightly", "rustc", "--print", "sysroot"]);
        let sysroot = PathBuf::from(process::ask(clean(&mut rustup))?);
        let sources = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
        let (cargo, rustc) = (sysroot.join("bin/cargo"), sysroot.join("bin/rustc"));
        sources.is_file().then_some(Self { cargo, rustc, sysroot })
    }
}

/// Clears what the environment says about toolchains, flags, profiles and target directories.
///
/// Where cargo finds its home, registries and network stays: those decide nothing about the result.
pub(crate) fn clean(command: &mut Command) -> &mut Command {
    const KEPT: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "RUSTUP_HOME",
        "RUSTUP_AUTO_INSTALL",
        "RUST_BACKTRACE",
    ];
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let ours =
            name.starts_with("CARGO") || name.starts_with("RUST") || name == "LD_LIBRARY_PATH";
        if ours && !KEPT.iter().any(|kept| name.starts_with(kept)) {
            command.env_remove(name);
        }
    }
    command
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let mut command = Command::new(rustc);
    command.args(["--print", "sysroot"]);
    process::ask(clean(&mut command)).map(PathBuf::from)
}

fn versions(rustc: &Path, bpf_linker: &Path) -> Result<manifest::Toolchain, Error> {
    let mut rustc_command = Command::new(rustc);
    let text = process::capture(clean(rustc_command.arg("-vV")))?;
    let linker = process::capture(clean(Command::new(bpf_linker).arg("--version")))?;
    let field = |name| text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("unknown").trim();
    Ok(manifest::Toolchain {
        rustc: field("rustc").to_owned(),
        llvm: field("LLVM version:").to_owned(),
        bpf_linker: linker.trim().trim_start_matches("bpf-linker").trim().to_owned(),
    })
}

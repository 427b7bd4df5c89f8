//! The project's chores: `cargo xtask --help` lists them.
//!
//! Each command is a file of its own: [`setup`] (what a rebuild needs), [`build`] (the eBPF object),
//! [`verify`] (the shipped object against its sources), [`kernels`] (other kernels in virtual
//! machines), [`fuzz_run`] (fuzzing, by the clock), [`coverage`] (what the corpora reach),
//! [`mutants`] (whether tests notice a change), [`measure`] and [`ablate`] (figures), [`lanes`] (what CI
//! runs). Nothing here is a dependency of any crate that users add.

mod ablate;
mod ask;
mod budget;
mod build;
mod coverage;
mod error;
mod findings;
mod fuzz;
mod fuzz_run;
mod guest;
mod initramfs;
mod kernel_image;
mod kernels;
mod lanes;
mod line;
mod machine;
mod manifest;
mod measure;
mod mutants;
mod namespaces;
mod object_file;
mod package_index;
mod packaged;
mod privileges;
mod process;
mod rustc_wrapper;
mod said;
mod setting;
mod setup;
mod strip;
mod table;
mod test_binary;
mod toolchain;
mod tree;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "flowgate's chores")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say what rebuilding the eBPF objects needs, and what of it is missing
    Setup(setup::Options),
    /// Rebuild the eBPF objects that users load, and their manifests
    BuildEbpf {
        /// Build this one alone
        #[arg(long, value_enum, value_name = "OBJECT")]
        only: Option<build::Only>,
        /// Build the program of the kernel bench instead
        #[arg(long, conflicts_with = "only")]
        bench: bool,
        /// Write here instead of where the prebuilt object lies
        #[arg(long, value_name = "DIR", requires = "only")]
        out: Option<PathBuf>,
        /// Use this toolchain instead of the first one found
        #[arg(long, value_enum)]
        toolchain: Option<toolchain::Kind>,
    },
    /// Build objects of which each lacks a piece, for the bench that says what each piece costs
    Ablate,
    /// Run the benches and put their tables into docs/measurements.md
    Measure {
        /// Benches to run, in the order given; otherwise all of them
        #[arg(value_enum, value_name = "BENCH")]
        benches: Vec<measure::Bench>,
    },
    /// Rebuild the object and compare it with the one shipped
    VerifyPrebuilt {
        /// Compare hashes alone: needs no toolchain for eBPF
        #[arg(long)]
        hashes_only: bool,
    },
    /// Run the kernel tests on other kernels, in virtual machines, and hold the verifier's budget
    Kernels(kernels::Options),
    /// Fuzz each target for some minutes, then say what of the code the corpora reach
    Fuzz(fuzz_run::Options),
    /// Say what of the code the fuzz targets' corpora reach
    Coverage,
    /// Change the code that decides, and ask whether a test notices
    Mutants(mutants::Options),
    /// Run the lanes of CI, all of them or those named
    Ci {
        /// Lanes to run, in the order given
        #[arg(value_enum, value_name = "LANE")]
        lanes: Vec<lanes::Lane>,
    },
}

fn main() -> ExitCode {
    if rustc_wrapper::is_requested() {
        return rustc_wrapper::run();
    }
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", error::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Setup(options) => setup::run(&options),
        Command::BuildEbpf { only, bench, out, toolchain } => {
            let products = if bench { vec![tree::BENCH] } else { build::Only::products(only) };
            let mut products = products.into_iter();
            products.try_for_each(|product| build::run(product, out.as_deref(), toolchain))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Ablate => ablate::run().map(|()| ExitCode::SUCCESS),
        Command::Measure { benches } => measure::run(&benches).map(|()| ExitCode::SUCCESS),
        Command::VerifyPrebuilt { hashes_only: true } => {
            verify::hashes().map(|()| ExitCode::SUCCESS)
        }
        Command::VerifyPrebuilt { hashes_only: false } => verify::run().map(|()| ExitCode::SUCCESS),
        Command::Kernels(options) => kernels::run(&options),
        Command::Fuzz(options) => fuzz_run::run(&options),
        Command::Coverage => coverage::run(),
        Command::Mutants(options) => mutants::run(&options),
        Command::Ci { lanes } => Ok(lanes::run(&lanes)),
    }
}

//! Says what an input of the target `hooks` or `conntrack` does:
//! `cargo run --example steps hooks FILE` in `fuzz/`.

use std::{env, fs, process::ExitCode};

use flowgate_conformance::walk::{Rig, Walk};
use flowgate_fuzz::step::{self, Steps};

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let (Some(target), Some(path)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: steps hooks|conntrack FILE");
        return ExitCode::FAILURE;
    };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("{path}: {error}");
            return ExitCode::FAILURE;
        }
    };
    match target.as_str() {
        "conntrack" => print!("{}", Walk::read(&bytes, Rig::new().timeouts())),
        _ => {
            let shapes = step::shapes();
            let steps = Steps::read(&bytes, &shapes).enumerate();
            steps.for_each(|(number, step)| println!("{number}: {step:02x?}"));
        }
    }
    ExitCode::SUCCESS
}

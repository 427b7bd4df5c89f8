//! Every input of the corpora and every kept crasher goes through its target once. No fuzzing engine is
//! needed for that.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use flowgate_fuzz::targets;

/// Directories that hold a directory of inputs for each target.
const INPUTS: [&str; 2] = ["corpus", "crashers"];

/// A test for each target, and one that none is forgotten.
macro_rules! replay {
    ($($target:ident),+ $(,)?) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target), |input| {
                    let _whether_it_is_worth_keeping = targets::$target::run(input);
                });
            }
        )+

        #[test]
        fn every_corpus_is_replayed() {
            let replayed = [$(stringify!($target)),+];
            let found = fs::read_dir(directory().join(INPUTS[0])).expect("the corpora are readable");
            for corpus in found {
                let name = corpus.expect("and so is each").file_name();
                assert!(replayed.iter().any(|target| name == *target), "{name:?} has no target");
            }
        }
    };
}

replay!(
    balance,
    capture,
    compile,
    conntrack,
    decapsulate,
    events,
    hooks,
    lb_config,
    manifest,
    parse_frame,
);

fn replay(target: &str, run: impl Fn(&[u8])) {
    let inputs = inputs(target);
    assert!(!inputs.is_empty(), "{target} has no inputs");
    for path in &inputs {
        let input = fs::read(path).expect("an input is readable");
        // The panic itself is printed where it happens; which input it was is not.
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&input)));
        assert!(outcome.is_ok(), "{target} fails on {}", path.display());
    }
    println!("{target}: {} inputs", inputs.len());
}

fn directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = INPUTS
        .into_iter()
        .filter_map(|kind| fs::read_dir(directory().join(kind).join(target)).ok())
        .flatten()
        .map(|entry| entry.expect("the inputs are listed").path())
        .collect();
    found.sort();
    found
}

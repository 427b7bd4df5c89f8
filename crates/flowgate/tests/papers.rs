//! The project's papers say what the code does.
//!
//! That the examples run is shown by the doctests; here is what no compiler sees: the README and the
//! crate's front page show the same example, and the operators' page knows every drop reason. The papers
//! lie outside of the package, so in a packaged crate these tests have nothing to read and say so.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use flowgate::{
    abi::{DropReason, event::Counter},
    policy::cost::Table,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A paper of the repository; `None`: this is a packaged crate.
fn paper(path: &str) -> Option<String> {
    if !root().join("ARCHITECTURE.md").is_file() {
        println!("SKIPPED: {path} isn't part of the package");
        return None;
    }
    Some(fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}")))
}

/// The first Rust example of a text, without empty lines.
fn example(text: &str, fence: &str) -> Vec<String> {
    let behind = text.split_once(fence).expect("there is an example").1;
    let example = behind.split_once("\n```").expect("the example ends").0;
    example.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn the_readme_and_the_front_page_show_the_same_twenty_lines() {
    let Some(readme) = paper("README.md") else { return };
    let front: String = include_str!("../src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    let shown = example(&readme, "```rust\n");
    assert_eq!(shown, example(&front, "```\n"));
    assert!(shown.len() <= 20, "{} lines", shown.len());
}

/// The rows of a page's table by their first column, if that is a number.
fn rows(page: &str) -> BTreeMap<u8, Vec<&str>> {
    let rows = page.lines().filter_map(|line| {
        let columns: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        Some((columns.first()?.parse().ok()?, columns))
    });
    rows.collect()
}

#[test]
fn the_operators_page_names_every_drop_reason() {
    let Some(page) = paper("docs/drop-reasons.md") else { return };
    let rows = rows(&page);
    for &reason in DropReason::ALL {
        let row = rows.get(&(reason as u8));
        let row = row.unwrap_or_else(|| panic!("no row for {} ({reason:?})", reason as u8));
        assert_eq!(row[1], format!("`{reason:?}`"), "variant of {}", reason as u8);
        assert_eq!(row[2], reason.text(), "text of {reason:?}");
        assert!(row[3..5].iter().all(|column| !column.is_empty()), "{reason:?} isn't explained");
    }
    let unknown: Vec<_> = rows.keys().filter(|n| DropReason::from_number(**n).is_none()).collect();
    assert!(unknown.is_empty(), "no drop reason has the numbers {unknown:?}");
}

#[test]
fn the_operators_page_names_every_counter() {
    let Some(page) = paper("docs/drop-reasons.md") else { return };
    for counter in Counter::ALL {
        assert!(page.contains(&format!("\n| `{}` |", counter.name())), "{counter:?}");
    }
}

#[test]
fn the_operators_page_names_every_table() {
    let Some(page) = paper("docs/drop-reasons.md") else { return };
    for table in Table::ALL {
        assert!(page.contains(&format!("\n| `{}` |", table.name())), "{table:?}");
    }
}

/// Paths of the repository that a text names in backquotes or links to.
fn paths(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let linked = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let is_path = |path: &&str| {
        let first = path.split('/').next().unwrap_or_default();
        ["crates", "examples", "xtask", "fuzz", "benches", "docs"].contains(&first)
            && path.contains('/')
            && !path.contains([' ', '*', '{'])
            || path.ends_with(".md") && !path.contains([' ', '*', '/'])
    };
    quoted.chain(linked).filter(is_path).collect()
}

#[test]
fn every_path_that_the_papers_name_exists() {
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "docs/advisories.md",
        "docs/drop-reasons.md",
        "docs/guarantees.md",
        "docs/proofs.md",
        "docs/load-balancer-configuration.md",
        "docs/load-balancer-operators.md",
        "docs/semantics.md",
    ] {
        let Some(text) = paper(name) else { return };
        let base = root().join(name);
        for path in paths(&text) {
            let beside = base.parent().expect("a file").join(path);
            assert!(root().join(path).exists() || beside.exists(), "{name} names {path}");
        }
    }
}

/// Tests that a text names as `test_name` in a table, or in a paragraph that begins with a statement
/// in bold.
fn tests_named(text: &str) -> Vec<&str> {
    let paragraphs = text.split("\n\n").filter(|p| p.starts_with("**") || p.starts_with('|'));
    let quoted = paragraphs.flat_map(|p| p.split('`').skip(1).step_by(2));
    quoted.filter(|name| name.matches('_').count() >= 3 && !name.contains(['/', '.'])).collect()
}

fn sources(directory: &Path, found: &mut String) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

#[test]
fn every_test_that_holds_an_invariant_exists() {
    let papers = [
        "ARCHITECTURE.md",
        "docs/advisories.md",
        "docs/guarantees.md",
        "docs/proofs.md",
        "docs/semantics.md",
    ];
    let mut code = String::new();
    for directory in ["benches", "crates", "examples", "xtask"] {
        sources(&root().join(directory), &mut code);
    }
    for name in papers {
        let Some(text) = paper(name) else { return };
        let tests = tests_named(&text);
        assert!(!tests.is_empty(), "{name} names no test");
        for test in tests {
            assert!(code.contains(&format!("fn {test}")), "{name}: there is no test {test}");
        }
    }
}

/// Public signatures and fields of a source: from a line that begins with `pub` to the end of its
/// declaration.
fn public_declarations(source: &str) -> impl Iterator<Item = &str> {
    let starts = source.match_indices("pub ").filter(|(at, _)| {
        let line = &source[source[..*at].rfind('\n').map_or(0, |newline| newline + 1)..*at];
        line.trim().is_empty()
    });
    starts.map(|(at, _)| {
        let rest = &source[at..];
        &rest[..rest.find(['{', ';', '}']).unwrap_or(rest.len())]
    })
}

#[test]
fn no_public_line_of_the_datapath_names_aya() {
    if paper("ARCHITECTURE.md").is_none() {
        return;
    }
    let mut code = String::new();
    for entry in fs::read_dir(root().join("crates/datapath/src")).expect("the sources") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            code.push_str(&fs::read_to_string(&path).expect("text"));
        }
    }
    // Everything of aya's that is named outside of `sys`.
    let uses = code.lines().filter(|line| line.starts_with("use aya::"));
    let names = uses.flat_map(|line| line.split(|c: char| !c.is_alphanumeric()));
    let mut foreign: Vec<&str> =
        names.filter(|name| name.starts_with(char::is_uppercase)).collect();
    foreign.push("aya");
    let declarations: Vec<&str> = public_declarations(&code).collect();
    assert!(declarations.len() > 50, "{} declarations", declarations.len());
    for declaration in declarations {
        let mut words = declaration.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        assert!(!words.any(|word| foreign.contains(&word)), "{declaration}");
    }
}

#[test]
fn no_published_crate_has_features() {
    if paper("ARCHITECTURE.md").is_none() {
        return;
    }
    for entry in fs::read_dir(root().join("crates")).expect("the crates") {
        let path = entry.expect("an entry").path().join("Cargo.toml");
        let manifest = fs::read_to_string(&path).expect("a manifest");
        assert!(!manifest.contains("[features]"), "{} has features", path.display());
    }
}

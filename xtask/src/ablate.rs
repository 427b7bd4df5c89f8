//! `cargo xtask ablate`: objects of which each lacks a piece, for the bench that says what each piece
//! costs.
//!
//! The pieces are listed in `benches/ablation.toml`; the sources are changed in a copy. The objects go
//! under cargo's target directory: nothing of this is shipped.

use std::fmt::Write;
use std::path::Path;

use serde::Deserialize;

use crate::build::{self, Places};
use crate::error::Error;
use crate::manifest;
use crate::toolchain::Toolchain;
use crate::tree::{self, SHIPPED};
use crate::verify;

/// The list of pieces, relative to the root.
const LIST: &str = "benches/ablation.toml";
/// Below cargo's target directory; the bench looks there.
const OUT: &str = "ablation";
/// In that directory: what the objects were built from; then object, whether many flows make sense,
/// and name, one to a line.
const INDEX: &str = "index";

#[derive(Deserialize)]
struct List {
    piece: Vec<Piece>,
}

/// A piece of the programs: a function that returns at once without it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece {
    name: String,
    file: String,
    function: String,
    /// What comes first in the function's body.
    put: String,
    /// Without it, flows can't be told apart.
    #[serde(default)]
    one_flow: bool,
}

/// Builds all of them.
pub(crate) fn run() -> Result<(), Error> {
    let toolchain = Toolchain::find(None)?;
    let text = tree::read_text(&tree::root().join(LIST))?;
    let list: List = toml::from_str(&text)
        .map_err(|error| Error::Toml { what: LIST.to_owned(), why: error.to_string() })?;
    let out = tree::target().join(OUT);
    let sources = manifest::source_hash(&tree::root(), SHIPPED.sources)?;
    let mut index = format!("# {sources} {}\n", manifest::sha256(text.as_bytes()));
    if tree::read_text(&out.join(INDEX)).is_ok_and(|old| old.starts_with(&index)) {
        println!("{}: up to date", out.display());
        return Ok(());
    }
    for (number, (name, pieces)) in variants(&list.piece).into_iter().enumerate() {
        build(&out, &format!("{number}"), &pieces, &toolchain)?;
        let flows = if pieces.iter().any(|piece| piece.one_flow) { "one" } else { "many" };
        // Writing to a String never fails.
        let _ = writeln!(index, "{number}/{}\t{flows}\t{name}", SHIPPED.object);
    }
    tree::write(&out.join(INDEX), index.as_bytes())?;
    println!("{}: {} objects", out.display(), index.lines().count() - 1);
    Ok(())
}

/// Nothing removed, each piece, and all of them.
fn variants(pieces: &[Piece]) -> Vec<(&str, Vec<&Piece>)> {
    let mut variants = vec![("nothing", vec![])];
    variants.extend(pieces.iter().map(|piece| (piece.name.as_str(), vec![piece])));
    variants.push(("all of these", pieces.iter().collect()));
    variants
}

fn build(out: &Path, name: &str, pieces: &[&Piece], toolchain: &Toolchain) -> Result<(), Error> {
    let root = out.join("tree");
    tree::remove(&root)?;
    verify::copy_inputs(&SHIPPED, &root)?;
    for piece in pieces {
        let path = root.join(&piece.file);
        let changed = without(&tree::read_text(&path)?, piece).ok_or_else(|| {
            Error::NoFunction { name: piece.function.clone(), path: path.clone() }
        })?;
        tree::write(&path, changed.as_bytes())?;
    }
    let places = Places { product: SHIPPED, root, target: out.join("build"), out: out.join(name) };
    build::build(&places, toolchain).map(drop)
}

/// A file in which every function of a piece's name returns at once; `None`: there is none.
fn without(text: &str, piece: &Piece) -> Option<String> {
    let starts = [format!("fn {}(", piece.function), format!("fn {}<", piece.function)];
    let mut changed = String::new();
    let (mut pending, mut found) = (false, false);
    for line in text.lines() {
        pending |= starts.iter().any(|start| line.contains(start));
        changed.push_str(line);
        if pending && line.ends_with('{') {
            // LLVM sees through it, and no lint complains of what is never reached.
            changed.push_str(&format!(" if true {{ {} }}", piece.put));
            found = true;
        }
        // A declaration in a trait has no body.
        pending &= !line.ends_with(['{', ';']);
        changed.push('\n');
    }
    found.then_some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(function: &str) -> Piece {
        Piece {
            name: String::new(),
            file: String::new(),
            function: function.to_owned(),
            put: "return 1;".to_owned(),
            one_flow: false,
        }
    }

    #[test]
    fn every_body_of_the_function_returns_and_nothing_else() {
        let text = "trait T {\n fn a(&self) -> u32;\n}\nfn a<T>(\n t: T,\n) -> u32 {\n 2\n}\nfn ab() {\n}\n";
        let changed = without(text, &piece("a")).unwrap();
        assert_eq!(changed, text.replace("-> u32 {\n", "-> u32 { if true { return 1; }\n"));
    }

    #[test]
    fn a_function_that_is_gone_is_noticed() {
        assert_eq!(without("fn a() {\n}\n", &piece("b")), None);
    }

    #[test]
    fn the_list_names_functions_that_there_are() {
        let list: List =
            toml::from_str(&tree::read_text(&tree::root().join(LIST)).unwrap()).unwrap();
        for piece in list.piece {
            let path = tree::root().join(&piece.file);
            let text = tree::read_text(&path).unwrap();
            assert!(without(&text, &piece).is_some(), "{}: {}", piece.file, piece.function);
        }
    }
}

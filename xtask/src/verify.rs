//! `cargo xtask verify-prebuilt`: is the shipped object what its sources give?
//!
//! With the toolchain that the manifest records, bytes are compared. With any other, they would differ
//! for no reason that matters, so the kernel tests run on both objects instead, and the output says that
//! bytes were not compared. [`hashes`] needs no toolchain and is part of the ordinary tests.

use std::path::Path;

use crate::build::{self, Places};
use crate::error::Error;
use crate::manifest::{self, Manifest};
use crate::namespaces;
use crate::test_binary::TestTarget;
use crate::toolchain::Toolchain;
use crate::tree;

/// What a rebuild reads: the packages, and the manifest from which they inherit.
const INPUTS: [&str; 4] = ["Cargo.toml", "crates/abi", "crates/pipeline", tree::PROGRAMS];

/// Rebuilds in a directory of its own and compares.
pub(crate) fn run() -> Result<(), Error> {
    hashes()?;
    let toolchain = Toolchain::find(None)?;
    eprintln!("using {}", toolchain.describe());
    let directory = tempfile::tempdir().map_err(|source| Error::File {
        doing: "no temporary directory",
        path: std::env::temp_dir(),
        source,
    })?;
    let rebuilt = rebuild(directory.path(), &toolchain)?;
    let shipped = Manifest::read(&tree::root().join(tree::OBJECTS))?;
    if rebuilt.toolchain == shipped.toolchain {
        return compare(&shipped, &rebuilt);
    }
    println!(
        "bytes were NOT compared: the object was built by another toolchain (rustc {}, LLVM {}, bpf-linker {})",
        shipped.toolchain.rustc, shipped.toolchain.llvm, shipped.toolchain.bpf_linker
    );
    run_corpus(&tree::root().join(tree::OBJECTS).join(tree::OBJECT))?;
    run_corpus(&directory.path().join("out").join(tree::OBJECT))
}

/// Compares the manifest's hashes with the sources and the object in the tree.
pub(crate) fn hashes() -> Result<(), Error> {
    let root = tree::root();
    let objects = root.join(tree::OBJECTS);
    let manifest = Manifest::read(&objects)?;
    let object = tree::read(&objects.join(tree::OBJECT))?;
    same("the sources have changed", &manifest.source_hash, &manifest::source_hash(&root)?)?;
    same("the object has changed", &manifest.object_sha256, &manifest::sha256(&object))?;
    println!("the shipped object belongs to these sources (sha256 {})", manifest.object_sha256);
    Ok(())
}

fn rebuild(directory: &Path, toolchain: &Toolchain) -> Result<Manifest, Error> {
    let places = Places {
        root: directory.join("tree"),
        target: directory.join("target"),
        out: directory.join("out"),
    };
    for input in INPUTS {
        let (from, to) = (tree::root().join(input), places.root.join(input));
        if from.is_dir() {
            tree::copy(&from, &to)?;
        } else {
            tree::write(&to, &tree::read(&from)?)?;
        }
    }
    build::build(&places, toolchain)
}

fn compare(shipped: &Manifest, rebuilt: &Manifest) -> Result<(), Error> {
    same("the bytes differ", &shipped.object_sha256, &rebuilt.object_sha256)?;
    same("the manifests differ", &shipped.to_text()?, &rebuilt.to_text()?)?;
    println!(
        "rebuilt byte for byte: {} bytes, sha256 {}",
        rebuilt.object_size, rebuilt.object_sha256
    );
    Ok(())
}

fn same(what: &'static str, recorded: &str, now: &str) -> Result<(), Error> {
    if recorded == now {
        return Ok(());
    }
    Err(Error::Stale { what, recorded: recorded.to_owned(), now: now.to_owned() })
}

fn run_corpus(object: &Path) -> Result<(), Error> {
    println!("the kernel tests on {}", object.display());
    namespaces::run(&TestTarget::kernel().build()?, Some(object)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_file;

    #[test]
    fn the_shipped_object_belongs_to_the_sources() {
        if let Err(error) = hashes() {
            panic!("{}", crate::error::chain(&error));
        }
    }

    #[test]
    fn the_manifest_names_what_is_in_the_object() {
        let objects = tree::root().join(tree::OBJECTS);
        let manifest = Manifest::read(&objects).unwrap();
        let contents =
            object_file::parse(&tree::read(&objects.join(tree::OBJECT)).unwrap()).unwrap();
        assert_eq!(contents.programs, manifest.programs);
        assert_eq!(contents.maps, manifest.maps);
    }
}

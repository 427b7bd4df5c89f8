//! The manifest beside the prebuilt object: which toolchain built it, from which sources, and what is
//! in it.
//!
//! Invariant: `source_hash` depends on the contents and relative paths of the sources alone, so it is the
//! same in every checkout. Tested below, and against the tree in [`crate::verify`].

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::tree;

/// What `manifest.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) toolchain: Toolchain,
    /// SHA-256 over the sorted relative paths and the contents of the sources.
    pub(crate) source_hash: String,
    pub(crate) object_sha256: String,
    pub(crate) object_size: u64,
    pub(crate) programs: Vec<Program>,
    pub(crate) maps: Vec<Map>,
}

/// Exact versions of what built the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Toolchain {
    pub(crate) rustc: String,
    pub(crate) llvm: String,
    #[serde(rename = "bpf-linker")]
    pub(crate) bpf_linker: String,
}

/// An entry point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) section: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

/// A map, with the sizes it has before the loader changes them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Map {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
}

impl Manifest {
    /// Reads the manifest in a directory of objects.
    pub(crate) fn read(objects: &Path) -> Result<Self, Error> {
        let path = objects.join(tree::MANIFEST);
        serde_json::from_slice(&tree::read(&path)?)
            .map_err(|source| Error::Json { what: path.display().to_string(), source })
    }

    /// The manifest as the text that is committed.
    pub(crate) fn to_text(&self) -> Result<String, Error> {
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .map_err(|source| Error::Json { what: tree::MANIFEST.to_owned(), source })
    }
}

/// The hash of packages under a tree's root.
pub(crate) fn source_hash(root: &Path, packages: &[&str]) -> Result<String, Error> {
    let mut hash = Sha256::new();
    for path in source_files(root, packages)? {
        let contents = tree::read(&root.join(&path))?;
        let name = path.to_string_lossy().replace('\\', "/");
        // Lengths go in first, so that no two lists of files share one stream of bytes.
        for part in [name.as_bytes(), &contents] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(hex(&hash.finalize()))
}

/// The SHA-256 of some bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn source_files(root: &Path, packages: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let mut all = Vec::new();
    for package in packages {
        let files = tree::files(&root.join(package))?;
        all.extend(files.into_iter().filter(|f| is_source(f)).map(|f| Path::new(package).join(f)));
    }
    all.sort();
    Ok(all)
}

/// Tests and documents of a package don't reach the object.
fn is_source(path: &Path) -> bool {
    let top = path.components().next().map(|c| c.as_os_str().to_owned());
    let named = ["Cargo.toml", "Cargo.lock", "SUBPROGRAMS", "build.rs"];
    let in_sources =
        top.is_some_and(|top| top == "src") && path.extension().is_some_and(|e| e == "rs");
    in_sources || named.iter().any(|name| path == Path::new(name))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &[&str] = tree::SHIPPED.sources;

    fn example(root: &Path) {
        for package in SOURCES {
            tree::write(&root.join(package).join("src/lib.rs"), b"//!").unwrap();
            tree::write(&root.join(package).join("Cargo.toml"), b"[package]").unwrap();
        }
    }

    #[test]
    fn the_hash_is_the_same_in_every_directory_and_moves_with_a_source() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        example(one.path());
        example(two.path());
        let before = source_hash(one.path(), SOURCES).unwrap();
        assert_eq!(before, source_hash(two.path(), SOURCES).unwrap());
        tree::write(&two.path().join("crates/abi/src/lib.rs"), b"//! changed").unwrap();
        assert_ne!(before, source_hash(two.path(), SOURCES).unwrap());
    }

    #[test]
    fn build_products_and_tests_do_not_count() {
        let root = tempfile::tempdir().unwrap();
        example(root.path());
        let before = source_hash(root.path(), SOURCES).unwrap();
        for other in ["crates/abi/tests/a.rs", "crates/abi/target/src/b.rs", "crates/abi/README.md"]
        {
            tree::write(&root.path().join(other), b"x").unwrap();
        }
        assert_eq!(before, source_hash(root.path(), SOURCES).unwrap());
    }

    #[test]
    fn sha256_of_nothing() {
        assert!(sha256(b"").starts_with("e3b0c44298fc1c14"));
    }
}

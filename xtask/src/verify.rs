//! `cargo xtask verify-prebuilt`: are the prebuilt objects what their sources give?
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
use crate::tree::{self, Product};

/// From which the packages inherit.
const WORKSPACE: &str = "Cargo.toml";

/// Rebuilds each object in a directory of its own and compares.
pub(crate) fn run() -> Result<(), Error> {
    hashes()?;
    let toolchain = Toolchain::find(None)?;
    eprintln!("using {}", toolchain.describe());
    tree::PRODUCTS.into_iter().try_for_each(|product| verify(product, &toolchain))
}

fn verify(product: Product, toolchain: &Toolchain) -> Result<(), Error> {
    let directory = tempfile::tempdir().map_err(|source| Error::File {
        doing: "no temporary directory",
        path: std::env::temp_dir(),
        source,
    })?;
    let rebuilt = rebuild(product, directory.path(), toolchain)?;
    let objects = tree::root().join(product.objects);
    let shipped = Manifest::read(&objects)?;
    if rebuilt.toolchain == shipped.toolchain {
        return compare(&shipped, &rebuilt);
    }
    println!(
        "bytes were NOT compared: the object was built by another toolchain (rustc {}, LLVM {}, bpf-linker {})",
        shipped.toolchain.rustc, shipped.toolchain.llvm, shipped.toolchain.bpf_linker
    );
    // The bench's object decides about no packet.
    let Some(target) = TestTarget::of(product.object) else { return Ok(()) };
    run_corpus(&target, &objects.join(product.object))?;
    run_corpus(&target, &directory.path().join("out").join(product.object))
}

/// Compares each manifest's hashes with the sources and the object in the tree.
pub(crate) fn hashes() -> Result<(), Error> {
    tree::PRODUCTS.iter().try_for_each(hashes_of)
}

fn hashes_of(product: &Product) -> Result<(), Error> {
    let root = tree::root();
    let objects = root.join(product.objects);
    let manifest = Manifest::read(&objects)?;
    let object = tree::read(&objects.join(product.object))?;
    let sources = manifest::source_hash(&root, product.sources)?;
    same("the sources have changed", &manifest.source_hash, &sources)?;
    same("the object has changed", &manifest.object_sha256, &manifest::sha256(&object))?;
    println!("{} belongs to its sources (sha256 {})", product.object, manifest.object_sha256);
    Ok(())
}

fn rebuild(product: Product, directory: &Path, toolchain: &Toolchain) -> Result<Manifest, Error> {
    let places = Places {
        product,
        root: directory.join("tree"),
        target: directory.join("target"),
        out: directory.join("out"),
    };
    copy_inputs(&product, &places.root)?;
    build::build(&places, toolchain)
}

/// What a rebuild reads.
pub(crate) fn copy_inputs(product: &Product, to: &Path) -> Result<(), Error> {
    for package in product.sources {
        tree::copy(&tree::root().join(package), &to.join(package))?;
    }
    tree::write(&to.join(WORKSPACE), &tree::read(&tree::root().join(WORKSPACE))?)
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

fn run_corpus(target: &TestTarget, object: &Path) -> Result<(), Error> {
    println!("the kernel tests on {}", object.display());
    namespaces::run(&target.build()?, Some(object)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_file;

    #[test]
    fn the_prebuilt_objects_belong_to_their_sources() {
        if let Err(error) = hashes() {
            panic!("{}", crate::error::chain(&error));
        }
    }

    #[test]
    fn the_manifests_name_what_is_in_the_objects() {
        for product in tree::PRODUCTS {
            let objects = tree::root().join(product.objects);
            let manifest = Manifest::read(&objects).unwrap();
            let object = tree::read(&objects.join(product.object)).unwrap();
            let contents = object_file::parse(&object).unwrap();
            assert_eq!(contents.programs, manifest.programs);
            assert_eq!(contents.maps, manifest.maps);
        }
    }
}

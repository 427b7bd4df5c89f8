//! Where things lie in this source tree.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The manifest's file name, beside its object.
pub(crate) const MANIFEST: &str = "manifest.json";

/// An eBPF object and where it comes from; paths are relative to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Product {
    /// The package that it is built from.
    pub(crate) programs: &'static str,
    /// All packages that reach it.
    pub(crate) sources: &'static [&'static str],
    /// The binary target.
    pub(crate) binary: &'static str,
    /// The directory where it lies prebuilt, with its manifest.
    pub(crate) objects: &'static str,
    /// Its file name.
    pub(crate) object: &'static str,
}

/// What users load.
pub(crate) const SHIPPED: Product = Product {
    programs: "crates/ebpf-progs/programs",
    sources: &[
        "crates/abi",
        "crates/pipeline",
        "crates/ebpf-progs/programs",
        "crates/ebpf-progs/shared",
    ],
    binary: "flowgate",
    objects: "crates/ebpf-progs/objects",
    object: "flowgate.o",
};

/// What users load to balance.
pub(crate) const BALANCER: Product = Product {
    programs: "crates/ebpf-progs/balancer",
    sources: &[
        "crates/abi",
        "crates/pipeline",
        "crates/ebpf-progs/balancer",
        "crates/ebpf-progs/shared",
    ],
    binary: "lb",
    objects: "crates/ebpf-progs/objects/lb",
    object: "lb.o",
};

/// What backends load.
pub(crate) const DECAPSULATOR: Product = Product {
    programs: "crates/ebpf-progs/decapsulator",
    sources: &[
        "crates/abi",
        "crates/pipeline",
        "crates/ebpf-progs/decapsulator",
        "crates/ebpf-progs/shared",
    ],
    binary: "decap",
    objects: "crates/ebpf-progs/objects/decap",
    object: "decap.o",
};

/// What samples frames while somebody looks at them.
pub(crate) const SAMPLER: Product = Product {
    programs: "crates/ebpf-progs/sampler",
    sources: &["crates/abi", "crates/ebpf-progs/sampler", "crates/ebpf-progs/shared"],
    binary: "sampler",
    objects: "crates/ebpf-progs/objects/sampler",
    object: "sampler.o",
};

/// What both ends of a connection load to name its server.
pub(crate) const SERVER_ID: Product = Product {
    programs: "crates/ebpf-progs/server-id",
    sources: &["crates/abi", "crates/ebpf-progs/server-id", "crates/ebpf-progs/shared"],
    binary: "server_id",
    objects: "crates/ebpf-progs/objects/server-id",
    object: "server_id.o",
};

/// The example of a stage in front of the balancer.
pub(crate) const STAGE: Product = Product {
    programs: "examples/xdp-stage/programs",
    sources: &["examples/xdp-stage/programs"],
    binary: "stage",
    objects: "examples/xdp-stage/objects",
    object: "stage.o",
};

/// What drives the kernel bench.
pub(crate) const BENCH: Product = Product {
    programs: "benches/programs",
    sources: &["benches/programs", "crates/ebpf-progs/shared"],
    binary: "bench",
    objects: "benches/objects",
    object: "bench.o",
};

/// All of them.
pub(crate) const PRODUCTS: [Product; 7] =
    [SHIPPED, BALANCER, DECAPSULATOR, SAMPLER, SERVER_ID, STAGE, BENCH];

/// The root of the source tree: the directory above this package.
pub(crate) fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| package.clone(), Path::to_path_buf)
}

/// The directory of build products: cargo's own, so that it is ignored and cleaned with it.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Reads a file whole.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::File {
        doing: "cannot be read",
        path: path.to_owned(),
        source,
    })
}

/// Reads a text file whole.
pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File {
        doing: "cannot be read",
        path: path.to_owned(),
        source,
    })
}

/// Writes a file whole, making its directory.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::File { doing: "cannot be written", path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    fs::write(path, bytes).map_err(failed)
}

/// Removes a directory with all that is in it, if it is there.
pub(crate) fn remove(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            let path = directory.to_owned();
            Err(Error::File { doing: "cannot be removed", path, source })
        }
        _ => Ok(()),
    }
}

/// Copies a directory with all that is in it, except build products.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    for file in files(from)? {
        write(&to.join(&file), &read(&from.join(&file))?)?;
    }
    Ok(())
}

/// The files under a directory as sorted relative paths, except build products.
pub(crate) fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    collect(directory, Path::new(""), &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(top: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let directory = top.join(below);
    let failed =
        |source| Error::File { doing: "cannot be listed", path: directory.clone(), source };
    for entry in fs::read_dir(&directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = below.join(entry.file_name());
        if !entry.file_type().map_err(failed)?.is_dir() {
            found.push(path);
        } else if entry.file_name() != "target" {
            collect(top, &path, found)?;
        }
    }
    Ok(())
}

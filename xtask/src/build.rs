//! `cargo xtask build-ebpf`: the eBPF object and its manifest, from source.
//!
//! Invariant: the bytes depend on the sources and the toolchain alone, neither on the directory of the
//! checkout nor on the environment. How: paths are remapped, the environment's flags and toolchains are
//! cleared, and [`crate::rustc_wrapper`] keeps directories out of mangled names. Tested by
//! `verify-prebuilt`, which builds in a directory of its own.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::manifest::{self, Manifest};
use crate::object_file::{self, Contents};
use crate::process;
use crate::rustc_wrapper;
use crate::strip;
use crate::toolchain::{self, Kind, Toolchain};
use crate::tree::{self, Product};

/// Beside a package's manifest: names of the functions that may stay functions, one to a line.
const SUBPROGRAMS: &str = "SUBPROGRAMS";

/// One of the objects that users load, or look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Only {
    /// The policy datapath's.
    Flowgate,
    /// The load balancer's.
    Lb,
    /// The backends'.
    Decap,
    /// What samples the load balancer's frames.
    Sampler,
    /// What names servers in TCP's headers.
    ServerId,
    /// The example of a stage in front of it.
    Stage,
}

impl Only {
    /// What to build: one, or all.
    pub(crate) fn products(only: Option<Self>) -> Vec<Product> {
        match only {
            Some(Self::Flowgate) => vec![tree::SHIPPED],
            Some(Self::Lb) => vec![tree::BALANCER],
            Some(Self::Decap) => vec![tree::DECAPSULATOR],
            Some(Self::Sampler) => vec![tree::SAMPLER],
            Some(Self::ServerId) => vec![tree::SERVER_ID],
            Some(Self::Stage) => vec![tree::STAGE],
            None => tree::PRODUCTS.into_iter().filter(|product| *product != tree::BENCH).collect(),
        }
    }
}

/// Builds an object into `out`, by default where the prebuilt one lies.
pub(crate) fn run(product: Product, out: Option<&Path>, kind: Option<Kind>) -> Result<(), Error> {
    let toolchain = Toolchain::find(kind)?;
    eprintln!("using {}", toolchain.describe());
    let out = out.map_or_else(|| tree::root().join(product.objects), Path::to_path_buf);
    let places = Places { product, root: tree::root(), target: tree::target().join("ebpf"), out };
    let manifest = build(&places, &toolchain)?;
    let out = places.out;
    println!(
        "{}: {} bytes, {} programs, {} maps, sha256 {}",
        out.join(product.object).display(),
        manifest.object_size,
        manifest.programs.len(),
        manifest.maps.len(),
        manifest.object_sha256
    );
    Ok(())
}

/// What a build makes, and where it finds and leaves things.
pub(crate) struct Places {
    /// What is made.
    pub(crate) product: Product,
    /// The tree that is built.
    pub(crate) root: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
    /// Where the object and the manifest go.
    pub(crate) out: PathBuf,
}

/// Builds the object with its manifest, and returns that.
pub(crate) fn build(places: &Places, toolchain: &Toolchain) -> Result<Manifest, Error> {
    process::run(&mut cargo_build(places, toolchain)?)?;
    let release = places.target.join(toolchain::TARGET).join("release");
    let bytes = strip::without_dwarf(&tree::read(&release.join(places.product.binary))?)?;
    let contents = object_file::parse(&bytes)?;
    check_subprograms(places, &contents)?;
    let manifest = describe(places, toolchain, &bytes, contents)?;
    tree::write(&places.out.join(places.product.object), &bytes)?;
    tree::write(&places.out.join(tree::MANIFEST), manifest.to_text()?.as_bytes())?;
    Ok(manifest)
}

fn cargo_build(places: &Places, toolchain: &Toolchain) -> Result<Command, Error> {
    let mut command = Command::new(&toolchain.cargo);
    toolchain::clean(&mut command)
        .current_dir(places.root.join(places.product.programs))
        .args(["build", "--release", "--locked", "--target", toolchain::TARGET])
        .arg("--target-dir")
        .arg(&places.target)
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(places, toolchain))
        .env("PATH", path_with(&toolchain.bpf_linker)?)
        .env("RUSTC_WRAPPER", wrapper(&places.target)?)
        .env(rustc_wrapper::REQUEST, "1");
    if toolchain.kind == Kind::Nightly {
        command.args(["-Z", "build-std=core"]);
    }
    Ok(command)
}

/// The flags, encoded as cargo wants them.
fn flags(places: &Places, toolchain: &Toolchain) -> String {
    let fixed = [
        "-Clinker=bpf-linker",
        "-Clink-arg=--btf",
        // Otherwise LLVM calls memset, byte by byte, where a few stores would do: an established IPv6
        // packet took twice as long.
        "-Clink-arg=--disable-expand-memcpy-in-order",
        "-Cdebuginfo=2",
        // v3 loads from 5.10 on; v4 is refused by 5.10 and 6.1.
        "-Ctarget-cpu=v3",
    ];
    let cargo_home = process::cargo_home().unwrap_or_default();
    // Of several that match, rustc takes the last: from the widest to the narrowest.
    let remaps = [
        (&toolchain.sysroot, "/rust"),
        (&cargo_home, "/cargo"),
        (&places.root, "/flowgate"),
        (&places.target, "/target"),
    ];
    let remaps = remaps.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    fixed.into_iter().map(str::to_owned).chain(remaps).collect::<Vec<_>>().join("\x1f")
}

/// The linker is named without its directory, which would be a path in the flags.
fn path_with(bpf_linker: &Path) -> Result<OsString, Error> {
    let directory = bpf_linker.parent().map(Path::to_path_buf);
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(directory.into_iter().chain(env::split_paths(&path)))
        .map_err(|_| Error::MissingProgram { program: "bpf-linker", hint: "" })
}

/// A copy of this executable: another cargo call may replace the one that runs while it runs.
fn wrapper(target: &Path) -> Result<PathBuf, Error> {
    let path = target.join("xtask-rustc-wrapper");
    let copied = fs::create_dir_all(target).and_then(|()| fs::copy("/proc/self/exe", &path));
    match copied {
        Ok(_) => Ok(path),
        Err(source) => Err(Error::File { doing: "cannot copy this executable", path, source }),
    }
}

fn check_subprograms(places: &Places, contents: &Contents) -> Result<(), Error> {
    let list = Path::new(places.product.programs).join(SUBPROGRAMS);
    let text = tree::read_text(&places.root.join(&list))?;
    let names = unlisted(&contents.subprograms, &text);
    if names.is_empty() {
        return Ok(());
    }
    Err(Error::Subprograms { list, names })
}

/// Names in the object that the list doesn't hold; `#` begins a comment in it.
fn unlisted(found: &BTreeSet<String>, list: &str) -> Vec<String> {
    let listed: BTreeSet<&str> = list
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .collect();
    found.iter().filter(|name| !listed.contains(name.as_str())).cloned().collect()
}

fn describe(
    places: &Places,
    toolchain: &Toolchain,
    bytes: &[u8],
    contents: Contents,
) -> Result<Manifest, Error> {
    Ok(Manifest {
        toolchain: toolchain.versions.clone(),
        source_hash: manifest::source_hash(&places.root, places.product.sources)?,
        object_sha256: manifest::sha256(bytes),
        object_size: bytes.len() as u64,
        programs: contents.programs,
        maps: contents.maps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subprogram_must_be_on_the_list() {
        let found = BTreeSet::from(["judge_v4".to_owned(), "judge::{{closure}}".to_owned()]);
        assert_eq!(unlisted(&found, "# families\njudge_v4 # IPv4\n"), ["judge::{{closure}}"]);
        assert!(unlisted(&found, "judge_v4\njudge::{{closure}}\n").is_empty());
    }
}

//! The packaged lane: what a user of the published crates would see.
//!
//! The library crates are packaged, unpacked outside of this workspace, and the quickstart is built from
//! them there. Its dependency tree must not hold a compiler for eBPF or a binding generator: the objects
//! come prebuilt.

use std::path::Path;
use std::process::Command;

use toml::{Table, Value};

use crate::error::Error;
use crate::process;
use crate::tree;

/// The example that stands for a user's program.
const EXAMPLE: &str = "examples/quickstart";
/// Packages that would mean that the user compiles eBPF or needs clang.
const COMPILERS: [&str; 8] = [
    "aya-build",
    "aya-gen",
    "bindgen",
    "bpf-linker",
    "clang-sys",
    "libbpf-cargo",
    "libbpf-sys",
    "llvm-sys",
];

/// Packages the library crates and builds the example from them.
pub(crate) fn run() -> Result<(), Error> {
    let directory = tempfile::tempdir().map_err(|source| Error::File {
        doing: "no temporary directory",
        path: std::env::temp_dir(),
        source,
    })?;
    let manifest = parse(&tree::root().join("Cargo.toml"))?;
    let crates = library_crates(&manifest);
    package(&crates)?;
    unpack(&crates, directory.path())?;
    write_workspace(manifest, directory.path())?;
    check_tree(directory.path())?;
    process::run(
        cargo_in(directory.path())
            .args(["build", "--target-dir"])
            .arg(tree::target().join("packaged")),
    )
}

/// A library crate of ours.
struct Library {
    name: String,
    version: String,
}

impl Library {
    fn directory(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// The workspace's dependencies on its own members.
fn library_crates(manifest: &Table) -> Vec<Library> {
    dependencies(manifest)
        .into_iter()
        .flatten()
        .filter(|(_, dependency)| dependency.get("path").is_some())
        .filter_map(|(name, dependency)| {
            let version = dependency.get("version")?.as_str()?.to_owned();
            Some(Library { name: name.clone(), version })
        })
        .collect()
}

fn dependencies(manifest: &Table) -> Option<&Table> {
    manifest.get("workspace")?.get("dependencies")?.as_table()
}

fn package(crates: &[Library]) -> Result<(), Error> {
    let mut command = process::cargo();
    // Verifying builds each crate alone; the example below builds them all together.
    command.args(["package", "--locked", "--allow-dirty", "--no-verify"]);
    crates.iter().for_each(|library| {
        command.args(["-p", &library.name]);
    });
    process::run(&mut command)
}

fn unpack(crates: &[Library], directory: &Path) -> Result<(), Error> {
    for library in crates {
        let archive = tree::target().join("package").join(format!("{}.crate", library.directory()));
        process::run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(directory))?;
    }
    Ok(())
}

/// A workspace of the example alone, in which our crates come from where they were unpacked.
fn write_workspace(mut manifest: Table, directory: &Path) -> Result<(), Error> {
    tree::copy(&tree::root().join(EXAMPLE), &directory.join("example"))?;
    let lock = tree::read(&tree::root().join("Cargo.lock"))?;
    tree::write(&directory.join("Cargo.lock"), &lock)?;
    let patch = library_crates(&manifest)
        .into_iter()
        .map(|library| {
            let path = Table::from_iter([("path".to_owned(), Value::from(library.directory()))]);
            (library.name, Value::Table(path))
        })
        .collect::<Table>();
    if let Some(workspace) = manifest.get_mut("workspace").and_then(Value::as_table_mut) {
        workspace.insert("members".to_owned(), Value::from(vec!["example"]));
        workspace.remove("exclude");
        forget_paths(workspace);
    }
    let patches = Table::from_iter([("crates-io".to_owned(), Value::Table(patch))]);
    manifest.insert("patch".to_owned(), Value::Table(patches));
    tree::write(&directory.join("Cargo.toml"), manifest.to_string().as_bytes())
}

/// What has a path alone isn't published: no user can name it.
fn forget_paths(workspace: &mut Table) {
    let dependencies = workspace.get_mut("dependencies").and_then(Value::as_table_mut);
    let Some(dependencies) = dependencies else { return };
    dependencies.retain(|_, dependency| match dependency.as_table_mut() {
        Some(dependency) => {
            dependency.remove("path");
            dependency.contains_key("version")
        }
        None => true,
    });
}

fn check_tree(directory: &Path) -> Result<(), Error> {
    let listed = process::capture(cargo_in(directory).args([
        "tree",
        "--edges=normal,build",
        "--target=all",
        "--prefix=none",
    ]))?;
    match compiler_in(&listed) {
        Some(found) => {
            Err(Error::CompilerInTree { package: EXAMPLE.to_owned(), found: found.to_owned() })
        }
        None => {
            println!("{} packages, no compiler for eBPF among them", listed.lines().count());
            Ok(())
        }
    }
}

fn compiler_in(listed: &str) -> Option<&str> {
    listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .find(|name| COMPILERS.contains(name))
}

/// A cargo outside of this workspace, so that none of its configuration applies.
fn cargo_in(directory: &Path) -> Command {
    let mut command = process::cargo();
    command.current_dir(directory);
    command
}

fn parse(path: &Path) -> Result<Table, Error> {
    tree::read_text(path)?.parse().map_err(|e: toml::de::Error| Error::Toml {
        what: path.display().to_string(),
        why: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_is_found_by_its_name_alone() {
        assert_eq!(compiler_in("flowgate v0.1.0\nbindgen v0.70.1 (*)\n"), Some("bindgen"));
        assert_eq!(compiler_in("flowgate v0.1.0\nsuccess-bindgen v1.0.0\n"), None);
    }

    #[test]
    fn our_crates_are_those_with_a_path() {
        let text =
            "[workspace.dependencies]\na = { path = \"a\", version = \"0.1.0\" }\nb = \"1\"\n";
        let found = library_crates(&text.parse().unwrap());
        assert_eq!(found.iter().map(Library::directory).collect::<Vec<_>>(), ["a-0.1.0"]);
    }
}

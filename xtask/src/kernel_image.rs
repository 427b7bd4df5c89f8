//! Debian's kernels, unpacked without being installed.
//!
//! Packages come from apt by their own names, the newest of a version first, and stay in the target
//! directory. What is unpacked there serves again, also when apt can't be reached.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::process;
use crate::tree;

const PREFIX: &str = "linux-image-";
const SUFFIX: &str = "-cloud-amd64";

/// An unpacked kernel.
pub(crate) struct KernelImage {
    /// The release, as `uname -r` says it.
    pub(crate) release: String,
    pub(crate) vmlinuz: PathBuf,
    /// The directory whose lib/modules holds the modules.
    tree: PathBuf,
}

impl KernelImage {
    /// The newest kernel of a version such as `6.1`, fetched if it isn't there yet.
    pub(crate) fn of(version: &str) -> Result<Self, Error> {
        let cache = tree::target().join("kernels");
        fs::create_dir_all(&cache).map_err(|source| Error::File {
            doing: "cannot be made",
            path: cache.clone(),
            source,
        })?;
        let package = newest(version, &cache)?;
        let unpacked = cache.join(&package);
        if !unpacked.is_dir() {
            fetch(&package, &cache)?;
        }
        Self::open(&unpacked)
    }

    fn open(unpacked: &Path) -> Result<Self, Error> {
        let absent = |what| Error::KernelTree { tree: unpacked.to_owned(), what };
        let vmlinuz = starting_with(&unpacked.join("boot"), "vmlinuz").ok_or(absent("vmlinuz"))?;
        let tree = [unpacked.to_owned(), unpacked.join("usr")]
            .into_iter()
            .find(|tree| tree.join("lib/modules").is_dir())
            .ok_or(absent("lib/modules"))?;
        let modules = starting_with(&tree.join("lib/modules"), "").ok_or(absent("modules"))?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { release, vmlinuz, tree })
    }

    /// The files of these modules and of what they need, in the order to insert them. A module that is
    /// built in has no file; one that this kernel doesn't have is an error of the name given.
    pub(crate) fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>, Error> {
        if !self.tree.join("lib/modules").join(&self.release).join("modules.dep.bin").is_file() {
            process::run(tool("depmod").arg("-b").arg(&self.tree).arg(&self.release))?;
        }
        let mut files = Vec::new();
        for name in names {
            let mut modprobe = tool("modprobe");
            modprobe.arg("-d").arg(&self.tree).args(["-S", &self.release]);
            modprobe.args(["--show-depends", "--ignore-install", name]);
            for file in inserted(&process::capture(&mut modprobe)?) {
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }
}

/// These live in directories that an ordinary user's PATH leaves out.
fn tool(name: &str) -> Command {
    Command::new(process::find(name).unwrap_or_else(|| name.into()))
}

/// The contents of a module, uncompressed.
pub(crate) fn module_bytes(file: &Path) -> Result<Vec<u8>, Error> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return tree::read(file),
    };
    let mut command = Command::new(program);
    command.arg("-dc").arg(file);
    let shown = format!("{program} -dc {}", file.display());
    let output =
        command.output().map_err(|source| Error::Start { command: shown.clone(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Failed { command: shown, status: output.status })
}

/// The newest package that apt knows or that is cached.
fn newest(version: &str, cache: &Path) -> Result<String, Error> {
    let pattern = format!("^{PREFIX}{}\\..*{SUFFIX}$", version.replace('.', "\\."));
    let mut search = Command::new("apt-cache");
    let listed =
        process::ask(search.args(["search", "--names-only", &pattern])).unwrap_or_default();
    let known = listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    let cached = fs::read_dir(cache).into_iter().flatten().flatten();
    let cached = cached.map(|entry| entry.file_name().to_string_lossy().into_owned());
    known
        .chain(cached)
        .filter(|name| is_of_version(name, version))
        .max_by(|a, b| by_version(a, b))
        .ok_or_else(|| Error::NoKernel { version: version.to_owned() })
}

fn fetch(package: &str, cache: &Path) -> Result<(), Error> {
    let download = cache.join("download");
    let partly = cache.join("unpacking");
    for directory in [&download, &partly] {
        let _absent_is_fine = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).map_err(|source| Error::File {
            doing: "cannot be made",
            path: directory.clone(),
            source,
        })?;
    }
    process::run(
        Command::new("apt-get")
            .args(["-q", "-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=root"])
            .args(["download", package])
            .current_dir(&download),
    )?;
    let file = starting_with(&download, PREFIX)
        .ok_or(Error::KernelTree { tree: download.clone(), what: "package" })?;
    process::run(Command::new("dpkg").arg("-x").arg(file).arg(&partly))?;
    let _only_space = fs::remove_dir_all(&download);
    let done = cache.join(package);
    fs::rename(&partly, &done).map_err(|source| Error::File {
        doing: "cannot be moved into place",
        path: done,
        source,
    })
}

/// `linux-image-6.1.0-49-cloud-amd64` is of 6.1; `linux-image-6.12-cloud-amd64` names no kernel.
fn is_of_version(package: &str, version: &str) -> bool {
    package
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_prefix(version))
        .is_some_and(|rest| rest.starts_with('.') && rest.ends_with(SUFFIX))
}

/// By the numbers in the names, one after the other.
fn by_version(a: &str, b: &str) -> Ordering {
    numbers(a).cmp(&numbers(b))
}

fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|run| run.parse().ok()).collect()
}

/// The files that modprobe would insert; the other lines name what is built in.
fn inserted(listed: &str) -> Vec<PathBuf> {
    listed
        .lines()
        .filter_map(|line| line.strip_prefix("insmod "))
        .filter_map(|rest| rest.split_whitespace().next())
        .map(PathBuf::from)
        .collect()
}

fn starting_with(directory: &Path, prefix: &str) -> Option<PathBuf> {
    fs::read_dir(directory)
        .ok()?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_packages_and_other_versions_are_no_kernels() {
        assert!(is_of_version("linux-image-6.1.0-49-cloud-amd64", "6.1"));
        assert!(is_of_version("linux-image-6.12.117+deb12-cloud-amd64", "6.12"));
        assert!(!is_of_version("linux-image-6.12-cloud-amd64", "6.12"));
        assert!(!is_of_version("linux-image-6.12.117+deb12-cloud-amd64", "6.1"));
        assert!(!is_of_version("linux-image-6.1.0-49-amd64", "6.1"));
    }

    #[test]
    fn versions_compare_by_number() {
        let (old, new) = ("linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-49-cloud-amd64");
        assert_eq!(by_version(old, new), Ordering::Less);
    }

    #[test]
    fn built_in_modules_have_no_file() {
        let listed = "builtin ipv6\ninsmod /a/veth.ko.xz \n";
        assert_eq!(inserted(listed), [PathBuf::from("/a/veth.ko.xz")]);
    }
}

//! Debian's kernels, unpacked without being installed.
//!
//! The newest of a line is taken. What is unpacked in the target directory serves again, also when apt can't
//! be reached.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::line::Line;
use crate::package_index::PackageIndex;
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

/// Unpacked kernels, and where more come from.
pub(crate) struct KernelImages {
    cache: PathBuf,
    index: PackageIndex,
}

impl KernelImages {
    /// In the target directory.
    pub(crate) fn open() -> Self {
        let cache = tree::target().join("kernels");
        let index = PackageIndex::open(cache.join("index"));
        Self { cache, index }
    }

    /// The newest kernel of a line, or of all, fetched if it isn't there yet.
    pub(crate) fn newest(&self, line: Option<Line>) -> Result<KernelImage, Error> {
        let absent = |why: String| Error::NoKernel {
            line: line.map_or_else(|| "newest".to_owned(), |line| line.to_string()),
            why: self.index.trouble.clone().unwrap_or(why),
        };
        let package = self
            .known()
            .filter(|package| line_of(package).is_some_and(|l| line.is_none_or(|line| l == line)))
            .max_by(|a, b| by_version(a, b))
            .ok_or_else(|| absent("apt knows no package of it".to_owned()))?;
        let unpacked = self.cache.join(&package);
        if !unpacked.is_dir() {
            self.fetch(&package).map_err(|error| absent(error.to_string()))?;
        }
        KernelImage::open(&unpacked)
    }

    /// Packages that apt knows or that are unpacked.
    fn known(&self) -> impl Iterator<Item = String> {
        let indexed = self.index.names(&format!("^{PREFIX}[0-9].*{SUFFIX}$"));
        let cached = fs::read_dir(&self.cache).into_iter().flatten().flatten();
        indexed
            .into_iter()
            .chain(cached.map(|entry| entry.file_name().to_string_lossy().into_owned()))
    }

    fn fetch(&self, package: &str) -> Result<(), Error> {
        let download = emptied(self.cache.join("download"))?;
        let partly = emptied(self.cache.join("unpacking"))?;
        self.index.download(&self.index.parts(package), &download)?;
        for file in tree::files(&download)? {
            process::run(Command::new("dpkg").arg("-x").arg(download.join(file)).arg(&partly))?;
        }
        let _only_space = fs::remove_dir_all(&download);
        let done = self.cache.join(package);
        fs::rename(&partly, &done).map_err(|source| Error::File {
            doing: "cannot be moved into place",
            path: done,
            source,
        })
    }
}

/// A directory of this name without anything in it.
fn emptied(directory: PathBuf) -> Result<PathBuf, Error> {
    let _absent_is_fine = fs::remove_dir_all(&directory);
    match fs::create_dir_all(&directory) {
        Ok(()) => Ok(directory),
        Err(source) => Err(Error::File { doing: "cannot be made", path: directory, source }),
    }
}

impl KernelImage {
    fn open(unpacked: &Path) -> Result<Self, Error> {
        let absent = |what| Error::KernelTree { tree: unpacked.to_owned(), what };
        let tree = [unpacked.to_owned(), unpacked.join("usr")]
            .into_iter()
            .find(|tree| tree.join("lib/modules").is_dir())
            .ok_or(absent("lib/modules"))?;
        let modules = starting_with(&tree.join("lib/modules"), "").ok_or(absent("modules"))?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let vmlinuz = starting_with(&unpacked.join("boot"), "vmlinuz")
            .or_else(|| starting_with(&modules, "vmlinuz"))
            .ok_or(absent("vmlinuz"))?;
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

/// `linux-image-6.1.0-49-cloud-amd64` is of 6.1; `linux-image-6.12-cloud-amd64` names no kernel.
fn line_of(package: &str) -> Option<Line> {
    let release = package.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    Line::of_release(release).filter(|line| release.starts_with(&format!("{line}.")))
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
    fn meta_packages_and_other_flavours_are_no_kernels() {
        assert_eq!(line_of("linux-image-6.1.0-49-cloud-amd64"), Some(Line::new(6, 1)));
        assert_eq!(line_of("linux-image-6.12.117+deb12-cloud-amd64"), Some(Line::new(6, 12)));
        assert_eq!(line_of("linux-image-6.12-cloud-amd64"), None);
        assert_eq!(line_of("linux-image-cloud-amd64"), None);
        assert_eq!(line_of("linux-image-6.1.0-49-amd64"), None);
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

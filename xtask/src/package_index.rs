//! Debian's packages of other releases than this machine's, as an apt of our own sees them: its sources and
//! lists lie in the target directory, and nothing of the system's is changed.
//!
//! The mirrors are those that the system's apt uses. Without network, what was fetched before still serves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::error::Error;
use crate::process;
use crate::tree;

/// Archive (as its `Label` says) and suite: small indexes that together have every line of the matrix.
const SUITES: [(&str, &str); 3] = [
    ("Debian-Security", "bullseye-security"),
    ("Debian-Security", "bookworm-security"),
    ("Debian", "stable-backports"),
];
/// What the parts of an image are called, before its release.
const PARTS: [&str; 3] = ["linux-base-", "linux-binary-", "linux-modules-"];
const CONFIGURATION: &str = "apt.conf";
/// How old the lists may be.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// The index in a directory of ours.
pub(crate) struct PackageIndex {
    directory: PathBuf,
    /// Why it may be old or empty.
    pub(crate) trouble: Option<String>,
}

impl PackageIndex {
    /// Refreshes the index if it is older than a day. That this fails is told by what is missing later.
    pub(crate) fn open(directory: PathBuf) -> Self {
        let mut index = Self { directory, trouble: None };
        if !index.is_fresh() {
            index.trouble = index.refresh().err().map(|error| error.to_string());
        }
        index
    }

    /// The names of all packages that match a pattern.
    pub(crate) fn names(&self, pattern: &str) -> Vec<String> {
        let listed = process::ask(self.apt("apt-cache").args(["search", "--names-only", pattern]));
        let listed = listed.unwrap_or_default();
        listed
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect()
    }

    /// The packages of which an image consists: itself, and since 6.19 binary and modules apart.
    pub(crate) fn parts(&self, package: &str) -> Vec<String> {
        let shown = process::ask(self.apt("apt-cache").args(["show", package])).unwrap_or_default();
        std::iter::once(package).chain(parts_of(&shown)).map(str::to_owned).collect()
    }

    /// Downloads packages into a directory.
    pub(crate) fn download(&self, packages: &[String], into: &Path) -> Result<(), Error> {
        process::run(self.apt("apt-get").arg("download").args(packages).current_dir(into))
    }

    fn stamp(&self) -> PathBuf {
        self.directory.join("refreshed")
    }

    fn is_fresh(&self) -> bool {
        let written = fs::metadata(self.stamp()).and_then(|stamp| stamp.modified());
        let age = written.ok().and_then(|then| SystemTime::now().duration_since(then).ok());
        age.is_some_and(|age| age < FRESH)
    }

    fn refresh(&self) -> Result<(), Error> {
        let known = process::ask(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(LABEL) $(REPO_URI)",
            "Created-By: Packages",
        ]));
        let sources = sources(&known.unwrap_or_default());
        if sources.is_empty() {
            let why =
                "the system's apt knows no archive of Debian's (`apt-get update`?)".to_owned();
            return Err(Error::NoIndex { why });
        }
        for directory in ["lists/partial", "cache/archives/partial"] {
            let path = self.directory.join(directory);
            fs::create_dir_all(&path).map_err(|source| Error::File {
                doing: "cannot be made",
                path,
                source,
            })?;
        }
        tree::write(&self.directory.join(CONFIGURATION), self.configuration().as_bytes())?;
        tree::write(&self.directory.join("sources.list"), sources.as_bytes())?;
        process::run(self.apt("apt-get").arg("update"))?;
        tree::write(&self.stamp(), b"")
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-q").arg("-c").arg(self.directory.join(CONFIGURATION));
        command
    }

    fn configuration(&self) -> String {
        let at = |name: &str| self.directory.join(name).display().to_string();
        [
            ("Dir::Etc::SourceList", at("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
            ("Dir::State::Lists", at("lists")),
            ("Dir::Cache", at("cache")),
            ("APT::Sandbox::User", "root".to_owned()),
            ("APT::Update::Error-Mode", "any".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
            ("Acquire::http::Timeout", "20".to_owned()),
        ]
        .map(|(name, value)| format!("{name} \"{value}\";\n"))
        .concat()
    }
}

/// Lines of sources.list for our suites, from lines of label and address.
fn sources(known: &str) -> String {
    let mirror = |label: &str| {
        known.lines().filter_map(|line| line.split_once(' ')).find(|(l, _)| *l == label)
    };
    SUITES
        .iter()
        .filter_map(|(label, suite)| Some((mirror(label)?.1.trim(), suite)))
        .map(|(uri, suite)| format!("deb [target=Packages] {uri} {suite} main\n"))
        .collect()
}

/// What an image depends on that carries the kernel, its modules, or their list.
fn parts_of(shown: &str) -> impl Iterator<Item = &str> {
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
    depends
        .split(',')
        .filter_map(|dependency| dependency.split_whitespace().next())
        .filter(|name| PARTS.iter().any(|part| name.starts_with(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_take_the_mirrors_of_the_system() {
        let known = "Debian https://mirror.example/debian/\n\
                     Other https://other.example/\n\
                     Debian-Security https://mirror.example/security/\n";
        let sources = sources(known);
        let lines: Vec<_> = sources.lines().collect();
        assert_eq!(lines.len(), SUITES.len());
        assert!(lines.contains(
            &"deb [target=Packages] https://mirror.example/debian/ stable-backports main"
        ));
        assert!(!sources.contains("other.example"));
        assert!(super::sources("Other https://other.example/").is_empty());
    }

    #[test]
    fn an_image_may_be_in_parts() {
        let shown = "Package: linux-image-7.2.12-cloud-amd64\nDepends: linux-base (>= 4), dracut | initramfs-tools, \
            linux-base-7.2.12-cloud-amd64 (= 7), linux-binary-7.2.12-cloud-amd64 (= 7), \
            linux-modules-7.2.12-cloud-amd64 (= 7)\n";
        let parts: Vec<_> = parts_of(shown).collect();
        let wanted = ["base", "binary", "modules"];
        assert_eq!(parts, wanted.map(|part| format!("linux-{part}-7.2.12-cloud-amd64")));
    }
}

//! Test executables: found by cargo's own account, so that they can be run elsewhere than by cargo.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::Error;
use crate::process;
use crate::tree;

/// A test target that needs privileges: named `kernel*` (the kernel judges packets) or `netns*` (real
/// sockets in network namespaces).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestTarget {
    pub(crate) package: String,
    pub(crate) test: String,
}

/// A test executable and the directory in which cargo would run it.
pub(crate) struct TestBinary {
    pub(crate) executable: PathBuf,
    pub(crate) directory: PathBuf,
}

impl TestTarget {
    /// The datapath's tests of the eBPF programs: what runs on other kernels and other objects.
    pub(crate) fn kernel() -> Self {
        Self { package: "flowgate-datapath".to_owned(), test: "kernel".to_owned() }
    }

    /// The tests of the load balancer's programs, likewise.
    pub(crate) fn balancer() -> Self {
        Self { package: "flowgate-datapath".to_owned(), test: "kernel_lb".to_owned() }
    }

    /// Those of an object, by its name; the bench's has none.
    pub(crate) fn of(object: &str) -> Option<Self> {
        if object == tree::SHIPPED.object {
            return Some(Self::kernel());
        }
        (object == tree::BALANCER.object).then(Self::balancer)
    }

    /// What the verifier says of each program.
    pub(crate) fn verifier() -> Self {
        Self { package: "flowgate-datapath".to_owned(), test: "kernel_verifier".to_owned() }
    }

    /// Builds the executable.
    pub(crate) fn build(&self) -> Result<TestBinary, Error> {
        let messages = process::capture(
            process::cargo()
                .args(["test", "--locked", "--no-run", "--message-format=json"])
                .args(["-p", &self.package, "--test", &self.test]),
        )?;
        messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Message>(line).ok())
            .find_map(|message| message.executable_of(&self.test))
            .ok_or_else(|| Error::NoTestBinary {
                package: self.package.clone(),
                test: self.test.clone(),
            })
    }
}

/// The workspace's test targets, those that need privileges first.
pub(crate) struct TestTargets {
    pub(crate) privileged: Vec<TestTarget>,
    /// Tests of packages that also have privileged ones, to be named one by one.
    pub(crate) beside: Vec<TestTarget>,
    /// Packages with privileged tests that have a library.
    pub(crate) libraries: Vec<String>,
}

/// Asks cargo for the test targets.
pub(crate) fn targets() -> Result<TestTargets, Error> {
    let text = process::capture(process::cargo().args([
        "metadata",
        "--locked",
        "--no-deps",
        "--format-version=1",
    ]))?;
    let metadata: Metadata = serde_json::from_str(&text)
        .map_err(|source| Error::Json { what: "`cargo metadata`".to_owned(), source })?;
    Ok(sorted(metadata))
}

fn sorted(metadata: Metadata) -> TestTargets {
    let mut targets =
        TestTargets { privileged: Vec::new(), beside: Vec::new(), libraries: Vec::new() };
    for package in metadata.packages {
        let (privileged, others): (Vec<_>, Vec<_>) =
            package.tests().partition(|target| is_privileged(&target.test));
        if !privileged.is_empty() {
            targets.privileged.extend(privileged);
            targets.beside.extend(others);
            targets.libraries.extend(package.library().map(str::to_owned));
        }
    }
    targets
}

fn is_privileged(test: &str) -> bool {
    test.starts_with("kernel") || test.starts_with("netns")
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

impl Package {
    /// Its name, if it has a library.
    fn library(&self) -> Option<&str> {
        self.targets.iter().any(Target::is_library).then_some(self.name.as_str())
    }

    fn tests(&self) -> impl Iterator<Item = TestTarget> + '_ {
        self.targets
            .iter()
            .filter(|target| target.is_test())
            .map(|target| TestTarget { package: self.name.clone(), test: target.name.clone() })
    }
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Target {
    fn is_test(&self) -> bool {
        self.kind.iter().any(|kind| kind == "test")
    }

    fn is_library(&self) -> bool {
        self.kind.iter().any(|kind| kind == "lib")
    }
}

/// One line of cargo's account of a build.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
}

impl Message {
    fn executable_of(self, test: &str) -> Option<TestBinary> {
        let target = self.target?;
        let directory = self.manifest_path.as_deref().and_then(Path::parent)?.to_owned();
        let executable = self.executable?;
        (target.is_test() && target.name == test).then_some(TestBinary { executable, directory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, tests: &[&str]) -> Package {
        let kind = vec!["test".to_owned()];
        let targets =
            tests.iter().map(|t| Target { name: (*t).to_owned(), kind: kind.clone() }).collect();
        Package { name: name.to_owned(), targets }
    }

    #[test]
    fn privileged_tests_are_told_by_their_names() {
        let found = sorted(Metadata {
            packages: vec![package("a", &["kernel", "builder"]), package("b", &["parse"])],
        });
        assert_eq!(found.privileged, [TestTarget { package: "a".into(), test: "kernel".into() }]);
        assert_eq!(found.beside, [TestTarget { package: "a".into(), test: "builder".into() }]);
    }
}

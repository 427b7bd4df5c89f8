//! Test executables: found by cargo's own account, so that they can be run elsewhere than by cargo.

use std::collections::BTreeSet;
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
    /// Its package's programs: tests start them where cargo put them.
    pub(crate) programs: Vec<PathBuf>,
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

    /// The tests of its backends' programs, likewise.
    pub(crate) fn decapsulator() -> Self {
        Self { package: "flowgate-datapath".to_owned(), test: "kernel_decap".to_owned() }
    }

    /// What is composed of the balancer's programs and others: stages, what samples, and a dispatcher.
    pub(crate) fn composition() -> [Self; 3] {
        ["kernel_stages", "kernel_samples", "kernel_dispatcher"]
            .map(|test| Self { package: "flowgate-datapath".to_owned(), test: test.to_owned() })
    }

    /// `flowgate-lb` in a dispatcher.
    pub(crate) fn embedder() -> Self {
        Self {
            package: "flowgate-example-load-balancer".to_owned(),
            test: "netns_dispatcher".to_owned(),
        }
    }

    /// Those of an object, by its name; the bench's has none.
    pub(crate) fn of(object: &str) -> Option<Self> {
        if object == tree::SHIPPED.object {
            return Some(Self::kernel());
        }
        if object == tree::DECAPSULATOR.object {
            return Some(Self::decapsulator());
        }
        (object == tree::BALANCER.object).then(Self::balancer)
    }

    /// What the verifier says of each program.
    pub(crate) fn verifier() -> Self {
        Self { package: "flowgate-datapath".to_owned(), test: "kernel_verifier".to_owned() }
    }

    /// Builds the executable: with the features that the whole workspace asks for, so that what was built
    /// for another lane serves this one.
    pub(crate) fn build(&self) -> Result<TestBinary, Error> {
        let messages = process::capture(
            process::cargo()
                .args(["test", "--locked", "--no-run", "--message-format=json"])
                .args(["--workspace", "--test", &self.test]),
        )?;
        self.built(&messages).ok_or_else(|| Error::NoTestBinary {
            package: self.package.clone(),
            test: self.test.clone(),
        })
    }

    /// The executable by cargo's account of a build.
    fn built(&self, messages: &str) -> Option<TestBinary> {
        let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
        let built: Vec<Built> = messages.filter_map(|m: Message| m.built(&self.package)).collect();
        let programs = built.iter().filter(|one| one.target.is("bin"));
        let programs = programs.map(|one| one.executable.clone()).collect();
        let is_wanted = |one: &Built| one.target.is("test") && one.target.name == self.test;
        let Built { executable, directory, .. } = built.into_iter().find(is_wanted)?;
        Some(TestBinary { executable, directory, programs })
    }
}

/// The workspace's test targets.
pub(crate) struct TestTargets {
    pub(crate) privileged: Vec<TestTarget>,
    /// The names of the others, each once.
    pub(crate) others: BTreeSet<String>,
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
    let tests = metadata.packages.iter().flat_map(Package::tests);
    let (privileged, others): (Vec<_>, Vec<_>) = tests.partition(|t| is_privileged(&t.test));
    TestTargets { privileged, others: others.into_iter().map(|target| target.test).collect() }
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
    fn tests(&self) -> impl Iterator<Item = TestTarget> + '_ {
        self.targets
            .iter()
            .filter(|target| target.is("test"))
            .map(|target| TestTarget { package: self.name.clone(), test: target.name.clone() })
    }
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Target {
    fn is(&self, wanted: &str) -> bool {
        self.kind.iter().any(|kind| kind == wanted)
    }
}

/// One line of cargo's account of a build.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    package_id: Option<String>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
}

/// An executable of a package's.
struct Built {
    target: Target,
    executable: PathBuf,
    directory: PathBuf,
}

impl Message {
    fn built(self, package: &str) -> Option<Built> {
        let target = self.target?;
        let directory = self.manifest_path.as_deref().and_then(Path::parent)?.to_owned();
        let executable = self.executable?;
        let of_package = self.package_id?.contains(&format!("#{package}@"));
        of_package.then_some(Built { target, executable, directory })
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
    fn a_test_comes_with_its_packages_programs() {
        let message = |package, kind, name| {
            format!(
                r#"{{"package_id": "path+file:///w#{package}@0.1.0", "manifest_path": "/w/Cargo.toml",
                "target": {{"name": "{name}", "kind": ["{kind}"]}}, "executable": "/t/{name}"}}"#
            )
            .replace('\n', " ")
        };
        let account = [
            message("b", "bin", "other"),
            message("a", "test", "one"),
            message("a", "test", "two"),
            message("a", "bin", "daemon"),
            r#"{"reason": "build-finished", "success": true}"#.to_owned(),
        ];
        let target = |test: &str| TestTarget { package: "a".to_owned(), test: test.to_owned() };
        let built = target("two").built(&account.join("\n")).unwrap();
        assert_eq!((built.executable, built.directory), ("/t/two".into(), "/w".into()));
        assert_eq!(built.programs, [PathBuf::from("/t/daemon")]);
        assert!(target("three").built(&account.join("\n")).is_none());
    }

    #[test]
    fn privileged_tests_are_told_by_their_names() {
        let found = sorted(Metadata {
            packages: vec![package("a", &["kernel", "builder"]), package("b", &["parse"])],
        });
        assert_eq!(found.privileged, [TestTarget { package: "a".into(), test: "kernel".into() }]);
        assert_eq!(found.others, ["builder", "parse"].map(str::to_owned).into());
    }
}

//! The crates' arrows, held: who may depend on whom, and on what from outside.
//!
//! The source of truth is the architecture document; this test is what keeps it true. It asks
//! `cargo metadata`, so renames and optional dependencies don't slip through.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// What each library crate may import of ours. Packages that aren't published (test material, examples,
/// benches, chores) may import all of these, and none of these may import them.
const ARROWS: &[(&str, &[&str])] = &[
    ("flowgate-abi", &[]),
    ("flowgate-pipeline", &["flowgate-abi"]),
    ("flowgate-ebpf-progs", &[]),
    ("flowgate-identity", &["flowgate-abi"]),
    ("flowgate-policy", &["flowgate-abi", "flowgate-identity", "flowgate-pipeline"]),
    ("flowgate-services", &["flowgate-abi", "flowgate-pipeline"]),
    ("flowgate-kubernetes", &["flowgate-identity", "flowgate-policy"]),
    (
        "flowgate-datapath",
        &[
            "flowgate-abi",
            "flowgate-ebpf-progs",
            "flowgate-identity",
            "flowgate-pipeline",
            "flowgate-policy",
            "flowgate-services",
        ],
    ),
    (
        "flowgate",
        &[
            "flowgate-abi",
            "flowgate-datapath",
            "flowgate-identity",
            "flowgate-kubernetes",
            "flowgate-pipeline",
            "flowgate-policy",
            "flowgate-services",
        ],
    ),
];

/// What compiles for BPF may import from outside: nothing that allocates or does I/O.
const BARE: &[&str] = &["bitflags", "zerocopy"];

/// Crates that simulate offline, on any host.
const OFFLINE: &[&str] = &[
    "flowgate-abi",
    "flowgate-pipeline",
    "flowgate-identity",
    "flowgate-policy",
    "flowgate-services",
    "flowgate-kubernetes",
];

#[test]
fn no_crate_imports_against_the_arrows() {
    let workspace = Workspace::load();
    for (name, allowed) in ARROWS {
        let ours = workspace.package(name).normal().filter(|d| d.starts_with("flowgate"));
        for dependency in ours {
            assert!(allowed.contains(&dependency), "{name} must not import {dependency}");
        }
    }
}

#[test]
fn every_library_crate_has_its_arrows_written_down() {
    let workspace = Workspace::load();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = workspace.libraries().map(|p| p.name.as_str()).collect();
    assert_eq!(found, known);
}

#[test]
fn what_compiles_for_bpf_imports_next_to_nothing() {
    let workspace = Workspace::load();
    for name in ["flowgate-abi", "flowgate-pipeline"] {
        let outside = workspace.package(name).normal().filter(|d| !d.starts_with("flowgate"));
        for dependency in outside {
            assert!(BARE.contains(&dependency), "{name} must not import {dependency}");
        }
    }
}

#[test]
fn only_the_datapath_imports_aya() {
    let workspace = Workspace::load();
    for package in workspace.libraries().filter(|p| p.name != "flowgate-datapath") {
        for dependency in package.all() {
            assert!(
                !dependency.starts_with("aya"),
                "{} must not import {dependency}",
                package.name
            );
        }
    }
}

#[test]
fn offline_simulation_builds_without_aya() {
    let workspace = Workspace::load();
    for name in OFFLINE {
        let reached = workspace.reached_from(name);
        assert!(!reached.iter().any(|d| is_linux_only(d)), "{name} reaches {reached:?}");
    }
}

#[test]
fn only_the_kubernetes_crate_imports_kubernetes_types() {
    let workspace = Workspace::load();
    for package in workspace.libraries().filter(|p| p.name != "flowgate-kubernetes") {
        for dependency in package.all() {
            let types = dependency.starts_with("k8s-") || dependency.starts_with("kube");
            assert!(!types, "{} must not import {dependency}", package.name);
        }
    }
}

#[test]
fn every_package_is_called_after_its_directory() {
    for package in Workspace::load().libraries() {
        let directory = package.directory().file_name().unwrap().to_string_lossy().into_owned();
        let expected = match directory.as_str() {
            "flowgate" => directory,
            _ => format!("flowgate-{directory}"),
        };
        assert_eq!(package.name, expected);
    }
}

#[test]
fn every_member_inherits_the_workspaces_lints() {
    for package in &Workspace::load().packages {
        let text = std::fs::read_to_string(&package.manifest_path).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(inherits, Some(&toml::Value::Boolean(true)), "{} has no [lints]", package.name);
    }
}

#[test]
fn what_is_published_lies_under_crates() {
    for package in Workspace::load().packages.iter().filter(|p| p.is_published()) {
        assert!(package.lies_under_crates(), "{} lies elsewhere", package.name);
    }
}

fn is_linux_only(dependency: &str) -> bool {
    dependency.starts_with("aya") || dependency.contains("netlink") || dependency == "nix"
}

struct Workspace {
    packages: Vec<Package>,
    /// From a package's name to the names of what it is built from.
    graph: BTreeMap<String, BTreeSet<String>>,
}

impl Workspace {
    fn load() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--manifest-path"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
            .output()
            .expect("cargo starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Metadata = serde_json::from_slice(&output.stdout).expect("cargo's JSON");
        Self { graph: metadata.graph(), packages: metadata.members() }
    }

    fn package(&self, name: &str) -> &Package {
        let found = self.packages.iter().find(|package| package.name == name);
        found.unwrap_or_else(|| panic!("no package {name} in the workspace"))
    }

    /// What users can depend on.
    fn libraries(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.is_published())
    }

    /// Everything that a build of this package compiles.
    fn reached_from(&self, name: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut left = vec![name];
        while let Some(next) = left.pop() {
            for dependency in self.graph.get(next).into_iter().flatten() {
                if reached.insert(dependency.as_str()) {
                    left.push(dependency);
                }
            }
        }
        reached
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
}

impl Metadata {
    fn graph(&self) -> BTreeMap<String, BTreeSet<String>> {
        let built_from = |package: &Package| package.normal().map(str::to_owned).collect();
        self.packages.iter().map(|p| (p.name.clone(), built_from(p))).collect()
    }

    fn members(self) -> Vec<Package> {
        let members = self.workspace_members;
        self.packages.into_iter().filter(|package| members.contains(&package.id)).collect()
    }
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
    publish: Option<Vec<String>>,
}

impl Package {
    fn directory(&self) -> &Path {
        self.manifest_path.parent().unwrap()
    }

    fn is_published(&self) -> bool {
        self.publish.is_none()
    }

    fn lies_under_crates(&self) -> bool {
        self.directory().parent().is_some_and(|directory| directory.ends_with("crates"))
    }

    /// What users of the package build, too.
    fn normal(&self) -> impl Iterator<Item = &str> {
        self.dependencies
            .iter()
            .filter(|d| d.kind.as_deref() != Some("dev"))
            .map(|d| d.name.as_str())
    }

    /// Tests' dependencies among them.
    fn all(&self) -> impl Iterator<Item = &str> {
        self.dependencies.iter().map(|d| d.name.as_str())
    }
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

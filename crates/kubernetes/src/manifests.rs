//! What all manifests together say, and reading them.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use flowgate_policy::{
    inventory::{Inventory, Node},
    model::{Direction, Policy, PolicyRef, Tier},
};

use crate::{
    Location, ManifestError, Reason, Warning,
    index::Index,
    json, node,
    object::{Batch, Object, Parsed},
    tree, yaml,
};

/// What the manifests say that were read so far.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// The pods, nodes and namespaces, in the order in which they were read.
    pub inventory: Inventory,
    /// The policies, in the order in which they were read.
    pub policies: Vec<Policy>,
    /// What was noticed.
    pub warnings: Vec<Warning>,
    pub(crate) index: Index,
}

impl Manifests {
    /// Reads files and directories. Of a directory it takes `*.yaml`, `*.yml` and `*.json`, and
    /// those of the directories in it, sorted by path.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] for the first mistake, for a path that can't be read, and for a directory
    /// without manifests.
    pub fn from_paths(paths: &[PathBuf]) -> Result<Self, ManifestError> {
        let mut manifests = Self::default();
        for path in paths {
            for file in files(path)? {
                let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, error))?;
                manifests.read(&file.to_string_lossy(), &text)?;
            }
        }
        Ok(manifests)
    }

    /// Reads a text, which errors and warnings call `source_name`. It is JSON if that name ends in
    /// `.json` or if the text is a row of JSON objects, else YAML.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] for the first mistake; nothing has changed then.
    pub fn read(&mut self, source_name: &str, text: &str) -> Result<(), ManifestError> {
        let source = Arc::from(source_name);
        let mut batch = Batch::default();
        for document in documents(&source, text)? {
            batch.read(&source, &document)?;
        }
        self.check(&batch)?;
        self.warnings.append(&mut batch.warnings);
        for parsed in batch.objects {
            self.add(parsed);
        }
        Ok(())
    }

    /// Where a policy is, if it was read.
    #[must_use]
    pub fn location_of(&self, policy: &PolicyRef) -> Option<&Location> {
        self.index.policies.get(policy).map(|places| &places.policy)
    }

    /// Where a rule of a policy is, by its place in the model; where that isn't known, where its
    /// policy is.
    #[must_use]
    pub fn rule_location(
        &self,
        policy: &PolicyRef,
        direction: Direction,
        index: usize,
    ) -> Option<&Location> {
        self.index.policies.get(policy).map(|places| places.rule(direction, index))
    }

    fn check(&self, batch: &Batch) -> Result<(), ManifestError> {
        let mut of_batch = Index::default();
        for parsed in &batch.objects {
            self.index.check(parsed)?;
            of_batch.check(parsed)?;
            of_batch.add(parsed);
        }
        Ok(())
    }

    fn add(&mut self, parsed: Parsed) {
        self.index.add(&parsed);
        match parsed.object {
            Object::Namespace { name, labels } => {
                self.inventory.namespaces.insert(name, labels);
            }
            Object::Node(node) => self.add_node(node),
            Object::Pod(workload) => {
                self.imply_namespace(&workload.id.namespace);
                workload.node.iter().for_each(|name| self.imply_node(name));
                self.inventory.workloads.push(workload);
            }
            Object::FinishedPod => {}
            Object::Policy(policy) => self.add_policy(policy, &parsed.at),
            Object::Policies(policies) => {
                policies.into_iter().for_each(|policy| self.add_policy(policy, &parsed.at));
            }
        }
    }

    fn add_policy(&mut self, policy: Policy, at: &Location) {
        self.imply_namespace(&policy.id.namespace);
        self.warn_of_contradictions(&policy, at);
        self.policies.push(policy);
    }

    /// Of the policies so far that may contradict one that is added.
    fn warn_of_contradictions(&mut self, added: &Policy, at: &Location) {
        if added.tier == Tier::Namespace {
            return;
        }
        for known in &self.policies {
            let directions = added.contradicts(known);
            if !directions.is_empty() {
                let at = Box::new(at.clone());
                let other = known.id.clone();
                let first = other.clone().min(added.id.clone());
                let warning = Warning::EqualPriority { at, other, directions, first };
                self.warnings.push(warning);
            }
        }
    }

    /// An object of the cluster has an empty one, which is none.
    fn imply_namespace(&mut self, name: &Arc<str>) {
        if !name.is_empty() && !self.inventory.namespaces.contains_key(name) {
            self.inventory.namespaces.insert(Arc::clone(name), node::implied_labels(name));
        }
    }

    fn imply_node(&mut self, name: &Arc<str>) {
        if !self.index.nodes.contains_key(name) {
            let name = Arc::clone(name);
            self.add_node(Node { name, labels: Default::default(), addresses: Vec::new() });
        }
    }

    fn add_node(&mut self, node: Node) {
        let nodes = &mut self.inventory.nodes;
        let place = *self.index.nodes.entry(Arc::clone(&node.name)).or_insert(nodes.len());
        match nodes.get_mut(place) {
            Some(implied) => *implied = node,
            None => nodes.push(node),
        }
    }
}

fn documents(source: &Arc<str>, text: &str) -> Result<Vec<tree::Document>, ManifestError> {
    let refused = |error: tree::TreeError| {
        let at = Location {
            document: Some(error.document),
            line: error.line,
            path: error.path,
            ..Location::of_source(source)
        };
        ManifestError::new(at, *error.reason)
    };
    let documents = parse(source, text).map_err(refused)?;
    documents.iter().try_for_each(tree::check).map_err(refused)?;
    Ok(documents)
}

fn parse(source: &str, text: &str) -> Result<Vec<tree::Document>, tree::TreeError> {
    if is_json(Path::new(source)) {
        return json::documents(text);
    }
    // JSON objects one after another are no YAML, and `kubectl -o json` has no file name.
    if text.trim_start().starts_with('{')
        && let Ok(documents) = json::documents(text)
    {
        return Ok(documents);
    }
    yaml::documents(text)
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| ["yaml", "yml", "json"].contains(&extension))
}

fn unreadable(path: &Path, error: io::Error) -> ManifestError {
    let source = path.to_string_lossy().into();
    ManifestError::new(Location::of_source(&source), Reason::Unreadable { error })
}

/// `path` itself if it is a file, else the manifests in it.
fn files(path: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, error))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = BTreeSet::new();
    collect(path, &mut found)?;
    if found.is_empty() {
        let source = path.to_string_lossy().into();
        return Err(ManifestError::new(Location::of_source(&source), Reason::NoManifests));
    }
    Ok(found.into_iter().collect())
}

/// Directories behind symbolic links are left out, since they may lead back.
fn collect(directory: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), ManifestError> {
    let entries = fs::read_dir(directory).map_err(|error| unreadable(directory, error))?;
    for entry in entries {
        let path = entry.map_err(|error| unreadable(directory, error))?.path();
        if path.is_dir() {
            if !path.is_symlink() {
                collect(&path, found)?;
            }
        } else if is_manifest(&path) {
            found.insert(path);
        }
    }
    Ok(())
}

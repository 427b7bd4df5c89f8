//! Where in the manifests something is: file, document, object, field.

use std::{fmt, sync::Arc};

/// Where in the manifests something is.
///
/// Displays as `pods.yaml: document 3 (Pod/prod/web): spec.nodeName`, as far as it is known.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file, or what the caller called the text.
    pub source: Arc<str>,
    /// The document in the file, counted from 1.
    pub document: Option<usize>,
    /// The line in the file, counted from 1. JSON has lines for errors of syntax alone.
    pub line: Option<usize>,
    /// The object.
    pub object: Option<ObjectName>,
    /// The path of the field, like `spec.ingress[0].from[1].ipBlock.cidr`; empty for all of it.
    pub path: String,
}

impl Location {
    pub(crate) fn of_source(source: &Arc<str>) -> Self {
        Self {
            source: Arc::clone(source),
            document: None,
            line: None,
            object: None,
            path: String::new(),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        match (self.document, &self.object) {
            (Some(document), Some(object)) => write!(f, ": document {document} ({object})")?,
            (Some(document), None) => write!(f, ": document {document}")?,
            (None, _) => {}
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        Ok(())
    }
}

/// Names one API object.
///
/// Displays as `kind/namespace/name`, and without the namespace where there is none.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The kind.
    pub kind: Arc<str>,
    /// The namespace, if the kind has one or the object names one.
    pub namespace: Option<Arc<str>>,
    /// The name, if it has one.
    pub name: Option<Arc<str>>,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "/{namespace}")?;
        }
        if let Some(name) = &self.name {
            write!(f, "/{name}")?;
        }
        Ok(())
    }
}

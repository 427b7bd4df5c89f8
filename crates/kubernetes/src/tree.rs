//! Documents as trees of values with lines: what YAML and JSON have in common.
//!
//! Not here: what a value means ([`crate::field`] reads it as a type). Invariant: mappings of a
//! checked tree have unique string keys, and no merge keys.

use std::{collections::HashSet, fmt, rc::Rc, sync::Arc};

use crate::Reason;

/// How deep a document may be nested.
pub(crate) const DEPTH_LIMIT: usize = 100;

/// One document of a text.
#[derive(Debug)]
pub(crate) struct Document {
    /// Its number in the text, counted from 1.
    pub(crate) number: usize,
    /// What it says.
    pub(crate) root: Node,
}

/// A value, and the line on which it begins.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) line: Option<usize>,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    /// A number that isn't a plain decimal integer, as it was written.
    Number(Arc<str>),
    /// A string, and whether it was written without quotes.
    String {
        text: Arc<str>,
        plain: bool,
    },
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<(Arc<str>, Rc<Node>)>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "the boolean {value}"),
            Self::Integer(value) => write!(f, "the integer {value}"),
            Self::Number(text) => write!(f, "the number {text}"),
            Self::String { text, .. } => write!(f, "the string {text:?}"),
            Self::Sequence(_) => f.write_str("a list"),
            Self::Mapping(_) => f.write_str("a mapping"),
        }
    }
}

/// Why a text is no tree.
#[derive(Debug)]
pub(crate) struct TreeError {
    pub(crate) document: usize,
    pub(crate) line: Option<usize>,
    pub(crate) path: String,
    pub(crate) reason: Box<Reason>,
}

impl TreeError {
    pub(crate) fn new(document: usize, line: Option<usize>, reason: Reason) -> Self {
        Self { document, line, path: String::new(), reason: Box::new(reason) }
    }
}

/// The path of a field of what is at `path`.
pub(crate) fn path_of_key(path: &str, key: &str) -> String {
    let simple = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !key.bytes().all(simple) {
        format!("{path}[{key}]")
    } else if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// Refuses duplicate keys and merge keys.
pub(crate) fn check(document: &Document) -> Result<(), TreeError> {
    check_node(&document.root, "").map_err(|(line, path, reason)| TreeError {
        path,
        ..TreeError::new(document.number, line, reason)
    })
}

type Found = (Option<usize>, String, Reason);

fn check_node(node: &Node, path: &str) -> Result<(), Found> {
    match &node.value {
        Value::Mapping(entries) => check_mapping(entries, path),
        Value::Sequence(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| check_node(item, &format!("{path}[{index}]"))),
        _ => Ok(()),
    }
}

fn check_mapping(entries: &[(Arc<str>, Rc<Node>)], path: &str) -> Result<(), Found> {
    let mut seen = HashSet::new();
    for (key, node) in entries {
        let path = path_of_key(path, key);
        if key.as_ref() == "<<" {
            return Err((node.line, path, Reason::MergeKey));
        }
        if !seen.insert(key) {
            return Err((node.line, path, Reason::DuplicateKey));
        }
        check_node(node, &path)?;
    }
    Ok(())
}

//! A value of a document with its path, read as a type.
//!
//! As in Kubernetes, `null` counts as missing. Invariant: every error carries path and line.

use std::{cell::RefCell, net::IpAddr, sync::Arc};

use crate::{
    Location, NameRule, Reason, Warning,
    tree::{Node, Value, path_of_key},
};

/// Why a field was refused.
#[derive(Debug)]
pub(crate) struct FieldError {
    pub(crate) path: String,
    pub(crate) line: Option<usize>,
    pub(crate) reason: Reason,
}

pub(crate) type Read<T> = Result<T, Box<FieldError>>;

/// What is common to the fields of one object: where it is, and what was noticed.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) at: Location,
    pub(crate) warnings: RefCell<Vec<Warning>>,
}

/// A value of a document, with its path.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    context: &'a Context,
    node: &'a Node,
    path: String,
}

impl<'a> Field<'a> {
    pub(crate) fn new(context: &'a Context, node: &'a Node) -> Self {
        Self { context, node, path: context.at.path.clone() }
    }

    pub(crate) fn error(&self, reason: Reason) -> Box<FieldError> {
        Box::new(FieldError { path: self.path.clone(), line: self.node.line, reason })
    }

    pub(crate) fn location(&self) -> Box<Location> {
        let at = self.context.at.clone();
        Box::new(Location { path: self.path.clone(), line: self.node.line, ..at })
    }

    pub(crate) fn warn(&self, warning: Warning) {
        self.context.warnings.borrow_mut().push(warning);
    }

    fn wrong_type(&self, expected: &'static str) -> Box<FieldError> {
        let found = self.node.value.to_string().into();
        self.error(match self.node.value {
            Value::Bool(_) | Value::Integer(_) | Value::Number(_) if expected == "a string" => {
                Reason::Unquoted { found }
            }
            _ => Reason::WrongType { expected, found },
        })
    }

    /// The fields of a mapping, in order.
    pub(crate) fn entries(&self) -> Read<Vec<(&'a Arc<str>, Self)>> {
        let Value::Mapping(entries) = &self.node.value else {
            return Err(self.wrong_type("a mapping"));
        };
        let entry = |(key, node): &'a (Arc<str>, std::rc::Rc<Node>)| {
            (key, Self { path: path_of_key(&self.path, key), context: self.context, node })
        };
        Ok(entries.iter().map(entry).collect())
    }

    /// The field `key` of a mapping, unless it is missing or null.
    pub(crate) fn get(&self, key: &str) -> Read<Option<Self>> {
        let Value::Mapping(entries) = &self.node.value else {
            return Err(self.wrong_type("a mapping"));
        };
        let found = entries.iter().find(|(known, _)| known.as_ref() == key);
        let present = found.filter(|(_, node)| !matches!(node.value, Value::Null));
        Ok(present.map(|(_, node)| Self {
            context: self.context,
            node,
            path: path_of_key(&self.path, key),
        }))
    }

    /// The field `key` of a mapping.
    pub(crate) fn require(&self, key: &str) -> Read<Self> {
        self.get(key)?.ok_or_else(|| {
            Box::new(FieldError {
                path: path_of_key(&self.path, key),
                line: self.node.line,
                reason: Reason::MissingField,
            })
        })
    }

    /// The items of the list `key`; none if it is missing or null.
    pub(crate) fn list(&self, key: &str) -> Read<Vec<Self>> {
        self.get(key)?.map_or(Ok(Vec::new()), |list| list.items())
    }

    /// The items of a list.
    pub(crate) fn items(&self) -> Read<Vec<Self>> {
        let Value::Sequence(items) = &self.node.value else {
            return Err(self.wrong_type("a list"));
        };
        let item = |(index, node): (usize, &'a std::rc::Rc<Node>)| Self {
            context: self.context,
            node,
            path: format!("{}[{index}]", self.path),
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    pub(crate) fn node(&self) -> &'a Node {
        self.node
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn string(&self) -> Read<&'a Arc<str>> {
        let Value::String { text, plain } = &self.node.value else {
            return Err(self.wrong_type("a string"));
        };
        if *plain && is_boolean_elsewhere(text) {
            let text = text.as_ref().into();
            self.warn(Warning::BooleanElsewhere { at: self.location(), text });
        }
        Ok(text)
    }

    /// A string that follows `rule`.
    pub(crate) fn name(&self, rule: NameRule) -> Read<&'a Arc<str>> {
        let text = self.string()?;
        match rule.admits(text) {
            true => Ok(text),
            false => Err(self.error(Reason::InvalidName { rule, value: text.as_ref().into() })),
        }
    }

    pub(crate) fn boolean(&self) -> Read<bool> {
        match self.node.value {
            Value::Bool(value) => Ok(value),
            _ => Err(self.wrong_type("a boolean")),
        }
    }

    pub(crate) fn is_string(&self) -> bool {
        matches!(self.node.value, Value::String { .. })
    }

    pub(crate) fn integer(&self) -> Read<i64> {
        match self.node.value {
            Value::Integer(value) => Ok(value),
            _ => Err(self.wrong_type("an integer")),
        }
    }

    pub(crate) fn port_number(&self) -> Read<u16> {
        let value = self.integer()?;
        let port = u16::try_from(value).ok().filter(|&port| port != 0);
        port.ok_or_else(|| self.error(Reason::PortOutOfRange { value }))
    }

    /// A number between 0 and 255.
    pub(crate) fn byte(&self) -> Read<u8> {
        let Value::Integer(value) = self.node.value else {
            return Err(self.wrong_type("an integer"));
        };
        u8::try_from(value).map_err(|_| self.error(Reason::NotAByte { value }))
    }

    /// One of `allowed`, as its place in the list.
    pub(crate) fn choice(&self, allowed: &'static [&'static str]) -> Read<usize> {
        let text = self.string()?;
        let place = allowed.iter().position(|name| *name == text.as_ref());
        let unknown = || Reason::UnknownChoice { value: text.as_ref().into(), allowed };
        place.ok_or_else(|| self.error(unknown()))
    }

    /// The items of a list that may not be empty.
    pub(crate) fn some_items(&self) -> Read<Vec<Self>> {
        let items = self.items()?;
        if items.is_empty() { Err(self.error(Reason::EmptyList)) } else { Ok(items) }
    }

    pub(crate) fn address(&self) -> Read<IpAddr> {
        let text = self.string()?;
        let invalid = || self.error(Reason::InvalidAddress { value: text.as_ref().into() });
        text.parse().map_err(|_| invalid())
    }

    /// Refuses fields of a mapping that aren't `known`.
    pub(crate) fn deny_unknown(&self, known: &[&str]) -> Read<()> {
        let entries = self.entries()?;
        match entries.iter().find(|(key, _)| !known.contains(&key.as_ref())) {
            Some((_, unknown)) => Err(unknown.error(Reason::UnknownField)),
            None => Ok(()),
        }
    }
}

/// What YAML 1.1 calls a boolean and YAML 1.2 a string; Kubernetes' reader follows 1.1.
fn is_boolean_elsewhere(text: &str) -> bool {
    const WORDS: [&str; 12] =
        ["yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF"];
    WORDS.contains(&text)
}

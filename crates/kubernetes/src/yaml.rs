//! YAML to trees.
//!
//! Scalars are read by the core schema of YAML 1.2, except that an integer with a leading zero is
//! no plain integer, because readers disagree whether it is octal. Memory is bounded: nesting has a
//! limit, aliases share what they stand for, and how much they stand for has a limit too.

use std::{borrow::Cow, collections::HashMap, rc::Rc, sync::Arc};

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use crate::{
    Reason,
    tree::{DEPTH_LIMIT, Document, Node, TreeError, Value},
};

/// How many values the aliases of one document may stand for.
const ALIAS_LIMIT: usize = 100_000;

/// The documents of `text`, without those that are empty.
pub(crate) fn documents(text: &str) -> Result<Vec<Document>, TreeError> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event.map_err(|error| {
            let message = error.info().into();
            let line = Some(error.marker().line());
            TreeError::new(builder.number.max(1), line, Reason::Syntax { message })
        })?;
        let line = span.start.line();
        builder
            .event(event, line)
            .map_err(|reason| TreeError::new(builder.number, Some(line), reason))?;
    }
    Ok(builder.documents)
}

/// A value with how many values it holds, itself included.
#[derive(Clone)]
struct Sized {
    node: Rc<Node>,
    size: usize,
}

enum Children {
    Sequence(Vec<Rc<Node>>),
    Mapping { entries: Vec<(Arc<str>, Rc<Node>)>, key: Option<Arc<str>> },
}

/// A collection whose end wasn't seen yet.
struct Open {
    children: Children,
    size: usize,
    line: usize,
    anchor: usize,
}

#[derive(Default)]
struct Builder {
    documents: Vec<Document>,
    number: usize,
    open: Vec<Open>,
    anchors: HashMap<usize, Sized>,
    aliased: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), Reason> {
        match event {
            Event::DocumentStart(_) => self.start_document(),
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref())?;
                return self.complete(value, 1, line, anchor);
            }
            Event::Alias(anchor) => return self.alias(anchor),
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag)?;
                return self.start(Children::Sequence(Vec::new()), line, anchor);
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag)?;
                let children = Children::Mapping { entries: Vec::new(), key: None };
                return self.start(children, line, anchor);
            }
            Event::SequenceEnd | Event::MappingEnd => return self.end(),
            _ => {}
        }
        Ok(())
    }

    fn start_document(&mut self) {
        self.number += 1;
        self.anchors.clear();
        self.aliased = 0;
    }

    fn start(&mut self, children: Children, line: usize, anchor: usize) -> Result<(), Reason> {
        if self.open.len() == DEPTH_LIMIT {
            return Err(Reason::TooDeep { limit: DEPTH_LIMIT });
        }
        if let Some(Open { children: Children::Mapping { key: None, .. }, .. }) = self.open.last() {
            return Err(Reason::KeyNotString { found: "a collection".into() });
        }
        self.open.push(Open { children, size: 1, line, anchor });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Reason> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.children {
            Children::Sequence(items) => Value::Sequence(items),
            Children::Mapping { entries, .. } => Value::Mapping(entries),
        };
        self.complete(value, open.size, open.line, open.anchor)
    }

    fn alias(&mut self, anchor: usize) -> Result<(), Reason> {
        let Some(target) = self.anchors.get(&anchor).cloned() else {
            return Err(Reason::Syntax { message: "an alias inside its own anchor".into() });
        };
        self.aliased = self.aliased.saturating_add(target.size);
        if self.aliased > ALIAS_LIMIT {
            return Err(Reason::TooManyAliases { limit: ALIAS_LIMIT });
        }
        self.attach(target)
    }

    fn complete(
        &mut self,
        value: Value,
        size: usize,
        line: usize,
        anchor: usize,
    ) -> Result<(), Reason> {
        let sized = Sized { node: Rc::new(Node { line: Some(line), value }), size };
        if anchor != 0 {
            self.anchors.insert(anchor, sized.clone());
        }
        self.attach(sized)
    }

    fn attach(&mut self, Sized { node, size }: Sized) -> Result<(), Reason> {
        let Some(open) = self.open.last_mut() else {
            if !matches!(node.value, Value::Null) {
                let root = Rc::unwrap_or_clone(node);
                self.documents.push(Document { number: self.number, root });
            }
            return Ok(());
        };
        open.size += size;
        match &mut open.children {
            Children::Sequence(items) => items.push(node),
            Children::Mapping { entries, key } => match key.take() {
                Some(key) => entries.push((key, node)),
                None => *key = Some(key_text(&node)?),
            },
        }
        Ok(())
    }
}

fn key_text(node: &Node) -> Result<Arc<str>, Reason> {
    match &node.value {
        Value::String { text, .. } => Ok(Arc::clone(text)),
        other => Err(Reason::KeyNotString { found: other.to_string().into() }),
    }
}

fn refuse_tag(tag: Option<Cow<'_, Tag>>) -> Result<(), Reason> {
    tag.map_or(Ok(()), |tag| Err(unsupported(&tag)))
}

fn unsupported(tag: &Tag) -> Reason {
    Reason::UnsupportedTag { tag: format!("{}{}", tag.handle, tag.suffix).into() }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, Reason> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => {
            Ok(Value::String { text: text.into(), plain: false })
        }
        Some(tag) => Err(unsupported(tag)),
        None if style == ScalarStyle::Plain => Ok(plain(text)),
        None => Ok(Value::String { text: text.into(), plain: false }),
    }
}

/// Reads an unquoted scalar by the core schema.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).unwrap_or_else(|| Value::String { text: text.into(), plain: true }),
    }
}

fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits && (digits == "0" || !digits.starts_with('0')) {
        let integer = text.parse().map(Value::Integer);
        return Some(integer.unwrap_or_else(|_| Value::Number(text.into())));
    }
    let radix = |prefix, radix| {
        text.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    (all_digits || radix("0x", 16) || radix("0o", 8) || is_float(digits))
        .then(|| Value::Number(text.into()))
}

/// What the core schema calls a float, after its sign.
fn is_float(text: &str) -> bool {
    let special = [".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"].contains(&text);
    let has_digit = text.bytes().any(|byte| byte.is_ascii_digit());
    let begins = text.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    special || (has_digit && begins && text.parse::<f64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unquoted_scalars_follow_the_core_schema() {
        let table = [
            ("~", "null"),
            ("true", "the boolean true"),
            ("80", "the integer 80"),
            ("-1", "the integer -1"),
            ("0", "the integer 0"),
            ("010", "the number 010"),
            ("0x50", "the number 0x50"),
            ("1.10", "the number 1.10"),
            ("1e3", "the number 1e3"),
            (".inf", "the number .inf"),
            ("99999999999999999999", "the number 99999999999999999999"),
            ("yes", "the string \"yes\""),
            ("infinity", "the string \"infinity\""),
            ("1.2.3.4", "the string \"1.2.3.4\""),
            ("e3", "the string \"e3\""),
            ("-", "the string \"-\""),
        ];
        for (text, expected) in table {
            assert_eq!(plain(text).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn documents_are_counted_and_empty_ones_left_out() {
        let documents = documents("# nothing\n---\na: 1\n---\n---\nb: 2\n").unwrap();
        let numbers: Vec<_> = documents.iter().map(|document| document.number).collect();
        assert_eq!(numbers.len(), 2);
        assert_eq!(numbers[1] - numbers[0], 2);
    }

    #[test]
    fn aliases_share_and_are_limited() {
        assert_eq!(documents("a: &x [1]\nb: *x\n").unwrap().len(), 1);
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let below = vec![format!("*a{}", level - 1); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        let error = documents(&bomb).unwrap_err();
        assert!(matches!(*error.reason, Reason::TooManyAliases { .. }), "{error:?}");
    }

    #[test]
    fn nesting_is_limited() {
        let error = documents(&"[".repeat(100_000)).unwrap_err();
        assert!(matches!(*error.reason, Reason::TooDeep { .. } | Reason::Syntax { .. }));
    }
}

//! JSON to trees: one object, or several one after another.

use std::{fmt, rc::Rc};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

use crate::{
    Reason,
    tree::{Document, Node, TreeError, Value},
};

/// The documents of `text`, without those that are `null`.
pub(crate) fn documents(text: &str) -> Result<Vec<Document>, TreeError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let stream = serde_json::Deserializer::from_str(text).into_iter::<Node>();
    for (number, root) in (1..).zip(stream) {
        let root = root.map_err(|error| {
            let message = error.to_string().into();
            TreeError::new(number, Some(error.line()), Reason::Syntax { message })
        })?;
        if !matches!(root.value, Value::Null) {
            documents.push(Document { number, root });
        }
    }
    Ok(documents)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(ValueVisitor)?;
        Ok(Self { line: None, value })
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        let integer = i64::try_from(value).map(Value::Integer);
        Ok(integer.unwrap_or_else(|_| Value::Number(value.to_string().into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string().into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String { text: text.into(), plain: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(Rc::new(item));
        }
        Ok(Value::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = access.next_entry::<String, Node>()? {
            entries.push((key.into(), Rc::new(node)));
        }
        Ok(Value::Mapping(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_follow_one_another() {
        let documents = documents("{\"a\": 1} null\n{\"b\": [true, 1.5, \"x\"]}{}").unwrap();
        let numbers: Vec<_> = documents.iter().map(|document| document.number).collect();
        assert_eq!(numbers, [1, 3, 4]);
    }

    #[test]
    fn an_error_names_document_and_line() {
        let error = documents("{}\n{\"a\": }").unwrap_err();
        assert_eq!((error.document, error.line), (2, Some(2)));
    }
}

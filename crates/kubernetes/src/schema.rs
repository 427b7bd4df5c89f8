//! What the fields of a kind of object are called, mean and may hold: one description, from which
//! the reader takes the names that it knows and the `CustomResourceDefinition` its schema.
//!
//! Not here: reading ([`crate::field`]). Invariant: what is described can be said in a structural
//! schema of `apiextensions.k8s.io/v1`.

use serde_json::{Map, Value, json};

use crate::{
    Reason,
    field::{Field, Read},
};

/// A field of an object.
#[derive(Debug)]
pub(crate) struct Property {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
}

impl Property {
    /// A field that may be missing.
    pub(crate) const fn new(name: &'static str, description: &'static str, shape: Shape) -> Self {
        Self { name, description, shape, required: false }
    }

    /// A field that must be there.
    pub(crate) const fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

/// What a field may hold.
#[derive(Debug)]
pub(crate) enum Shape {
    Boolean,
    /// A text of at least and at most so many characters.
    Text(usize, usize),
    /// One of some words, and the one that a missing field means.
    Choice(&'static [&'static str], Option<&'static str>),
    /// A number, between two bounds.
    Integer(u32, u32),
    /// A port's number or name.
    Port,
    /// A text for each label.
    Labels,
    /// A list; whether it may be empty.
    List(&'static Shape, bool),
    Object(&'static Object),
}

/// A mapping with known fields.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) properties: &'static [Property],
    pub(crate) alternatives: Alternatives,
}

/// Which fields of an object exclude each other: those of different rows.
#[derive(Debug)]
pub(crate) enum Alternatives {
    None,
    /// One row has a field.
    One(&'static [&'static [&'static str]]),
    /// At most one row has a field.
    AtMostOne(&'static [&'static [&'static str]]),
}

impl Object {
    /// An object of which every field may stand beside every other.
    pub(crate) const fn of(properties: &'static [Property]) -> Self {
        Self { properties, alternatives: Alternatives::None }
    }

    /// Refuses fields that aren't described, and fields that exclude each other.
    pub(crate) fn check(&self, field: &Field<'_>) -> Read<()> {
        let known: Vec<&str> = self.properties.iter().map(|property| property.name).collect();
        field.deny_unknown(&known)?;
        match self.alternatives {
            Alternatives::None => Ok(()),
            Alternatives::AtMostOne(rows) => exclusive(field, rows).map(drop),
            Alternatives::One(rows) => match exclusive(field, rows)? {
                Some(_) => Ok(()),
                None => Err(field.error(Reason::NeedsOneOf { fields: rows.concat().into() })),
            },
        }
    }
}

/// The first field of a row that has one; refuses two rows.
fn exclusive(
    field: &Field<'_>,
    rows: &'static [&'static [&'static str]],
) -> Read<Option<&'static str>> {
    let mut found = None;
    for row in rows {
        let mut present = row.iter().filter(|name| matches!(field.get(name), Ok(Some(_))));
        match (found, present.next()) {
            (Some(first), Some(second)) => {
                return Err(field.error(Reason::Exclusive { first, second }));
            }
            (None, Some(name)) => found = Some(*name),
            (_, None) => {}
        }
    }
    Ok(found)
}

impl Property {
    fn to_json(&self) -> Value {
        let Value::Object(mut schema) = self.shape.to_json() else { return Value::Null };
        schema.insert("description".into(), self.description.into());
        Value::Object(schema)
    }
}

impl Shape {
    fn to_json(&self) -> Value {
        match self {
            Self::Boolean => json!({"type": "boolean"}),
            Self::Text(least, most) => {
                json!({"type": "string", "minLength": least, "maxLength": most})
            }
            Self::Choice(allowed, None) => json!({"type": "string", "enum": allowed}),
            Self::Choice(allowed, Some(default)) => {
                json!({"type": "string", "enum": allowed, "default": default})
            }
            Self::Integer(minimum, maximum) => {
                json!({"type": "integer", "minimum": minimum, "maximum": maximum})
            }
            Self::Port => json!({
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "minimum": 1,
                "maximum": 65535,
                "maxLength": 15,
                "x-kubernetes-int-or-string": true,
            }),
            Self::Labels => {
                json!({"type": "object", "additionalProperties": {"type": "string"}})
            }
            Self::List(item, true) => json!({"type": "array", "items": item.to_json()}),
            Self::List(item, false) => {
                json!({"type": "array", "items": item.to_json(), "minItems": 1})
            }
            Self::Object(object) => object.to_json(),
        }
    }
}

impl Object {
    /// The structural schema.
    pub(crate) fn to_json(&self) -> Value {
        let property = |property: &Property| (property.name.to_owned(), property.to_json());
        let properties: Map<String, Value> = self.properties.iter().map(property).collect();
        let mut schema = Map::from_iter([("type".to_owned(), "object".into())]);
        schema.insert("properties".into(), properties.into());
        let required = self.properties.iter().filter(|property| property.required);
        let required: Vec<&str> = required.map(|property| property.name).collect();
        if !required.is_empty() {
            schema.insert("required".into(), required.into());
        }
        if let Some(alternatives) = self.alternatives.to_json() {
            schema.insert("oneOf".into(), alternatives);
        }
        Value::Object(schema)
    }
}

impl Alternatives {
    fn to_json(&self) -> Option<Value> {
        let (rows, none) = match self {
            Self::None => return None,
            Self::One(rows) => (rows, false),
            Self::AtMostOne(rows) => (rows, true),
        };
        let mut alternatives: Vec<Value> = rows.iter().map(|row| any_of(row)).collect();
        if none {
            alternatives.push(json!({"not": any_of(&rows.concat())}));
        }
        Some(alternatives.into())
    }
}

/// One of these fields is there.
fn any_of(names: &[&str]) -> Value {
    match names {
        [name] => json!({"required": [name]}),
        names => {
            let each: Vec<Value> = names.iter().map(|name| json!({"required": [name]})).collect();
            json!({"anyOf": each})
        }
    }
}

/// A value as YAML. Texts stand in quotes, and keys must need none.
pub(crate) fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    write_block(&mut text, value, 0);
    text
}

fn write_block(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                text.push_str(&format!("{indent}{key}:"));
                write_value(text, value, depth + 1);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                text.push_str(&format!("{indent}-"));
                write_value(text, item, depth + 1);
            }
        }
        scalar => text.push_str(&format!("{indent}{scalar}\n")),
    }
}

/// What follows a key or a dash.
fn write_value(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            write_block(text, value, depth);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            write_block(text, value, depth);
        }
        scalar => text.push_str(&format!(" {scalar}\n")),
    }
}

//! The operators' page about the file, made from the types and their documentation.

use std::fmt::Write;

use schemars::{Schema, schema_for};
use serde_json::{Map, Value};

use super::model::Config;

const HEADER: &str = "\
# The file of flowgate-lb

Made by `flowgate-lb reference`. A commented example is [lb.yaml](../examples/load-balancer/lb.yaml); the
[guide](load-balancer-operators.md) says what to choose. Times are written `500ms`, `2s`, `5m` or `1h`. A field
that isn't here is an error.
";

/// What may be written, as Markdown: a section for each type, fields in alphabetical order.
#[must_use]
pub fn reference() -> String {
    let schema = schema_for!(Config);
    let mut page =
        Page { definitions: definitions(&schema), text: HEADER.to_owned(), left: Vec::new() };
    page.section("file", schema.as_value());
    let mut done = 0;
    while let Some(name) = page.left.get(done).cloned() {
        let schema = page.definitions.get(&name).cloned().unwrap_or_default();
        page.section(&name, &schema);
        done += 1;
    }
    page.text
}

fn definitions(schema: &Schema) -> Map<String, Value> {
    schema.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default()
}

struct Page {
    definitions: Map<String, Value>,
    text: String,
    /// Types that were named, each once.
    left: Vec<String>,
}

impl Page {
    fn section(&mut self, name: &str, schema: &Value) {
        let name = name.to_lowercase();
        self.line(&format!("\n## {name}\n\n{}\n", description(schema)));
        if let Some(variants) = schema.get("oneOf").and_then(Value::as_array) {
            self.line("| value | what it is |\n|---|---|");
            variants.iter().for_each(|variant| self.variant(variant));
        } else if let Some(fields) = schema.get("properties").and_then(Value::as_object) {
            self.line("| field | type | default | what it is |\n|---|---|---|---|");
            fields.iter().for_each(|(name, field)| self.field(schema, (name, field)));
        }
    }

    fn variant(&mut self, variant: &Value) {
        let what = description(variant);
        let inside =
            variant.get("properties").and_then(Value::as_object).and_then(|p| p.iter().next());
        let value = match (variant.get("const").and_then(Value::as_str), inside) {
            (Some(value), _) => format!("`{value}`"),
            (None, Some((name, inside))) => format!("`{name}:` {}", self.kind(inside)),
            (None, None) => String::new(),
        };
        self.line(&format!("| {value} | {what} |"));
    }

    fn field(&mut self, owner: &Value, (name, field): (&str, &Value)) {
        let kind = self.kind(field);
        let required = owner.get("required").and_then(Value::as_array);
        let required = required.is_some_and(|all| all.iter().any(|one| one == name));
        let default = match field.get("default") {
            _ if required => "required".to_owned(),
            None | Some(Value::Null | Value::Object(_)) => String::new(),
            Some(Value::String(text)) => format!("`{text}`"),
            Some(value) => format!("`{value}`"),
        };
        self.line(&format!("| `{name}` | {kind} | {default} | {} |", description(field)));
    }

    /// The type of a value, with a link if it has a section.
    fn kind(&mut self, value: &Value) -> String {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            return self.link(reference.rsplit('/').next().unwrap_or_default());
        }
        if let Some(choices) = value.get("anyOf").and_then(Value::as_array) {
            return choices.first().map(|choice| self.kind(choice)).unwrap_or_default();
        }
        let format = value.get("format").and_then(Value::as_str);
        match (first_type(value), format) {
            ("array", _) => {
                let items = value.get("items").map(|items| self.kind(items)).unwrap_or_default();
                format!("list of {items}")
            }
            ("integer", _) => "number".to_owned(),
            ("string", Some("ip")) => "IP address".to_owned(),
            ("string", Some(format)) => format.to_owned(),
            (plain, _) => plain.to_owned(),
        }
    }

    fn link(&mut self, name: &str) -> String {
        if !self.left.iter().any(|known| known == name) {
            self.left.push(name.to_owned());
        }
        let name = name.to_lowercase();
        format!("[{name}](#{name})")
    }

    fn line(&mut self, text: &str) {
        writeln!(self.text, "{text}").expect("a string takes all text");
    }
}

/// What may be left out has `null` beside its type.
fn first_type(value: &Value) -> &str {
    match value.get("type") {
        Some(Value::String(name)) => name,
        Some(Value::Array(names)) => names.first().and_then(Value::as_str).unwrap_or_default(),
        _ => "",
    }
}

/// On one line.
fn description(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

//! On which line of a YAML text each field is.
//!
//! It reads by the parser that the configuration itself is read by. What it doesn't know, such as the
//! inside of an alias, has the line of what holds it.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser};

/// The lines of fields, by paths such as `services[0].name`.
#[derive(Debug, Default)]
pub(super) struct Lines(HashMap<String, usize>);

impl Lines {
    /// Those of the first document, as far as it can be read.
    pub(super) fn of(text: &str) -> Self {
        let mut walk = Walk::default();
        for event in Parser::new_from_str(text) {
            let Ok((event, span)) = event else { break };
            if !walk.event(&event, span.start.line()) {
                break;
            }
        }
        walk.lines
    }

    /// The line of a field, or of the nearest field around it.
    pub(super) fn find(&self, field: &str) -> Option<usize> {
        let mut path = field;
        loop {
            match (self.0.get(path), path.rfind(['.', '['])) {
                (Some(line), _) => return Some(*line),
                (None, Some(end)) => path = &path[..end],
                (None, None) => return self.0.get("").copied(),
            }
        }
    }
}

/// A collection whose end wasn't seen yet, with the path of what comes next in it.
enum Open {
    List { path: String, next: usize },
    Mapping { path: String, key: Option<(String, usize)> },
}

#[derive(Default)]
struct Walk {
    lines: Lines,
    open: Vec<Open>,
}

impl Walk {
    /// Whether there is more to read.
    fn event(&mut self, event: &Event<'_>, line: usize) -> bool {
        match event {
            Event::Scalar(text, ..) => self.scalar(text, line),
            Event::Alias(_) => {
                self.node(line);
            }
            Event::SequenceStart(..) => {
                let path = self.node(line);
                self.open.push(Open::List { path, next: 0 });
            }
            Event::MappingStart(..) => {
                let path = self.node(line);
                self.open.push(Open::Mapping { path, key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
            }
            Event::DocumentEnd => return false,
            _ => {}
        }
        true
    }

    /// A key waits for its value; any other scalar is a node.
    fn scalar(&mut self, text: &str, line: usize) {
        match self.open.last_mut() {
            Some(Open::Mapping { key: key @ None, .. }) => *key = Some((text.to_owned(), line)),
            _ => {
                self.node(line);
            }
        }
    }

    /// Notes the line of the value that comes next, and returns its path.
    fn node(&mut self, line: usize) -> String {
        let (path, line) = match self.open.last_mut() {
            None => (String::new(), line),
            Some(Open::List { path, next }) => {
                *next += 1;
                (format!("{path}[{}]", *next - 1), line)
            }
            Some(Open::Mapping { path, key }) => {
                let (key, line) = key.take().unwrap_or_else(|| (String::new(), line));
                let dot = if path.is_empty() { "" } else { "." };
                (format!("{path}{dot}{key}"), line)
            }
        };
        self.lines.0.insert(path.clone(), line);
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_on_its_line() {
        let lines =
            Lines::of("a: 1\nb:\n  - c: x\n    d: [1,\n      2]\n  -\n    c: &x {e: 3}\nf: *x\n");
        let line = |path| lines.find(path);
        assert_eq!(
            [line("a"), line("b"), line("b[0].c"), line("b[0].d[1]")].map(Option::unwrap),
            [1, 2, 3, 5]
        );
        assert_eq!([line("b[1].c.e"), line("f.e"), line("nothing")].map(Option::unwrap), [7, 8, 1]);
    }

    #[test]
    fn what_is_no_yaml_has_no_lines() {
        assert_eq!(Lines::of("").find("a"), None);
        assert_eq!(Lines::of("a: [1\n").find("a[0]"), Some(1));
    }
}

//! A line of kernel releases: `6.12` of `6.12.117+deb12-cloud-amd64`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Major and minor version, ordered by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Line {
    major: u32,
    minor: u32,
}

/// A text that doesn't begin with two numbers.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` names no kernel: say a version such as 6.1, `newest` or `running`")]
pub(crate) struct NotALine(String);

impl Line {
    pub(crate) const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// The line of a release, as `uname -r` says it.
    pub(crate) fn of_release(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some(Self::new(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Line {
    type Err = NotALine;

    fn from_str(text: &str) -> Result<Self, NotALine> {
        Self::of_release(text)
            .filter(|line| line.to_string() == text)
            .ok_or_else(|| NotALine(text.to_owned()))
    }
}

impl TryFrom<String> for Line {
    type Error = NotALine;

    fn try_from(text: String) -> Result<Self, NotALine> {
        text.parse()
    }
}

impl From<Line> for String {
    fn from(line: Line) -> Self {
        line.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_ordered_by_number() {
        let line = |text: &str| text.parse::<Line>().unwrap();
        assert!(line("5.10") < line("6.1") && line("6.1") < line("6.12"));
    }

    #[test]
    fn a_release_has_a_line_and_is_none() {
        assert_eq!(Line::of_release("6.12.117+deb12-cloud-amd64"), Some(Line::new(6, 12)));
        assert_eq!(Line::of_release("6.18.44-fc-v595"), Some(Line::new(6, 18)));
        assert_eq!(Line::of_release("rolling"), None);
        assert!("6.12.117".parse::<Line>().is_err());
    }
}

//! Kubernetes' rules for names, label keys and values, and port names.

use std::fmt;

/// What a name may look like. The rules are those of `k8s.io/apimachinery/pkg/util/validation`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// A DNS-1123 label: what namespaces are called.
    DnsLabel,
    /// A DNS-1123 subdomain: what other objects are called.
    DnsSubdomain,
    /// A label's key.
    LabelKey,
    /// A label's value.
    LabelValue,
    /// A port's name, after RFC 6335.
    PortName,
    /// A domain name, or all those below one.
    DomainPattern,
}

impl NameRule {
    /// Whether `text` follows the rule.
    #[must_use]
    pub fn admits(self, text: &str) -> bool {
        match self {
            Self::DnsLabel => text.len() <= 63 && is_dns_label(text),
            Self::DnsSubdomain => is_dns_subdomain(text),
            Self::LabelKey => is_label_key(text),
            Self::LabelValue => text.is_empty() || is_qualified(text),
            Self::PortName => is_port_name(text),
            Self::DomainPattern => is_domain_pattern(text),
        }
    }
}

impl fmt::Display for NameRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DnsLabel => {
                "a DNS label (at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit)"
            }
            Self::DnsSubdomain => {
                "a DNS name (at most 253 of a-z, 0-9, - and ., each part beginning and ending with \
                 a letter or digit)"
            }
            Self::LabelKey => {
                "a label key (at most 63 letters, digits, -, _ and ., beginning and ending with a \
                 letter or digit, optionally after a DNS name and a slash)"
            }
            Self::LabelValue => {
                "a label value (empty, or at most 63 letters, digits, -, _ and ., beginning and \
                 ending with a letter or digit)"
            }
            Self::PortName => {
                "a port name (at most 15 of a-z, 0-9 and single -, with at least one letter, \
                 beginning and ending with a letter or digit)"
            }
            Self::DomainPattern => {
                "a domain name (at least two parts of letters, digits, - and _, each ending with a \
                 letter or digit and none beginning with -, optionally after \"*.\")"
            }
        })
    }
}

/// At least one character, all of them inner ones, and alphanumeric at both ends.
fn is_framed(text: &str, inner: fn(u8) -> bool, ends: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let framed = |end: Option<&u8>| end.is_some_and(|&byte| ends(byte));
    framed(bytes.first()) && framed(bytes.last()) && bytes.iter().all(|&byte| inner(byte))
}

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_dns_label(text: &str) -> bool {
    is_framed(text, |byte| is_lower_alphanumeric(byte) || byte == b'-', is_lower_alphanumeric)
}

fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

fn is_qualified(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= 63 && is_framed(text, inner, |byte| byte.is_ascii_alphanumeric())
}

fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_qualified(name),
        None => is_qualified(text),
    }
}

fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && is_dns_label(text)
        && !text.contains("--")
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// The pattern of `policy.networking.k8s.io`, without the punctuation that its `A-z` lets in beside
/// the letters.
fn is_domain_pattern(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let name = name.strip_suffix('.').unwrap_or(name);
    name.contains('.') && name.split('.').all(is_domain_part)
}

fn is_domain_part(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let last = text.bytes().last();
    text == "_"
        || text.bytes().all(inner)
            && !text.starts_with('-')
            && last.is_some_and(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: NameRule, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(rule.admits(text), "{text:?} is {rule}");
        }
        for text in bad {
            assert!(!rule.admits(text), "{text:?} is not {rule}");
        }
    }

    #[test]
    fn the_rules() {
        let long = "a".repeat(64);
        check(NameRule::DnsLabel, &["a", "a-1", &long[1..]], &["", "A", "-a", "a.b", &long]);
        check(NameRule::DnsSubdomain, &["a.b", "web-0.x"], &["", "a..b", ".a", "a_b"]);
        check(NameRule::LabelValue, &["", "A_b.c-1"], &["-a", "a-", "a b", "a/b", &long]);
        check(
            NameRule::LabelKey,
            &["app", "kubernetes.io/metadata.name", "X_y"],
            &["", "/a", "a/", "a/b/c", "A.io/x", &long],
        );
        check(
            NameRule::PortName,
            &["http", "a1", "123456789012-ab"],
            &["", "80", "HTTP", "a--b", "-a", "a-", "1234567890123456", "a_b"],
        );
        check(
            NameRule::DomainPattern,
            &["example.com", "*.example.com", "A-1.b_c.example.", "_dns.example.com", "_.a", "1.2"],
            &[
                "", "com", "*.com", "*", "a.*.b", "*a.b", "a..b", ".a.b", "-a.b", "a-.b", "a_.b",
                "[.a",
            ],
        );
    }
}

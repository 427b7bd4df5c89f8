//! What a network stack has counted: `/proc/net/snmp` and `/proc/net/snmp6` of one namespace.

use std::{collections::BTreeMap, fs, io};

use crate::LabError;

/// Two lines for each protocol: names, then numbers.
const IPV4: &str = "/proc/thread-self/net/snmp";
/// A line for each counter. A kernel without IPv6 has no such file.
const IPV6: &str = "/proc/thread-self/net/snmp6";

/// The counters of a network stack, by names like `TcpInCsumErrors` and `Udp6InCsumErrors`. TCP counts
/// both families as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackCounters(BTreeMap<String, u64>);

impl StackCounters {
    /// Those of the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// [`LabError::Counters`] without `/proc`.
    pub fn read() -> Result<Self, LabError> {
        let text = |path| match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && path == IPV6 => {
                Ok(String::new())
            }
            other => other.map_err(|source| LabError::Counters { path, source }),
        };
        let mut counters = paired(&text(IPV4)?);
        counters.extend(listed(&text(IPV6)?));
        Ok(Self(counters))
    }

    /// One counter; 0 if the kernel has none of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// What came with a wrong checksum, by protocol: those counters that aren't 0.
    #[must_use]
    pub fn checksum_errors(&self) -> Vec<(&str, u64)> {
        let wrong =
            self.0.iter().filter(|(name, count)| name.ends_with("InCsumErrors") && **count > 0);
        wrong.map(|(name, count)| (name.as_str(), *count)).collect()
    }
}

fn paired(text: &str) -> BTreeMap<String, u64> {
    let lines: Vec<&str> = text.lines().collect();
    let mut counters = BTreeMap::new();
    for pair in lines.chunks_exact(2) {
        let (mut names, mut numbers) = (pair[0].split_whitespace(), pair[1].split_whitespace());
        let protocol = names.next().unwrap_or_default().trim_end_matches(':');
        let values = names.zip(numbers.by_ref().skip(1));
        counters.extend(values.filter_map(|(name, number)| {
            Some((format!("{protocol}{name}"), number.parse().ok()?))
        }));
    }
    counters
}

fn listed(text: &str) -> BTreeMap<String, u64> {
    let fields = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    fields
        .filter_map(|(name, number)| Some((name.to_owned(), number.trim().parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let four = "Tcp: InSegs InCsumErrors MaxConn\nTcp: 7 2 -1\nUdp: InCsumErrors\nUdp: 0\n";
        let six = "Udp6InCsumErrors                \t3\nIp6InReceives\t9\n";
        let mut counters = paired(four);
        counters.extend(listed(six));
        let counters = StackCounters(counters);
        assert_eq!(counters.get("TcpInSegs"), 7);
        assert_eq!(counters.checksum_errors(), [("TcpInCsumErrors", 2), ("Udp6InCsumErrors", 3)]);
        assert_eq!(counters.get("TcpMaxConn"), 0);
    }
}

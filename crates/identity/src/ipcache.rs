//! The ipcache: whose address is this? The model of it, not the kernel's table.
//!
//! Not here: the nodes that packets walk (`flowgate-policy` makes them of this model).
//! Invariant: prefixes have no host bits, and IPv4 and IPv6 never answer for each other.
//! Tested against a linear scan over generated prefixes.

use std::{collections::BTreeMap, net::IpAddr, ops::Bound};

use ipnet::IpNet;

/// Maps networks to values; the longest prefix that contains an address answers for it.
///
/// ```
/// use flowgate_identity::Ipcache;
///
/// let mut ipcache = Ipcache::new();
/// ipcache.insert("0.0.0.0/0".parse()?, "world");
/// ipcache.insert("198.18.0.0/15".parse()?, "bench");
/// let (network, value) = ipcache.lookup("198.19.1.1".parse()?).expect("inside both");
/// assert_eq!((network.to_string().as_str(), *value), ("198.18.0.0/15", "bench"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipcache<T> {
    entries: BTreeMap<IpNet, T>,
    ipv4_lengths: Lengths,
    ipv6_lengths: Lengths,
}

/// How many prefixes there are of each length, so that a look-up tries only lengths that occur.
type Lengths = BTreeMap<u8, usize>;

impl<T> Default for Ipcache<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            ipv4_lengths: Lengths::new(),
            ipv6_lengths: Lengths::new(),
        }
    }
}

impl<T> Ipcache<T> {
    /// An ipcache that knows nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Maps `network` to `value`, and returns the value that this very network had before.
    pub fn insert(&mut self, network: IpNet, value: T) -> Option<T> {
        let network = network.trunc();
        let old = self.entries.insert(network, value);
        if old.is_none() {
            *self.lengths_mut(&network).entry(network.prefix_len()).or_default() += 1;
        }
        old
    }

    /// Forgets this very network, and returns the value that it had.
    pub fn remove(&mut self, network: IpNet) -> Option<T> {
        let network = network.trunc();
        let old = self.entries.remove(&network)?;
        let lengths = self.lengths_mut(&network);
        if let Some(count) = lengths.get_mut(&network.prefix_len()) {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&network.prefix_len());
            }
        }
        Some(old)
    }

    /// The value of this very network, not of one that contains it.
    #[must_use]
    pub fn get(&self, network: IpNet) -> Option<&T> {
        self.entries.get(&network.trunc())
    }

    /// The longest prefix that contains `address`, and its value.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Option<(IpNet, &T)> {
        let lengths = if address.is_ipv4() { &self.ipv4_lengths } else { &self.ipv6_lengths };
        lengths.keys().rev().find_map(|&length| {
            let network = IpNet::new(address, length).ok()?.trunc();
            self.entries.get(&network).map(|value| (network, value))
        })
    }

    /// The longest network that contains `network`, which may be itself, and its value.
    #[must_use]
    pub fn around(&self, network: IpNet) -> Option<(IpNet, &T)> {
        let v4 = matches!(network, IpNet::V4(_));
        let lengths = if v4 { &self.ipv4_lengths } else { &self.ipv6_lengths };
        lengths.range(..=network.prefix_len()).rev().find_map(|(&length, _)| {
            let around = IpNet::new(network.addr(), length).ok()?.trunc();
            self.entries.get(&around).map(|value| (around, value))
        })
    }

    /// The networks inside of `network`, itself left out, and their values; sorted by address, then by
    /// length.
    pub fn inside(&self, network: IpNet) -> impl DoubleEndedIterator<Item = (IpNet, &T)> {
        let network = network.trunc();
        let last = IpNet::from(network.broadcast());
        let inside = (Bound::Excluded(network), Bound::Included(last));
        // A whole address has nothing inside.
        let inside = (network != last).then(|| self.entries.range(inside));
        inside.into_iter().flatten().map(|(&network, value)| (network, value))
    }

    /// All networks and their values, sorted: IPv4 first, then by address, then by length.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (IpNet, &T)> {
        self.entries.iter().map(|(&network, value)| (network, value))
    }

    /// How many networks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn lengths_mut(&mut self, network: &IpNet) -> &mut Lengths {
        match network {
            IpNet::V4(_) => &mut self.ipv4_lengths,
            IpNet::V6(_) => &mut self.ipv6_lengths,
        }
    }
}

impl<T> FromIterator<(IpNet, T)> for Ipcache<T> {
    fn from_iter<I: IntoIterator<Item = (IpNet, T)>>(entries: I) -> Self {
        let mut ipcache = Self::new();
        ipcache.extend(entries);
        ipcache
    }
}

impl<T> Extend<(IpNet, T)> for Ipcache<T> {
    fn extend<I: IntoIterator<Item = (IpNet, T)>>(&mut self, entries: I) {
        for (network, value) in entries {
            self.insert(network, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn found(ipcache: &Ipcache<u32>, address: &str) -> Option<(String, u32)> {
        let (network, &value) = ipcache.lookup(address.parse().unwrap())?;
        Some((network.to_string(), value))
    }

    #[test]
    fn the_longest_prefix_answers() {
        let ipcache: Ipcache<u32> =
            [(net("0.0.0.0/0"), 0), (net("198.18.0.0/15"), 1), (net("198.18.0.1/32"), 2)]
                .into_iter()
                .collect();
        assert_eq!(found(&ipcache, "198.18.0.1"), Some(("198.18.0.1/32".into(), 2)));
        assert_eq!(found(&ipcache, "198.18.0.2"), Some(("198.18.0.0/15".into(), 1)));
        assert_eq!(found(&ipcache, "203.0.113.1"), Some(("0.0.0.0/0".into(), 0)));
        assert_eq!(found(&ipcache, "2001:db8::1"), None);
    }

    #[test]
    fn host_bits_make_no_difference() {
        let mut ipcache = Ipcache::new();
        assert_eq!(ipcache.insert(net("198.18.7.7/15"), 1), None);
        assert_eq!(ipcache.insert(net("198.18.0.0/15"), 2), Some(1));
        assert_eq!(ipcache.get(net("198.19.0.0/15")), Some(&2));
        assert_eq!(ipcache.len(), 1);
    }

    #[test]
    fn what_was_removed_uncovers_what_contains_it() {
        let mut ipcache: Ipcache<u32> =
            [(net("2001:db8::/32"), 1), (net("2001:db8::/64"), 2)].into_iter().collect();
        assert_eq!(ipcache.remove(net("2001:db8::/64")), Some(2));
        assert_eq!(ipcache.remove(net("2001:db8::/64")), None);
        assert_eq!(found(&ipcache, "2001:db8::1"), Some(("2001:db8::/32".into(), 1)));
        assert_eq!(ipcache.remove(net("2001:db8::/32")), Some(1));
        assert!(ipcache.is_empty());
        assert_eq!(ipcache, Ipcache::new());
    }

    /// Addresses that share many bits, so that prefixes of every length contain one another.
    fn address() -> impl Strategy<Value = IpAddr> {
        let bits = || prop_oneof![Just(0u32), Just(u32::MAX), 0..4u32, any::<u32>()];
        prop_oneof![
            bits().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
            bits().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(u128::from(bits) << 64))),
        ]
    }

    fn network() -> impl Strategy<Value = IpNet> {
        (address(), 0..=128u8).prop_map(|(address, length)| {
            let longest = if address.is_ipv4() { 32 } else { 128 };
            IpNet::new(address, length.min(longest)).unwrap()
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_scan(
            steps in proptest::collection::vec((network(), any::<bool>()), 0..40),
            addresses in proptest::collection::vec(address(), 1..20),
        ) {
            let mut ipcache = Ipcache::new();
            let mut scanned: Vec<(IpNet, usize)> = Vec::new();
            for (value, (network, keep)) in steps.into_iter().enumerate() {
                let at = scanned.iter().position(|(known, _)| *known == network.trunc());
                let old = at.map(|at| scanned.swap_remove(at).1);
                if keep {
                    scanned.push((network.trunc(), value));
                    prop_assert_eq!(ipcache.insert(network, value), old);
                } else {
                    prop_assert_eq!(ipcache.remove(network), old);
                }
            }
            for address in addresses {
                let expected = scanned.iter().filter(|(network, _)| network.contains(&address))
                    .max_by_key(|(network, _)| network.prefix_len());
                let found = ipcache.lookup(address).map(|(network, &value)| (network, value));
                prop_assert_eq!(found, expected.copied());
            }
            for (network, _) in &scanned {
                let parent = network.supernet().unwrap_or(*network);
                let inside: Vec<_> = ipcache.inside(parent).map(|(n, &value)| (n, value)).collect();
                let mut expected = scanned.clone();
                expected.retain(|(n, _)| *n != parent && parent.contains(n));
                expected.sort();
                prop_assert_eq!(inside, expected);
                let around = ipcache.around(parent).map(|(n, &value)| (n, value));
                let expected = scanned.iter().filter(|(n, _)| n.contains(&parent))
                    .max_by_key(|(n, _)| n.prefix_len());
                prop_assert_eq!(around, expected.copied());
            }
            scanned.sort();
            let listed: Vec<_> = ipcache.iter().map(|(network, &value)| (network, value)).collect();
            prop_assert_eq!(listed, scanned);
        }
    }
}

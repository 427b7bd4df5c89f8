//! The ipcache of the first two layouts: a 16-8-8 trie for IPv4, for IPv6 a hash of whole addresses and the
//! kernel's trie.
//!
//! IPv4's cells don't say which networks they were written for. What is read are networks that answer for
//! every address as the cells do; whole addresses of endpoints are always networks of their own.

use std::{collections::HashMap, io, path::Path};

use flowgate_abi::endpoint::Leaf;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Networks;
use crate::sys::carry::{self, Elements};

/// How those layouts mark what a cell leads to, above its number.
const NODE: u32 = 1 << 31;
const PEER: u32 = 1 << 30;
const ENDPOINT: u32 = 1 << 29;
const NUMBER: u32 = ENDPOINT - 1;

/// The networks of the ipcache whose maps are pinned in a directory.
pub(super) fn read(maps: &Path) -> io::Result<Networks> {
    let nodes = Elements::open(&maps.join("IPCACHE4_NODES"), 4 << 8)?;
    let mut trie = Trie { nodes, networks: Vec::new() };
    let root = words(&carry::element(&maps.join("IPCACHE4_ROOT"), 4 << 16)?);
    trie.node(Cells { cells: &root, first: 0, bits: 16 }, 0)?;
    let mut networks = trie.networks;
    for (key, cell) in carry::entries(&maps.join("IPCACHE6_HOSTS"), 16)? {
        networks.extend(network6(&key, 128, cell));
    }
    for (key, cell) in carry::entries(&maps.join("IPCACHE6_NETWORKS"), 20)? {
        networks.extend(network6(&key[4..], words(&key)[0], cell));
    }
    Ok(networks)
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.as_chunks().0.iter();
    words.map(|word| u32::from_ne_bytes(*word)).collect()
}

/// What a cell that leads to no node stands for.
const fn leaf(cell: u32) -> Leaf {
    match cell & !NUMBER {
        PEER => Leaf::peer(cell & NUMBER),
        ENDPOINT => Leaf::endpoint(cell & NUMBER),
        _ => Leaf::NONE,
    }
}

fn network6(address: &[u8], length: u32, cell: u32) -> Option<(IpNet, Leaf)> {
    let octets: [u8; 16] = address.try_into().ok()?;
    Some((Ipv6Net::new(octets.into(), length.try_into().ok()?).ok()?.into(), leaf(cell)))
}

/// Neighbouring cells of IPv4's trie.
#[derive(Clone, Copy)]
struct Cells<'a> {
    cells: &'a [u32],
    /// The first address.
    first: u32,
    /// How long the network of a single cell is.
    bits: u8,
}

impl Cells<'_> {
    fn network(self) -> Option<IpNet> {
        let length = self.bits.checked_sub(self.cells.len().trailing_zeros() as u8)?;
        Some(Ipv4Net::new(self.first.into(), length).ok()?.into())
    }

    /// The peer that most cells have, or else what is around them.
    fn usual(self, around: u32) -> u32 {
        let mut counts: HashMap<u32, usize> = HashMap::from([(around, 0)]);
        for cell in self.cells.iter().filter(|cell| *cell & !NUMBER == PEER) {
            *counts.entry(*cell).or_default() += 1;
        }
        let usual = counts.into_iter().max_by_key(|(cell, count)| (*count, *cell == around, *cell));
        usual.map_or(around, |(cell, _)| cell)
    }
}

struct Trie {
    nodes: Elements,
    networks: Networks,
}

impl Trie {
    fn node(&mut self, cells: Cells<'_>, around: u32) -> io::Result<()> {
        let usual = cells.usual(around);
        self.note(cells, usual, around);
        self.block(cells, usual)
    }

    fn block(&mut self, block: Cells<'_>, around: u32) -> io::Result<()> {
        let Cells { cells, first, bits } = block;
        let cell = cells[0];
        if cell & NODE == 0 && cells.iter().all(|other| *other == cell) {
            self.note(block, cell, around);
            return Ok(());
        }
        if let [cell] = cells {
            let below = words(&self.nodes.get(cell & !NODE)?);
            return self.node(Cells { cells: &below, first, bits: bits + 8 }, around);
        }
        let (left, right) = cells.split_at(cells.len() / 2);
        let middle = first + ((left.len() as u32) << (32 - bits));
        self.block(Cells { cells: left, ..block }, around)?;
        self.block(Cells { cells: right, first: middle, ..block }, around)
    }

    fn note(&mut self, cells: Cells<'_>, cell: u32, around: u32) {
        if cell != around {
            self.networks.extend(cells.network().map(|network| (network, leaf(cell))));
        }
    }
}

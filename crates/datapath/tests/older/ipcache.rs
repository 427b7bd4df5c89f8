//! The ipcache of the first two layouts, written anew: what the present nodes say about some networks.

use std::{net::IpAddr, path::Path};

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, lpm_trie::Key},
};
use flowgate_abi::ipcache::{Node, ROOT, ROOT_BITS, Word};
use ipnet::IpNet;

type Words = [u32; Node::WORDS as usize];
type Root = [[u32; 256]; 256];
type Cells = [u32; 256];

/// Fills the maps of an older object from the present layout's maps, for these networks; the first address
/// of each is in no longer one.
pub(crate) fn write(ebpf: &mut Ebpf, present: &Path, networks: &[IpNet]) {
    let map = Map::Array(MapData::from_pin(present.join("IPCACHE")).expect("pinned"));
    let nodes: Array<_, Words> = Array::try_from(&map).expect("an array");
    let mut networks = networks.to_vec();
    networks.sort_unstable_by_key(IpNet::prefix_len);
    let mut trie = Trie { root: Box::new([[0; 256]; 256]), nodes: Vec::new() };
    for network in networks {
        let leaf = walk(&nodes, network.network());
        match network {
            IpNet::V4(network) => {
                trie.paint(network.network().to_bits(), network.prefix_len(), leaf);
            }
            IpNet::V6(network) => {
                put6(ebpf, network.network().octets(), network.prefix_len(), leaf);
            }
        }
    }
    trie.write(ebpf);
}

/// What an address has, as the first two layouts wrote it. They are told from nodes and lengths by their
/// upper bits alone.
fn walk(nodes: &Array<&MapData, Words>, address: IpAddr) -> u32 {
    let (bits, root) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 0),
        IpAddr::V6(address) => (address.to_bits(), ROOT),
    };
    let mut word = Word::directory(ROOT_BITS, root + (bits >> (128 - ROOT_BITS)) as u32);
    while word.is_node() {
        let words = nodes.get(&word.node(), 0).expect("a node");
        let window = (bits << word.at() >> 64) as u64;
        let index = if word.is_bucket() { entry(&words, window) } else { (window >> 60) as usize };
        word = Word(words[index]);
    }
    word.as_leaf().0
}

fn entry(words: &Words, window: u64) -> usize {
    let shifts = words[usize::from(Node::SHIFTS)].to_le_bytes();
    let agrees = |entry: &usize| {
        let key = Node::key([words[2 * entry], words[2 * entry + 1]]);
        (key ^ window) >> shifts[*entry] == 0
    };
    let first = (0..Node::ENTRIES).find(agrees).unwrap_or(Node::ENTRIES);
    usize::from(Node::VALUES) + first
}

/// 16, 8 and 8 bits.
struct Trie {
    root: Box<Root>,
    nodes: Vec<Cells>,
}

const NODE: u32 = 1 << 31;

impl Trie {
    /// Networks come by their length, so each covers what is there.
    fn paint(&mut self, first: u32, length: u8, leaf: u32) {
        let [a, b, c, d] = first.to_be_bytes().map(usize::from);
        if length <= 16 {
            let count = 1 << (16 - length);
            let cells = self.root.as_flattened_mut();
            return cells[a << 8 | b..][..count].fill(leaf);
        }
        let second = below(&mut self.root[a][b], &mut self.nodes);
        if length <= 24 {
            return self.nodes[second][c..][..1 << (24 - length)].fill(leaf);
        }
        let mut cell = self.nodes[second][c];
        let third = below(&mut cell, &mut self.nodes);
        self.nodes[second][c] = cell;
        self.nodes[third][d..][..1 << (32 - length)].fill(leaf);
    }

    fn write(self, ebpf: &mut Ebpf) {
        let map = ebpf.map_mut("IPCACHE4_ROOT").expect("it has it");
        let mut root: Array<_, Root> = Array::try_from(map).expect("an array");
        root.set(0, *self.root, 0).expect("writable");
        let map = ebpf.map_mut("IPCACHE4_NODES").expect("it has it");
        let mut nodes: Array<_, Cells> = Array::try_from(map).expect("an array");
        for (index, cells) in (0..).zip(self.nodes) {
            nodes.set(index, cells, 0).expect("room");
        }
    }
}

/// The node below a cell, made if it isn't there.
fn below(cell: &mut u32, nodes: &mut Vec<Cells>) -> usize {
    if *cell & NODE == 0 {
        nodes.push([*cell; 256]);
        *cell = NODE | (nodes.len() - 1) as u32;
    }
    (*cell & !NODE) as usize
}

fn put6(ebpf: &mut Ebpf, address: [u8; 16], length: u8, leaf: u32) {
    if length == 128 {
        let map = ebpf.map_mut("IPCACHE6_HOSTS").expect("it has it");
        let mut hosts: HashMap<_, [u8; 16], u32> = HashMap::try_from(map).expect("a hash");
        return hosts.insert(address, leaf, 0).expect("room");
    }
    let map = ebpf.map_mut("IPCACHE6_NETWORKS").expect("it has it");
    let mut networks: LpmTrie<_, [u8; 16], u32> = LpmTrie::try_from(map).expect("a trie");
    networks.insert(&Key::new(length.into(), address), leaf, 0).expect("room");
}

//! Where the tables lie: narrow reads and writes, each as atomic as a packet needs it.

use flowgate_abi::{Addr4, Addr6, Mac, Settings, policy::Decision};

/// An endpoint as it is written: [`flowgate_abi::endpoint::Endpoint`] without its shared words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointRow {
    /// The host side's interface index; 0: the slot is free.
    pub ifindex: u32,
    /// `Endpoint::REDIRECT_PEER` and its like.
    pub flags: u32,
    /// Its IPv4 address; zero: none.
    pub addr4: Addr4,
    /// Its IPv6 address; zero: none.
    pub addr6: Addr6,
    /// The peer of its IPv4 address.
    pub peer4: u32,
    /// The peer of its IPv6 address.
    pub peer6: u32,
    /// Its own Ethernet address.
    pub mac: Mac,
    /// Its router's Ethernet address.
    pub router_mac: Mac,
}

/// The head of a generation: [`flowgate_abi::policy::Generation`] without its shared words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GenerationHead {
    /// Its number; 0: it isn't there.
    pub number: u32,
    /// Cells of a row group's line.
    pub line: u32,
    /// Cells from a row to the next number's.
    pub step: u32,
    /// `Generation::KEEP_ESTABLISHED`, and `Generation::columns`.
    pub flags: u32,
}

/// A word of a node of the ipcache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpcacheCell {
    /// The node; those of the roots come first (`flowgate_abi::ipcache::ROOTS`).
    pub node: u32,
    /// The word's number, below `flowgate_abi::ipcache::Node::WORDS`.
    pub index: u8,
}

/// The tables, for reading and writing.
///
/// Writes without a result are plain stores into memory. Each is seen by packets as a whole; they
/// become visible in the order in which they are made.
pub trait Store {
    /// Why an access failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The settings: how much room there is.
    fn settings(&self) -> &Settings;
    /// Nodes of the ipcache: spare ones too, but not those of the roots.
    fn ipcache_nodes(&self) -> u32;

    /// The number of the running generation; 0: none.
    fn active(&self) -> u32;
    /// A peer's class in the generation of a slot.
    fn peer_class(&self, slot: u32, peer: u32) -> u16;
    /// Whose addresses a peer has or had last (`flowgate_abi::endpoint::Peer::owner`).
    fn owner(&self, peer: u32) -> u32;
    /// The endpoint in a slot.
    fn endpoint(&self, slot: u32) -> EndpointRow;
    /// A word of the ipcache.
    fn ipcache_word(&self, cell: IpcacheCell) -> u32;
    /// The interfaces that are found by the hash: interface index -> slot.
    ///
    /// # Errors
    /// The table couldn't be read.
    fn links(&self) -> Result<Vec<(u32, u32)>, Self::Error>;

    /// Publishes a generation.
    fn set_active(&mut self, generation: u32);
    /// Writes the head of a slot's generation, its number last.
    fn set_generation(&mut self, slot: u32, head: GenerationHead);
    /// Gives a slot's generation another number.
    fn renumber(&mut self, slot: u32, number: u32);
    /// Writes a peer's identity.
    fn set_identity(&mut self, peer: u32, identity: u32);
    /// Writes whose addresses a peer has.
    fn set_owner(&mut self, peer: u32, owner: u32);
    /// Raises a peer's epoch, and returns the word in which it is the low bits.
    fn bump_epoch(&mut self, peer: u32) -> u32;
    /// Writes a peer's class.
    fn set_peer_class(&mut self, slot: u32, peer: u32, class: u16);
    /// Writes the classes of all ports of a port table.
    fn set_port_class(&mut self, slot: u32, table: u32, classes: &[u16]);
    /// Writes rows from cell `first` on.
    fn set_rows(&mut self, slot: u32, first: u32, cells: &[u16]);
    /// Writes decision cells from cell `first` on.
    fn set_decision_cells(&mut self, slot: u32, first: u32, cells: &[u16]);
    /// Writes decisions from number `first` on.
    fn set_decisions(&mut self, slot: u32, first: u32, decisions: &[Decision]);
    /// Writes an endpoint's two policies.
    fn set_endpoint_policy(&mut self, slot: u32, endpoint: u32, egress: u32, ingress: u32);
    /// Writes an endpoint into a free slot; its interface index last.
    fn set_endpoint(&mut self, slot: u32, row: &EndpointRow);
    /// Writes the peers of an endpoint's addresses.
    fn set_endpoint_peers(&mut self, slot: u32, peer4: u32, peer6: u32);
    /// Frees a slot: its interface index first.
    fn clear_endpoint(&mut self, slot: u32);
    /// Writes or removes an interface index that is found by the hash.
    ///
    /// # Errors
    /// The table couldn't be written.
    fn set_link(&mut self, ifindex: u32, slot: Option<u32>) -> Result<(), Self::Error>;
    /// Writes a word of the ipcache.
    fn set_ipcache_word(&mut self, cell: IpcacheCell, word: u32);
    /// Waits until every packet that is under way now is done.
    ///
    /// # Errors
    /// The kernel refused to say.
    fn grace_period(&mut self) -> Result<(), Self::Error>;
}

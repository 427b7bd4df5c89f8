//! Where the tables lie: narrow reads and writes, each as atomic as a packet needs it.

use flowgate_abi::lb::{
    BOUNDS, Backend, Frontend, Head, Lines, Load, Settings, Slot, Sources, Tail, Tracked,
    nat::{Life, Mapping, Ports, Source, Way},
};

/// How much there is room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Frontends: cells of the perfect hash, of which half can be used.
    pub frontends: u32,
    /// Slots of all tables.
    pub slots: u32,
    /// Lines of all backends.
    pub lines: u32,
    /// Services.
    pub services: u32,
    /// Nodes of services' source ranges.
    pub sources: u32,
    /// Tracked flows.
    pub tracked: u32,
    /// Pins of clients.
    pub pins: u32,
    /// Places for sources of full NAT.
    pub nat_sources: u32,
}

/// A port's flow, as its owner wrote it down; addresses lie as in
/// [`Translation`](flowgate_abi::lb::nat::Translation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatFlow {
    /// The client's address.
    pub client: [u64; 2],
    /// The address that the client knows.
    pub service: [u64; 2],
    /// The backend's address.
    pub backend: [u64; 2],
    /// The address that the backend knows.
    pub source: [u64; 2],
    /// The ports of all four.
    pub ports: Ports,
    /// The flow's protocol, and the way back to the client.
    pub way: Way,
    /// The backend's number within its service.
    pub number: u32,
}

/// The tables of full NAT, for reading and writing. Packets take ports and give them their owners; here
/// they are given back. A port's index says where it lies: [`flowgate_abi::lb::nat`].
pub trait NatStore {
    /// A place of sources.
    fn nat_source(&self, number: u32) -> Source;
    /// Writes a place's address, and turns; what packets can reach of it is as it was.
    fn set_nat_source(&mut self, number: u32, source: Source);
    /// Which ports of a group are taken.
    fn taken(&self, group: u32) -> u64;
    /// Frees ports of a group that have no owner.
    fn free(&mut self, group: u32, ports: u64);
    /// What has become of a port's flow.
    fn life(&self, port: u32) -> Life;
    /// Ends a port's flow, if it is still what it was; `false`: it isn't.
    fn end(&mut self, port: u32, life: Life) -> bool;
    /// The hash of a port's flow.
    fn hash(&self, port: u32) -> u64;
    /// A port's flow.
    fn flow(&self, port: u32) -> NatFlow;
    /// The word in a cell of a bucket of mappings; 0: none.
    fn mapping(&self, bucket: u32, cell: usize) -> Mapping;
    /// Takes a mapping out of a bucket, if it is there.
    fn forget(&mut self, bucket: u32, mapping: Mapping);
}

/// The tables, for reading and writing.
///
/// Writes without a result are plain stores into memory. They become visible to packets in the order in
/// which they are made; a slot, a displacement, a backend's tail and each 64-bit word are seen as a whole.
pub trait Store: NatStore {
    /// Why an access failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The settings.
    fn settings(&self) -> &Settings;
    /// How much there is room for.
    fn room(&self) -> Room;

    /// What programs are told from time to time.
    fn head(&self) -> &Head;
    /// The displacement of a bucket of frontends; 0: none.
    fn displacement(&self, bucket: u32) -> u32;
    /// A frontend.
    fn frontend(&self, index: u32) -> Frontend;
    /// A slot.
    fn slot(&self, index: u32) -> Slot;
    /// A backend's line.
    fn backend(&self, line: u32) -> Backend;
    /// The words of a node of source ranges.
    fn source(&self, index: u32) -> [u64; 2 * BOUNDS];
    /// A cell of the tracked flows, by its number among all cells.
    fn tracked(&self, cell: u32) -> Tracked;
    /// A cell of the clients' pins, by its number among all cells.
    fn pin(&self, cell: u32) -> Tracked;
    /// How many entries of a service's flows found no room so far.
    fn refused(&self, service: u32) -> u64;
    /// What a backend got, summed over all CPUs.
    ///
    /// # Errors
    /// The table couldn't be read.
    fn load(&self, line: u32) -> Result<Load, Self::Error>;

    /// Sets a bucket's displacement.
    fn set_displacement(&mut self, bucket: u32, displacement: u32);
    /// Writes a frontend that no packet can reach.
    fn set_frontend(&mut self, index: u32, frontend: Frontend);
    /// Sets where a frontend's backends lie, and its flags; its other fields stay.
    fn set_frontend_words(&mut self, index: u32, lines: Lines, flags: u32);
    /// Sets which clients a frontend takes; its other fields stay.
    fn set_frontend_sources(&mut self, index: u32, sources: Sources);
    /// Writes a node of source ranges that no packet can reach.
    fn set_source(&mut self, index: u32, words: [u64; 2 * BOUNDS]);
    /// Makes a frontend nobody's: no packet finds it any more.
    fn clear_frontend(&mut self, index: u32);
    /// Sets a slot.
    fn set_slot(&mut self, index: u32, slot: Slot);
    /// Writes a backend's line, its tail last.
    fn set_backend(&mut self, line: u32, backend: Backend);
    /// Sets a line's tail.
    fn set_tail(&mut self, line: u32, tail: Tail);
    /// Puts something else into a cell of the tracked flows, if this is still there; `false`: it isn't.
    fn exchange_tracked(&mut self, cell: u32, entry: Tracked, other: Tracked) -> bool;
    /// Puts something else into a cell of the clients' pins, if this is still there; `false`: it isn't.
    fn exchange_pin(&mut self, cell: u32, pin: Tracked, other: Tracked) -> bool;
    /// Sets what a backend got.
    ///
    /// # Errors
    /// The table couldn't be written.
    fn set_load(&mut self, line: u32, load: Load) -> Result<(), Self::Error>;
    /// Waits until every packet that was under way is done.
    ///
    /// # Errors
    /// The kernel refused.
    fn wait(&mut self) -> Result<(), Self::Error>;
}

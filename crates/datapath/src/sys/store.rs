//! The installer's writes, into mapped memory where the map allows it.

use std::{io, sync::atomic::Ordering};

use flowgate_abi::{
    EtherAddr, Settings,
    endpoint::{Endpoint, Peer},
    ipcache::ROOTS,
    maps::{self, CELLS},
    policy::{Decision, EndpointPolicy, Generation, PortTable},
};
use flowgate_policy::install::{EndpointRow, GenerationHead, IpcacheCell, Store};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{kernel::KernelTables, mapped::Mapped, syscall};

/// Stores that publish come after everything that they publish, also on machines that reorder.
const PUBLISH: Ordering = Ordering::Release;
const PLAIN: Ordering = Ordering::Relaxed;

macro_rules! offset {
    ($ty:ty, $field:ident) => {
        std::mem::offset_of!($ty, $field)
    };
}

impl KernelTables {
    fn set_cells(map: &Mapped, first: u32, cells: &[u16]) {
        for (index, cell) in cells.iter().enumerate() {
            let index = first as usize + index;
            map.word16(index / CELLS, index % CELLS * 2).store(*cell, PLAIN);
        }
    }
}

impl Store for KernelTables {
    type Error = io::Error;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn ipcache_nodes(&self) -> u32 {
        self.ipcache.elements() as u32 - ROOTS
    }

    fn active(&self) -> u32 {
        self.active.word64(0, 0).load(Ordering::Acquire) as u32
    }

    fn peer_class(&self, slot: u32, peer: u32) -> u16 {
        let index = (slot * self.settings.peers + peer) as usize;
        self.peer_class.word16(index / CELLS, index % CELLS * 2).load(PLAIN)
    }

    fn owner(&self, peer: u32) -> u32 {
        Peer::owner(self.peers.word32(peer as usize, offset!(Peer, epoch)).load(PLAIN))
    }

    fn endpoint(&self, slot: u32) -> EndpointRow {
        let mut bytes = [0; size_of::<Endpoint>()];
        self.endpoints.read(slot as usize, &mut bytes);
        let endpoint = Endpoint::read_from_bytes(&bytes).expect("of this size");
        EndpointRow {
            ifindex: endpoint.ifindex.load(),
            flags: endpoint.flags,
            addr4: endpoint.addr4,
            addr6: endpoint.addr6,
            peer4: endpoint.peer4.load(),
            peer6: endpoint.peer6.load(),
            mac: endpoint.mac.octets(),
            router_mac: endpoint.router_mac.octets(),
        }
    }

    fn ipcache_word(&self, IpcacheCell { node, index }: IpcacheCell) -> u32 {
        self.ipcache.word32(node as usize, usize::from(index) * 4).load(PLAIN)
    }

    fn links(&self) -> io::Result<Vec<(u32, u32)>> {
        let mut links = Vec::new();
        for key in syscall::keys(self.map(&maps::LINKS), maps::LINKS.key)? {
            let mut slot = [0; 4];
            if syscall::lookup(self.map(&maps::LINKS), &key, &mut slot, false)? {
                let ifindex = key.try_into().expect("a key of 4 bytes");
                links.push((u32::from_ne_bytes(ifindex), u32::from_ne_bytes(slot)));
            }
        }
        Ok(links)
    }

    fn set_active(&mut self, generation: u32) {
        self.active.word64(0, 0).store(u64::from(generation), Ordering::SeqCst);
    }

    fn set_generation(&mut self, slot: u32, head: GenerationHead) {
        let GenerationHead { number, line, step, flags } = head;
        let head = |offset| self.generations.word32(slot as usize, offset);
        head(offset!(Generation, line)).store(line, PLAIN);
        head(offset!(Generation, step)).store(step, PLAIN);
        head(offset!(Generation, flags)).store(flags, PLAIN);
        head(offset!(Generation, number)).store(number, PUBLISH);
    }

    fn renumber(&mut self, slot: u32, number: u32) {
        let offset = offset!(Generation, number);
        self.generations.word32(slot as usize, offset).store(number, PUBLISH);
    }

    fn set_identity(&mut self, peer: u32, identity: u32) {
        self.peers.word32(peer as usize, offset!(Peer, identity)).store(identity, PLAIN);
    }

    fn set_owner(&mut self, peer: u32, owner: u32) {
        let epoch = self.peers.word32(peer as usize, offset!(Peer, epoch));
        epoch.store(Peer::owned(epoch.load(PLAIN), owner), PUBLISH);
    }

    fn bump_epoch(&mut self, peer: u32) -> u32 {
        let epoch = self.peers.word32(peer as usize, offset!(Peer, epoch));
        let raised = Peer::raised(epoch.load(PLAIN));
        epoch.store(raised, Ordering::SeqCst);
        raised
    }

    fn set_peer_class(&mut self, slot: u32, peer: u32, class: u16) {
        Self::set_cells(&self.peer_class, slot * self.settings.peers + peer, &[class]);
    }

    fn set_port_class(&mut self, slot: u32, table: u32, classes: &[u16]) {
        let element = slot as usize * PortTable::COUNT + table as usize;
        self.port_class.write(element, 0, classes.as_bytes());
    }

    fn set_rows(&mut self, slot: u32, first: u32, cells: &[u16]) {
        Self::set_cells(&self.rows, slot * self.settings.row_cells + first, cells);
    }

    fn set_decision_cells(&mut self, slot: u32, first: u32, cells: &[u16]) {
        Self::set_cells(&self.decision_cells, slot * self.settings.decision_cells + first, cells);
    }

    fn set_decisions(&mut self, slot: u32, first: u32, decisions: &[Decision]) {
        let first = (slot * self.settings.decisions + first) as usize;
        for (index, decision) in decisions.iter().enumerate() {
            self.decisions.write(first + index, 0, decision.as_bytes());
        }
    }

    fn set_endpoint_policy(&mut self, slot: u32, endpoint: u32, egress: u32, ingress: u32) {
        let element = (slot * (self.settings.endpoint_mask + 1) + endpoint) as usize;
        let word = |offset| self.endpoint_policy.word32(element, offset);
        word(offset!(EndpointPolicy, egress)).store(egress, PUBLISH);
        word(offset!(EndpointPolicy, ingress)).store(ingress, PUBLISH);
    }

    fn set_endpoint(&mut self, slot: u32, row: &EndpointRow) {
        let mut bytes = [0; size_of::<Endpoint>()];
        self.endpoints.read(slot as usize, &mut bytes);
        let before = Endpoint::read_from_bytes(&bytes).expect("of this size");
        let mut endpoint = Endpoint::new_zeroed();
        endpoint.flags = row.flags;
        endpoint.addr4 = row.addr4;
        endpoint.addr6 = row.addr6;
        endpoint.mac = EtherAddr::from_octets(row.mac);
        endpoint.router_mac = EtherAddr::from_octets(row.router_mac);
        endpoint.slot = slot;
        endpoint.incarnation = before.incarnation.wrapping_add(1);
        self.endpoints.write(slot as usize, 0, endpoint.as_mut_bytes());
        self.set_endpoint_peers(slot, row.peer4, row.peer6);
        let ifindex = self.endpoints.word32(slot as usize, offset!(Endpoint, ifindex));
        ifindex.store(row.ifindex, PUBLISH);
    }

    fn set_endpoint_peers(&mut self, slot: u32, peer4: u32, peer6: u32) {
        let word = |offset| self.endpoints.word32(slot as usize, offset);
        word(offset!(Endpoint, peer4)).store(peer4, PUBLISH);
        word(offset!(Endpoint, peer6)).store(peer6, PUBLISH);
    }

    fn clear_endpoint(&mut self, slot: u32) {
        let ifindex = self.endpoints.word32(slot as usize, offset!(Endpoint, ifindex));
        ifindex.store(0, Ordering::SeqCst);
    }

    fn set_link(&mut self, ifindex: u32, slot: Option<u32>) -> io::Result<()> {
        let map = self.map(&maps::LINKS);
        match slot {
            Some(slot) => syscall::update(map, &ifindex.to_ne_bytes(), &slot.to_ne_bytes()),
            None => syscall::delete(map, &ifindex.to_ne_bytes()),
        }
    }

    fn set_ipcache_word(&mut self, IpcacheCell { node, index }: IpcacheCell, word: u32) {
        self.ipcache.word32(node as usize, usize::from(index) * 4).store(word, PUBLISH);
    }

    fn grace_period(&mut self) -> io::Result<()> {
        self.grace.wait()
    }
}

//! The installer's writes.

use std::convert::Infallible;

use flowgate_abi::{
    EtherAddr, Settings, Shared32,
    endpoint::{Endpoint, Peer},
    ipcache::ROOTS,
    policy::{Decision, PortTable},
};

use super::HostTables;
use crate::install::{EndpointRow, GenerationHead, IpcacheCell, Store};

impl Store for HostTables {
    type Error = Infallible;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn ipcache_nodes(&self) -> u32 {
        self.ipcache.len() as u32 - ROOTS
    }

    fn active(&self) -> u32 {
        self.active.get()
    }

    fn peer_class(&self, slot: u32, peer: u32) -> u16 {
        self.peer_class[(slot * self.settings.peers + peer) as usize]
    }

    fn owner(&self, peer: u32) -> u32 {
        Peer::owner(self.peers[peer as usize].epoch.load())
    }

    fn endpoint(&self, slot: u32) -> EndpointRow {
        let endpoint = &self.endpoints[slot as usize];
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
        self.ipcache[node as usize].word(index)
    }

    fn links(&self) -> Result<Vec<(u32, u32)>, Infallible> {
        Ok(self.links.iter().map(|(ifindex, slot)| (*ifindex, *slot)).collect())
    }

    fn set_active(&mut self, generation: u32) {
        self.active.set(generation);
    }

    fn set_generation(&mut self, slot: u32, head: GenerationHead) {
        let GenerationHead { number, line, step, flags } = head;
        let head = &self.generations[slot as usize];
        head.line.store(line);
        head.step.store(step);
        head.flags.store(flags);
        head.number.store(number);
    }

    fn renumber(&mut self, slot: u32, number: u32) {
        self.generations[slot as usize].number.store(number);
    }

    fn set_identity(&mut self, peer: u32, identity: u32) {
        self.peers[peer as usize].identity.store(identity);
    }

    fn set_owner(&mut self, peer: u32, owner: u32) {
        let epoch = &self.peers[peer as usize].epoch;
        epoch.store(Peer::owned(epoch.load(), owner));
    }

    fn bump_epoch(&mut self, peer: u32) -> u32 {
        let epoch = &self.peers[peer as usize].epoch;
        epoch.store(Peer::raised(epoch.load()));
        epoch.load()
    }

    fn set_peer_class(&mut self, slot: u32, peer: u32, class: u16) {
        self.peer_class[(slot * self.settings.peers + peer) as usize] = class;
    }

    fn set_port_class(&mut self, slot: u32, table: u32, classes: &[u16]) {
        let first = (slot as usize * PortTable::COUNT + table as usize) * PortTable::PORTS;
        self.port_class[first..first + classes.len()].copy_from_slice(classes);
    }

    fn set_rows(&mut self, slot: u32, first: u32, cells: &[u16]) {
        let first = (slot * self.settings.row_cells + first) as usize;
        self.rows[first..first + cells.len()].copy_from_slice(cells);
    }

    fn set_decision_cells(&mut self, slot: u32, first: u32, cells: &[u16]) {
        let first = (slot * self.settings.decision_cells + first) as usize;
        self.decision_cells[first..first + cells.len()].copy_from_slice(cells);
    }

    fn set_decisions(&mut self, slot: u32, first: u32, decisions: &[Decision]) {
        let first = (slot * self.settings.decisions + first) as usize;
        self.decisions[first..first + decisions.len()].copy_from_slice(decisions);
    }

    fn set_endpoint_policy(&mut self, slot: u32, endpoint: u32, egress: u32, ingress: u32) {
        let index = slot as usize * self.endpoints.len() + endpoint as usize;
        self.endpoint_policy[index].egress.store(egress);
        self.endpoint_policy[index].ingress.store(ingress);
    }

    fn set_endpoint(&mut self, slot: u32, row: &EndpointRow) {
        let incarnation = self.endpoints[slot as usize].incarnation.wrapping_add(1);
        self.endpoints[slot as usize] = Endpoint {
            ifindex: Shared32::new(row.ifindex),
            flags: row.flags,
            addr4: row.addr4,
            peer4: Shared32::new(row.peer4),
            addr6: row.addr6,
            mac: EtherAddr::from_octets(row.mac),
            router_mac: EtherAddr::from_octets(row.router_mac),
            slot,
            incarnation,
            peer6: Shared32::new(row.peer6),
            reserved: [0; 2],
        };
    }

    fn set_endpoint_peers(&mut self, slot: u32, peer4: u32, peer6: u32) {
        self.endpoints[slot as usize].peer4.store(peer4);
        self.endpoints[slot as usize].peer6.store(peer6);
    }

    fn clear_endpoint(&mut self, slot: u32) {
        self.endpoints[slot as usize].ifindex.store(0);
    }

    fn set_link(&mut self, ifindex: u32, slot: Option<u32>) -> Result<(), Infallible> {
        match slot {
            Some(slot) => self.links.insert(ifindex, slot),
            None => self.links.remove(&ifindex),
        };
        Ok(())
    }

    fn set_ipcache_word(&mut self, IpcacheCell { node, index }: IpcacheCell, word: u32) {
        self.ipcache[node as usize].set_word(index, word);
    }

    fn grace_period(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

//! ICMP errors for full NAT, written by offsets, with every checksum summed over the whole.

use std::net::IpAddr;

use super::packet::{Packet, framed};
use crate::checksum::with_checksum;

/// "Packet too big", in the words of either family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who couldn't forward a packet.
    pub sender: IpAddr,
    /// Who has sent that, as the sender knows him.
    pub receiver: IpAddr,
    /// The packet, from its IP header on.
    pub quoted: Vec<u8>,
}

impl Report {
    /// About a packet, of whose transport so many bytes are quoted. It goes to who has sent that.
    #[must_use]
    pub fn about(packet: &Packet, sender: IpAddr, transport: usize) -> Self {
        let header = if packet.source.is_ipv4() { 20 } else { 40 };
        let mut quoted = packet.frame(0, 60).split_off(14);
        quoted.truncate(header + transport);
        Self { sender, receiver: packet.source.ip(), quoted }
    }

    /// A frame as [`Packet::frame`] makes it.
    #[must_use]
    pub fn frame(&self, from: u8, hops: u8) -> Vec<u8> {
        let (protocol, kind) = if self.sender.is_ipv4() { (1, [3, 4]) } else { (58, [2, 0]) };
        let message = [&kind[..], &[0, 0, 0, 0, 5, 0x78], &self.quoted].concat();
        with_checksum(framed((self.sender, self.receiver), (protocol, hops), from, &message))
    }
}

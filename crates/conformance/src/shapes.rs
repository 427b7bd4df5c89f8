//! Frames of every shape that headers may have: both families, every transport that has rules, IPv4
//! options, extension headers, VLAN tags, fragments, ICMP errors.
//!
//! Not here: which flow a frame belongs to otherwise ([`crate::frames`]): all of these run from the
//! trio's client to its server. Whether a shape is supported is the pipeline's business; what must
//! never happen to it isn't.

use std::net::IpAddr;

use crate::trio::Party;

/// The source port, or the identifier of a query.
pub const SOURCE_PORT: u16 = 40_000;
/// The destination port.
pub const DESTINATION_PORT: u16 = 80;
/// Bytes behind the transport header.
const PAYLOAD: usize = 5;

/// A frame, and where in it what lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What it is made of.
    pub name: String,
    /// The frame.
    pub bytes: Vec<u8>,
    /// With fewer bytes it must not pass: the transport header isn't all there (of SCTP's, the first
    /// 8 of 12 bytes; of a quoted one, 8). Longer than the frame: it must not pass at all, unless
    /// something came before it.
    pub needed: usize,
    /// The protocol by which it is judged, if it opens a flow.
    pub opens: Option<u8>,
    /// The protocol of the packet of the server's that it quotes, if it is an error.
    pub quotes: Option<u8>,
    /// Nothing is special about its network headers: whole, it passes where nobody is isolated, an
    /// error only if the quoted packet's flow is there.
    pub plain: bool,
}

impl Shape {
    /// Source and destination port of the flow that it opens.
    #[must_use]
    pub fn ports(&self) -> (u16, u16) {
        match self.opens {
            Some(6 | 17 | 132) => (SOURCE_PORT, DESTINATION_PORT),
            Some(1 | 58) => (SOURCE_PORT, 0),
            _ => (0, 0),
        }
    }
}

/// What lies behind the network headers.
#[derive(Clone)]
struct Transport {
    name: &'static str,
    protocol: u8,
    bytes: Vec<u8>,
    needed: usize,
    opens: bool,
    quotes: Option<u8>,
}

/// What lies between Ethernet and the transport, for one family.
struct Network {
    name: &'static str,
    v6: bool,
    tags: &'static [u16],
    /// IPv4: bytes of options. IPv6: the extension headers, by number.
    options: usize,
    headers: &'static [u8],
    /// What the fragment's field says, if it is one: the offset in units of 8, and more to come.
    fragment: Option<(u16, bool)>,
}

const fn v4(name: &'static str) -> Network {
    Network { name, v6: false, tags: &[], options: 0, headers: &[], fragment: None }
}

const fn v6(name: &'static str, headers: &'static [u8]) -> Network {
    Network { name, v6: true, tags: &[], options: 0, headers, fragment: None }
}

const C_TAG: u16 = 0x8100;
const S_TAG: u16 = 0x88a8;

const NETWORKS: &[Network] = &[
    v4("ipv4"),
    Network { options: 4, ..v4("ipv4 with an option") },
    Network { options: 40, ..v4("ipv4 with all options") },
    Network { tags: &[C_TAG], ..v4("vlan, ipv4") },
    Network { tags: &[S_TAG, C_TAG], options: 8, ..v4("two vlans, ipv4 with options") },
    Network { fragment: Some((0, true)), ..v4("ipv4, first fragment") },
    Network { fragment: Some((1, true)), ..v4("ipv4, second fragment") },
    Network { fragment: Some((185, false)), ..v4("ipv4, last fragment") },
    v6("ipv6", &[]),
    v6("ipv6, hop-by-hop", &[0]),
    v6("ipv6, destination options", &[60]),
    v6("ipv6, routing", &[43]),
    v6("ipv6, mobility", &[135]),
    v6("ipv6, authentication", &[51]),
    v6("ipv6, encryption", &[50]),
    v6("ipv6, nothing next", &[59]),
    v6("ipv6, three headers", &[0, 60, 43]),
    v6("ipv6, too many headers", &[60; 12]),
    Network { tags: &[C_TAG], ..v6("vlan, ipv6", &[]) },
    Network { tags: &[S_TAG, C_TAG], ..v6("two vlans, ipv6, destination options", &[60]) },
    Network { fragment: Some((0, false)), ..v6("ipv6, atomic fragment", &[]) },
    Network { fragment: Some((0, true)), ..v6("ipv6, first fragment", &[]) },
    Network { fragment: Some((0, true)), ..v6("ipv6, hop-by-hop, first fragment", &[0]) },
    Network { fragment: Some((181, false)), ..v6("ipv6, last fragment", &[]) },
];

/// All of them.
#[must_use]
pub fn all() -> Vec<Shape> {
    let of = |network: &Network| {
        transports(network.v6).into_iter().map(|transport| shape(network, &transport)).collect()
    };
    let mut shapes: Vec<Shape> =
        NETWORKS.iter().flat_map(|network| -> Vec<Shape> { of(network) }).collect();
    shapes.push(arp());
    shapes
}

fn arp() -> Shape {
    let mut bytes = ethernet(&[], 0x0806);
    bytes.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]);
    bytes.extend(octets(Party::Client, false));
    bytes.extend([0; 6]);
    bytes.extend(octets(Party::Server, false));
    // What goes to an endpoint isn't looked into.
    Shape { name: "arp".to_owned(), bytes, needed: 14, opens: None, quotes: None, plain: true }
}

fn shape(network: &Network, transport: &Transport) -> Shape {
    let name = format!("{}, {}", network.name, transport.name);
    let mut bytes = ethernet(network.tags, if network.v6 { 0x86dd } else { 0x0800 });
    let ip = if network.v6 { ipv6(network, transport) } else { ipv4(network, transport) };
    bytes.extend(ip);
    let transport_at = bytes.len();
    bytes.extend(&transport.bytes);
    let headless = matches!(network.fragment, Some((1.., _)));
    if let Some(&protocol) = network.headers.iter().find(|header| matches!(header, 50 | 59)) {
        return hidden(name, bytes, protocol);
    }
    Shape {
        name,
        needed: if headless { bytes.len() + 1 } else { transport_at + transport.needed },
        bytes,
        opens: (transport.opens && !headless).then_some(transport.protocol),
        quotes: transport.quotes.filter(|_| !headless),
        plain: network.tags.is_empty() && network.headers.is_empty() && network.fragment.is_none(),
    }
}

/// What comes behind this protocol's number isn't to be read: it is a flow without ports.
fn hidden(name: String, bytes: Vec<u8>, protocol: u8) -> Shape {
    let needed = 14 + 40;
    Shape { name, bytes, needed, opens: Some(protocol), quotes: None, plain: false }
}

fn ethernet(tags: &[u16], ethertype: u16) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for tag in tags {
        bytes.extend(tag.to_be_bytes());
        bytes.extend([0, 42]);
    }
    bytes.extend(ethertype.to_be_bytes());
    bytes
}

fn octets(party: Party, v6: bool) -> Vec<u8> {
    match party.address(v6) {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn ipv4(network: &Network, transport: &Transport) -> Vec<u8> {
    let header = 20 + network.options;
    let (offset, more) = network.fragment.unwrap_or_default();
    let mut bytes = vec![0x40 | (header / 4) as u8, 0];
    bytes.extend(((header + transport.bytes.len()) as u16).to_be_bytes());
    bytes.extend(identification(network));
    bytes.extend((offset | u16::from(more) << 13).to_be_bytes());
    bytes.extend([64, transport.protocol, 0, 0]);
    bytes.extend(octets(Party::Client, false));
    bytes.extend(octets(Party::Server, false));
    bytes.extend(vec![1; network.options]);
    bytes
}

fn ipv6(network: &Network, transport: &Transport) -> Vec<u8> {
    let fragment = network.fragment.map(|_| 44);
    let mut chain: Vec<u8> = network.headers.iter().copied().chain(fragment).collect();
    chain.push(transport.protocol);
    let headers: Vec<u8> =
        chain.windows(2).flat_map(|pair| extension(pair[0], pair[1], network)).collect();
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(((headers.len() + transport.bytes.len()) as u16).to_be_bytes());
    bytes.extend([chain[0], 64]);
    bytes.extend(octets(Party::Client, true));
    bytes.extend(octets(Party::Server, true));
    bytes.extend(headers);
    bytes
}

/// Each kind of fragment is one of a datagram of its own.
fn identification(network: &Network) -> [u8; 2] {
    let number = NETWORKS.iter().position(|other| other.name == network.name);
    (number.unwrap_or_default() as u16).to_be_bytes()
}

/// An extension header and the number of what follows it.
fn extension(number: u8, next: u8, network: &Network) -> Vec<u8> {
    let (offset, more) = network.fragment.unwrap_or_default();
    match number {
        44 => {
            let field = (offset << 3 | u16::from(more)).to_be_bytes();
            [vec![next, 0, field[0], field[1], 0, 0], identification(network).to_vec()].concat()
        }
        // In words of 4 bytes, less 2.
        51 => [vec![next, 1, 0, 0], vec![0; 8]].concat(),
        50 => vec![0, 0, 0, 1, 0, 0, 0, 1],
        // Nowhere left to go.
        43 => [vec![next, 1, 4, 0], vec![0; 12]].concat(),
        // In units of 8 bytes beyond the first; padding.
        _ => [vec![next, 1, 1, 12], vec![0; 12]].concat(),
    }
}

fn transports(v6: bool) -> Vec<Transport> {
    let opening = |name, protocol, bytes: Vec<u8>, needed| Transport {
        name,
        protocol,
        bytes: [bytes, vec![0x5a; PAYLOAD]].concat(),
        needed,
        opens: true,
        quotes: None,
    };
    let (icmp, query) = if v6 { (58, 128) } else { (1, 8) };
    let mut with_options = tcp(8);
    with_options.extend([1; 12]);
    let plain = [
        opening("tcp", 6, tcp(5), 20),
        opening("tcp with options", 6, with_options, 20),
        opening("udp", 17, udp(), 8),
        opening("sctp", 132, sctp(), 8),
        opening("echo", icmp, echo(query), 8),
    ];
    let errors = ["error about tcp", "", "error about udp", "error about sctp", "error about echo"]
        .into_iter()
        .zip(&plain)
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, quoted)| error(name, v6, quoted));
    let errors: Vec<Transport> = errors.collect();
    plain.into_iter().chain(errors).collect()
}

fn ports() -> Vec<u8> {
    [SOURCE_PORT.to_be_bytes(), DESTINATION_PORT.to_be_bytes()].concat()
}

fn tcp(words: u8) -> Vec<u8> {
    let rest = [0, 0, 0, 1, 0, 0, 0, 0, words << 4, 2, 0xff, 0xff, 0, 0, 0, 0];
    [ports(), rest.to_vec()].concat()
}

fn udp() -> Vec<u8> {
    [ports(), vec![0, 8 + PAYLOAD as u8, 0, 0]].concat()
}

fn sctp() -> Vec<u8> {
    [ports(), vec![0, 0, 0, 1, 0, 0, 0, 0]].concat()
}

fn echo(icmp_type: u8) -> Vec<u8> {
    let [high, low] = SOURCE_PORT.to_be_bytes();
    vec![icmp_type, 0, 0, 0, high, low, 0, 1]
}

/// Destination unreachable, about a packet that the server has sent.
fn error(name: &'static str, v6: bool, about: &Transport) -> Transport {
    let quoted = Transport { bytes: about.bytes[..8].to_vec(), ..about.clone() };
    let mut inner = if v6 { ipv6(&NETWORKS[8], &quoted) } else { ipv4(&NETWORKS[0], &quoted) };
    let (addresses, length) = if v6 { (8, 16) } else { (12, 4) };
    inner[addresses..addresses + 2 * length].rotate_left(length);
    let mut bytes = vec![if v6 { 1 } else { 3 }, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(inner);
    let needed = bytes.len() + about.needed.min(8);
    bytes.extend(quoted.bytes);
    Transport {
        name,
        protocol: if v6 { 58 } else { 1 },
        bytes,
        needed,
        opens: false,
        quotes: Some(about.protocol),
    }
}

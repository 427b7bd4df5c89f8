//! The steps for what leaves and for what comes back.

use flowgate_abi::{
    Be16,
    lb::{Tail, Target},
    probe::Probe,
};

use super::{End, Fate, Own, Probes};
use crate::{
    Cursor, Family, V4, V6,
    family::Tuple,
    lb::{
        Balanceable, Request, forward, icmp,
        nat::rewrite::{Change, Rewritable},
        request,
    },
    parse::{self, Layer3, Role},
    wire::{Icmp, protocol},
};

const ETHERNET: u32 = 14;

/// A frame that leaves the host: a check's goes to the service, in the backend's tunnel.
#[inline(always)]
pub fn leave<B: Own, T: Probes>(frame: &mut B, probes: &T) -> Fate {
    match frame.layer3() {
        Layer3::Ipv4 => leave_in::<V4, B, T>(frame, probes),
        Layer3::Ipv6 => leave_in::<V6, B, T>(frame, probes),
        _ => Fate::Pass,
    }
}

/// A frame that comes in: what a service answers to a check comes from the backend, and an ICMP error about a check is
/// about a packet to the backend.
#[inline(always)]
pub fn answer<B: Own, T: Probes>(frame: &mut B, probes: &T) -> Fate {
    match frame.layer3() {
        Layer3::Ipv4 => answer_in::<V4, B, T>(frame, probes),
        Layer3::Ipv6 => answer_in::<V6, B, T>(frame, probes),
        _ => Fate::Pass,
    }
}

#[inline(always)]
fn leave_in<F: Balanceable, B: Own, T: Probes>(frame: &mut B, probes: &T) -> Fate {
    let Some(request) = request::plain_packet::<F, _>(&mut frame.network()) else {
        return Fate::Pass;
    };
    let Tuple { source_port, destination, destination_port, .. } = request.tuple;
    match find::<F, T>(probes, source_port, request.tuple.protocol) {
        Some(probe)
            if is(F::wide(destination), probe.backend) && destination_port == probe.port =>
        {
            fate(wrap(frame, &request, probe))
        }
        _ => Fate::Pass,
    }
}

#[inline(always)]
fn answer_in<F: Balanceable + Rewritable, B: Own, T: Probes>(frame: &mut B, probes: &T) -> Fate {
    let Some(request) = request::plain_packet::<F, _>(&mut frame.network()) else {
        return error_in::<F, B, T>(frame, probes);
    };
    let Tuple { source, source_port, destination_port, protocol, .. } = request.tuple;
    match find::<F, T>(probes, destination_port, protocol) {
        Some(probe) if is(F::wide(source), probe.service) && source_port == probe.port => {
            let change = [words(probe.service), words(probe.backend)];
            fate(frame.readdress::<F>(End::Source, protocol, change).then_some(()))
        }
        _ => Fate::Pass,
    }
}

/// An error quotes what went in the tunnel, or the tunnel's headers in front of that; of neither the host's socket
/// knows anything.
#[inline(always)]
fn error_in<F: Balanceable + Rewritable, B: Own, T: Probes>(frame: &mut B, probes: &T) -> Fate {
    let Some(Quote { from, ends, tunnel }) = error::<F, _>(&mut frame.network()) else {
        return Fate::Pass;
    };
    match find::<F, T>(probes, ends.source_port, ends.protocol) {
        Some(probe)
            if is(F::wide(ends.destination), probe.service)
                && ends.destination_port == probe.port =>
        {
            fate(about_backend::<F, B>(frame, (from, ends.source, tunnel), probe))
        }
        _ => Fate::Pass,
    }
}

/// What an ICMP error quotes.
struct Quote<F: Family> {
    /// Who sends the error.
    from: F::Addr,
    /// The ends of a packet that may be a check's.
    ends: Tuple<F::Addr>,
    /// Bytes of the tunnel's headers in front of it; 0: there are none.
    tunnel: u32,
}

/// Of an ICMP error without options or extension headers, about a packet of its receiver's own.
#[inline(always)]
fn error<F: Balanceable, C: Cursor>(cursor: &mut C) -> Option<Quote<F>> {
    let mut outer = Request::<F>::unread();
    if !F::read_plain(cursor, &mut outer) || outer.tuple.protocol != F::ICMP {
        return None;
    }
    let header: Icmp = cursor.take()?;
    let mut quoted = Request::<F>::unread();
    if F::icmp_role(header.icmp_type) != Ok(Role::Error)
        || !F::read_plain(cursor, &mut quoted)
        || quoted.tuple.source != outer.tuple.destination
    {
        return None;
    }
    let (ends, tunnel) = quoted_ends::<F, C>(cursor, quoted.tuple)?;
    Some(Quote { from: outer.tuple.source, ends, tunnel })
}

/// The ends of the packet whose header has been read, or of the one in it if it is a tunnel's, and how many bytes that has
/// in front of it. UDP is a tunnel's if a packet of the family follows.
#[inline(always)]
fn quoted_ends<F: Balanceable, C: Cursor>(
    cursor: &mut C,
    mut quoted: Tuple<F::Addr>,
) -> Option<(Tuple<F::Addr>, u32)> {
    let header = u32::from(F::HEADER);
    let in_ip = if F::NUMBER == 4 { protocol::IPV4 } else { protocol::IPV6 };
    if quoted.protocol == in_ip {
        return Some((packet_ends::<F, C>(cursor)?, header));
    }
    parse::ports(cursor, &mut quoted).ok()?;
    if quoted.protocol != protocol::UDP {
        return Some((quoted, 0));
    }
    match packet_ends::<F, C>(cursor) {
        Some(inner) => Some((inner, header + 8)),
        None => Some((quoted, 0)),
    }
}

/// The ends of a packet without options, extension headers or fragments.
#[inline(always)]
fn packet_ends<F: Balanceable, C: Cursor>(cursor: &mut C) -> Option<Tuple<F::Addr>> {
    let mut packet = Request::<F>::unread();
    if !F::read_plain(cursor, &mut packet) {
        return None;
    }
    parse::ports(cursor, &mut packet.tuple).ok()?;
    Some(packet.tuple)
}

/// Quotes a packet to the backend; an error from the service's address comes from the backend's, since the first may be
/// the host's own, too. Of the quoted transport's checksum nobody asks.
#[inline(always)]
fn about_backend<F: Balanceable + Rewritable, B: Own>(
    frame: &mut B,
    (from, own, tunnel): (F::Addr, F::Addr, u32),
    probe: &Probe,
) -> Option<()> {
    let backend = F::narrow(words(probe.backend));
    let from = if is(F::wide(from), probe.service) { backend } else { from };
    let message = ETHERNET + u32::from(F::HEADER);
    let quotes = message + size_of::<Icmp>() as u32;
    let moved =
        if tunnel == 0 { Change::default() } else { uncover::<F, B>(frame, quotes, tunnel)? };
    let outer = F::set_addresses(frame, ETHERNET, (from, own))?;
    let quoted = F::set_addresses(frame, quotes, (own, backend))?;
    let sum: Be16 = frame.load(message + 2)?;
    frame.store(message + 2, F::covered(outer, quoted).and(moved).applied(sum)).then_some(())
}

/// Puts the header behind a tunnel's, and the eight bytes that follow it, in their place: more of what is quoted nobody
/// reads.
#[inline(always)]
fn uncover<F: Family, B: Own>(frame: &mut B, quotes: u32, tunnel: u32) -> Option<Change> {
    let mut change = Change::default();
    for word in 0..(u32::from(F::HEADER) + 8) / 4 {
        let at = quotes + 4 * word;
        let (old, new): (u32, u32) = (frame.load(at)?, frame.load(at + tunnel)?);
        change.replaced(old, new);
        frame.store(at, new).then_some(())?;
    }
    Some(change)
}

#[inline(always)]
fn find<F: Family, T: Probes>(probes: &T, own: Be16, protocol: u8) -> Option<&Probe> {
    probes.probe(Target::kind(own, protocol, F::NUMBER))
}

/// Sends it to the service in the backend's tunnel. Frames whose line names no next hop go to whom the host
/// would have sent them.
#[inline(always)]
fn wrap<F: Balanceable, B: Own>(frame: &mut B, request: &Request<F>, probe: &Probe) -> Option<()> {
    let tail = Tail(probe.line.tail.load());
    if request.length > tail.room() {
        return None;
    }
    let change = [words(probe.backend), words(probe.service)];
    if !frame.readdress::<F>(End::Destination, request.tuple.protocol, change) {
        return None;
    }
    // Forwarding is for frames that came: it sends them back to who delivered them.
    icmp::turn(frame)?;
    let hash = F::flow_hash(&request.tuple, 0);
    forward::forward(frame, request, (&probe.line, tail), hash).ok()?;
    probe.sent.store(1);
    Some(())
}

#[inline(always)]
const fn fate(done: Option<()>) -> Fate {
    match done {
        Some(()) => Fate::Rewritten,
        None => Fate::Drop,
    }
}

#[inline(always)]
const fn words(address: flowgate_abi::Addr6) -> [u64; 2] {
    [address.first, address.last]
}

#[inline(always)]
const fn is([first, last]: [u64; 2], address: flowgate_abi::Addr6) -> bool {
    first == address.first && last == address.last
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use flowgate_abi::{
        Addr6, Shared64,
        lb::{Backend, Kind},
    };

    use super::*;
    use crate::lb::HostBuffer;

    const OWN: [u8; 4] = [198, 18, 0, 1];
    const BACKEND: [u8; 4] = [198, 18, 0, 11];
    const SERVICE: [u8; 4] = [198, 51, 100, 1];
    const PORTS: [u16; 2] = [40_000, 80];
    /// Room for an outer header.
    const HEADROOM: usize = 20;

    /// One check.
    struct One(Probe);

    impl Probes for One {
        fn probe(&self, kind: u64) -> Option<&Probe> {
            (kind == Target::kind(Be16::new(PORTS[0]), 6, 4)).then_some(&self.0)
        }
    }

    fn one(room: u16) -> One {
        let tail = Tail::new(Kind::Tunnel4, 0, room, 0).with(Tail::TO_SENDER);
        let mut bytes = [0; 56];
        bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
        bytes[30..34].copy_from_slice(&BACKEND);
        One(Probe {
            service: Addr6::wide(SERVICE.into()),
            backend: Addr6::wide(BACKEND.into()),
            line: Backend { header: zerocopy::transmute!(bytes), tail: Shared64::new(tail.0) },
            port: Be16::new(PORTS[1]),
            ..Probe::default()
        })
    }

    fn sum(bytes: &[u8]) -> u32 {
        let words = bytes.chunks(2).map(|word| u32::from(u16::from_ne_bytes([word[0], word[1]])));
        words.sum()
    }

    /// Whether the checksums of a TCP packet are right (RFC 1071).
    fn is_right(packet: &[u8]) -> bool {
        let pseudo = sum(&packet[12..20]) + sum(&[0, 6, 0, 20]);
        [sum(&packet[..20]), pseudo + sum(&packet[20..40])].map(crate::sum::folded) == [0xffff; 2]
    }

    /// A TCP packet without data, behind room for another header.
    fn frame([from, to]: [[u8; 4]; 2], [own, other]: [u16; 2]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
        packet.extend([from, to].concat());
        packet.extend([own.to_be_bytes(), other.to_be_bytes()].concat());
        packet.extend([[0; 8], [0x50, 2, 0, 0, 0, 0, 0, 0]].concat());
        let header = !crate::sum::folded(sum(&packet[..20]));
        packet[10..12].copy_from_slice(&header.to_ne_bytes());
        let pseudo = sum(&packet[12..20]) + sum(&[0, 6, 0, 20]);
        let segment = !crate::sum::folded(pseudo + sum(&packet[20..]));
        packet[36..38].copy_from_slice(&segment.to_ne_bytes());
        assert!(is_right(&packet));
        [&[0; HEADROOM][..], &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0], &packet].concat()
    }

    #[test]
    fn a_checks_packet_goes_to_the_service_in_the_tunnel() {
        let (one, mut bytes) = (one(1480), frame([OWN, BACKEND], PORTS));
        let mut buffer = HostBuffer::new(&mut bytes, HEADROOM);
        assert_eq!(leave(&mut buffer, &one), Fate::Rewritten);
        let sent = buffer.frame();
        assert_eq!(sent[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9], "whom the host sends it to");
        assert_eq!((&sent[16..18], &sent[30..34]), (&[0, 60][..], &BACKEND[..]));
        let inner = &sent[34..];
        assert!(is_right(inner));
        assert_eq!((&inner[12..16], &inner[16..20], inner[8]), (&OWN[..], &SERVICE[..], 63));
        assert_eq!(one.0.sent.load(), 1);
    }

    #[test]
    fn an_answer_comes_from_the_backend() {
        let [own, other] = PORTS;
        let mut bytes = frame([SERVICE, OWN], [other, own]);
        let mut buffer = HostBuffer::new(&mut bytes, HEADROOM);
        assert_eq!(answer(&mut buffer, &one(1480)), Fate::Rewritten);
        let packet = &buffer.frame()[14..];
        assert!(is_right(packet));
        assert_eq!((&packet[12..16], &packet[16..20]), (&BACKEND[..], &OWN[..]));
    }

    const ROUTER: [u8; 4] = [198, 18, 0, 254];

    /// An ICMP error (port unreachable) that quotes a TCP packet's first 28 bytes.
    fn error([from, to]: [[u8; 4]; 2], quoted: ([[u8; 4]; 2], [u16; 2])) -> Vec<u8> {
        let quoted = &frame(quoted.0, quoted.1)[HEADROOM + 14..][..28];
        let mut packet = vec![0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0];
        packet.extend([from, to].concat());
        packet.extend([3, 3, 0, 0, 0, 0, 0, 0]);
        packet.extend(quoted);
        finished(packet)
    }

    /// The service's address may be the host's own, from which nothing comes in: then it's the backend that says so.
    #[test]
    fn an_error_about_a_check_is_about_a_packet_to_the_backend() {
        for (from, seen) in [(ROUTER, ROUTER), (SERVICE, BACKEND), (BACKEND, BACKEND)] {
            let mut bytes = error([from, OWN], ([OWN, SERVICE], PORTS));
            let mut buffer = HostBuffer::new(&mut bytes, HEADROOM);
            assert_eq!(answer(&mut buffer, &one(1480)), Fate::Rewritten);
            assert_eq!(bytes, error([seen, OWN], ([OWN, BACKEND], PORTS)), "{from:?}");
        }
    }

    /// An ICMP error to the outer source, about a tunnel with a packet of which so much is quoted.
    fn outer_error(from: [u8; 4], udp: bool, (ends, ports): ([[u8; 4]; 2], [u16; 2])) -> Vec<u8> {
        let inner = &frame(ends, ports)[HEADROOM + 14..];
        let mut outer = frame([OUTER, BACKEND], [0xc001, 6080])[HEADROOM + 14..][..20].to_vec();
        (outer[3], outer[9]) = if udp { (68, 17) } else { (60, 4) };
        outer[10..12].copy_from_slice(&[0; 2]);
        let checksum = !crate::sum::folded(sum(&outer));
        outer[10..12].copy_from_slice(&checksum.to_ne_bytes());
        if udp {
            outer.extend([0xc0, 1, 0x17, 0xc0, 0, 48, 0, 0]);
        }
        let quoted = [&outer, inner].concat();
        let mut packet = error([from, OUTER], (ends, ports))[HEADROOM + 14..][..28].to_vec();
        packet[2..4].copy_from_slice(&(28 + quoted.len() as u16).to_be_bytes());
        packet.extend(quoted);
        finished(packet)
    }

    /// With right checksums of IP and ICMP, in a frame.
    fn finished(mut packet: Vec<u8>) -> Vec<u8> {
        for (from, at) in [(0..20, 10), (20..packet.len(), 22)] {
            packet[at..at + 2].copy_from_slice(&[0; 2]);
            let checksum = !crate::sum::folded(sum(&packet[from]));
            packet[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
        }
        [&[0; HEADROOM][..], &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0], &packet].concat()
    }

    const OUTER: [u8; 4] = [198, 18, 0, 2];

    /// The header and the ports of the check's packet take the place of the tunnel's.
    #[test]
    fn an_error_about_the_tunnel_is_about_a_packet_to_the_backend() {
        for (from, udp) in [(ROUTER, false), (ROUTER, true), (BACKEND, false), (BACKEND, true)] {
            let mut bytes = outer_error(from, udp, ([OWN, SERVICE], PORTS));
            let was = bytes.clone();
            let mut buffer = HostBuffer::new(&mut bytes, HEADROOM);
            assert_eq!(
                answer(&mut buffer, &one(1480)),
                Fate::Rewritten,
                "{from:?} {udp} {was:02x?}"
            );
            let packet = &bytes[HEADROOM + 14..];
            assert_eq!((&packet[12..16], &packet[16..20]), (&from[..], &OWN[..]));
            assert_eq!(
                packet[28..56],
                error([from, OWN], ([OWN, BACKEND], PORTS))[HEADROOM + 42..]
            );
            assert_eq!(bytes, finished(packet.to_vec()), "its checksums are right");
            assert_eq!(bytes[HEADROOM + 70..], was[HEADROOM + 70..], "what nobody reads stays");
        }
        for udp in [false, true] {
            for (ends, ports) in [([OWN, BACKEND], PORTS), ([OWN, SERVICE], [PORTS[0], 81])] {
                let was = outer_error(ROUTER, udp, (ends, ports));
                let mut bytes = was.clone();
                let fate = answer(&mut HostBuffer::new(&mut bytes, HEADROOM), &one(1480));
                assert_eq!((fate, bytes), (Fate::Pass, was));
            }
            let whole = outer_error(ROUTER, udp, ([OWN, SERVICE], PORTS));
            let eight_octets = HEADROOM + 14 + 28 + 20 + if udp { 8 } else { 0 } + 28;
            for length in HEADROOM + 14..eight_octets {
                let mut bytes = whole[..length].to_vec();
                let cut = answer(&mut HostBuffer::new(&mut bytes, HEADROOM), &one(1480));
                assert_eq!((cut, &bytes[..]), (Fate::Pass, &whole[..length]), "{length}");
            }
        }
    }

    #[test]
    fn an_error_about_anything_else_passes_unchanged() {
        let [own, other] = PORTS;
        let quoted = [
            ([OWN, BACKEND], PORTS),
            ([OWN, SERVICE], [own, 81]),
            ([OWN, SERVICE], [1, other]),
            ([ROUTER, SERVICE], PORTS),
        ];
        for quoted in quoted {
            let mut bytes = error([ROUTER, OWN], quoted);
            let fate = answer(&mut HostBuffer::new(&mut bytes, HEADROOM), &one(1480));
            assert_eq!((fate, &bytes), (Fate::Pass, &error([ROUTER, OWN], quoted)));
        }
        // No error, and one that is cut off.
        let mut echo = error([ROUTER, OWN], ([OWN, SERVICE], PORTS));
        echo[HEADROOM + 34] = 8;
        let answered = answer(&mut HostBuffer::new(&mut echo, HEADROOM), &one(1480));
        assert_eq!(answered, Fate::Pass);
        let whole = error([ROUTER, OWN], ([OWN, SERVICE], PORTS));
        for length in HEADROOM + 14..whole.len() {
            let mut bytes = whole[..length].to_vec();
            let cut = answer(&mut HostBuffer::new(&mut bytes, HEADROOM), &one(1480));
            assert_eq!((cut, &bytes[..]), (Fate::Pass, &whole[..length]), "{length}");
        }
    }

    #[test]
    fn what_is_no_checks_passes_unchanged() {
        let [own, other] = PORTS;
        let one = one(1480);
        let leaving =
            [([OWN, SERVICE], PORTS), ([OWN, BACKEND], [own, 81]), ([OWN, BACKEND], [1, other])];
        for (ends, ports) in leaving {
            let mut bytes = frame(ends, ports);
            assert_eq!(leave(&mut HostBuffer::new(&mut bytes, HEADROOM), &one), Fate::Pass);
            assert_eq!(bytes, frame(ends, ports));
        }
        for (ends, ports) in [([BACKEND, OWN], [other, own]), ([SERVICE, OWN], [81, own])] {
            let mut bytes = frame(ends, ports);
            assert_eq!(answer(&mut HostBuffer::new(&mut bytes, HEADROOM), &one), Fate::Pass);
            assert_eq!(bytes, frame(ends, ports));
        }
        assert_eq!(one.0.sent.load(), 0);
    }

    #[test]
    fn what_cannot_go_its_way_goes_nowhere() {
        let mut bytes = frame([OWN, BACKEND], PORTS);
        let too_big = one(39);
        assert_eq!(leave(&mut HostBuffer::new(&mut bytes, HEADROOM), &too_big), Fate::Drop);
        let mut bytes = frame([OWN, BACKEND], PORTS);
        let no_headroom = leave(&mut HostBuffer::new(&mut bytes[HEADROOM..], 0), &one(1480));
        assert_eq!(no_headroom, Fate::Drop);
        assert_eq!(too_big.0.sent.load(), 0);
    }
}

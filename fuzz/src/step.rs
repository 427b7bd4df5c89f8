//! What happens in the target `hooks`, and how bytes become it.

use flowgate_conformance::{
    frames::{Frame, error_about, tcp},
    shapes::{self, Shape},
    trio::{Party, Rules},
};
use flowgate_policy::outcome::{Flow, FlowProtocol};

use crate::{ETHERNET, PLACES, World};

/// The most steps of an input.
const STEPS: usize = 200;
/// The most generations of an input: each costs as much as a hundred packets.
const GENERATIONS: usize = 6;
const PARTIES: [Party; 3] = [Party::Client, Party::Server, Party::Outside];
const PORTS: [u16; 4] = [80, 53, 443, 0];
const FLAGS: [u8; 8] = [
    tcp::SYN,
    tcp::SYN | tcp::ACK,
    tcp::ACK,
    tcp::FIN | tcp::ACK,
    tcp::RST,
    tcp::RST | tcp::ACK,
    tcp::SYN | tcp::FIN,
    0,
];

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A frame at one of [`PLACES`].
    Meet(Vec<u8>, usize),
    /// Time passes, in jiffies.
    Wait(u64),
    /// The flow tables are swept.
    Sweep,
    /// A new generation.
    Change(Rules),
    /// An endpoint goes and comes back.
    Reattach(Party),
}

impl Step {
    /// Does it.
    ///
    /// # Panics
    /// If anything is wrong with what comes of it.
    pub fn take(&self, world: &mut World) {
        match self {
            Self::Meet(frame, place) => {
                let (hook, party) = PLACES[*place];
                let _ = world.run(frame, hook, party);
            }
            Self::Wait(jiffies) => world.wait(*jiffies),
            Self::Sweep => world.sweep(),
            Self::Change(rules) => world.change(*rules),
            Self::Reattach(party) => world.reattach(*party),
        }
    }

    const fn is_generation(&self) -> bool {
        matches!(self, Self::Change(_) | Self::Reattach(_))
    }
}

/// Reads steps out of bytes. Any bytes are some.
#[derive(Debug)]
pub struct Steps<'b> {
    bytes: &'b [u8],
    shapes: &'b [Shape],
    taken: usize,
    generations: usize,
}

impl<'b> Steps<'b> {
    /// The steps in these bytes; `shapes` are [`shapes::all`].
    #[must_use]
    pub const fn read(bytes: &'b [u8], shapes: &'b [Shape]) -> Self {
        Self { bytes, shapes, taken: 0, generations: 0 }
    }

    /// The next byte; 0 if they have ended.
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    fn number(&mut self, below: usize) -> usize {
        usize::from(self.byte()) % below
    }

    fn step(&mut self) -> Step {
        match self.byte() % 16 {
            0..=6 => self.packet(),
            7 | 8 => self.error(),
            9 | 10 => self.shape(),
            11 => self.raw(),
            12 => Step::Wait(u64::from(self.byte()) << (self.byte() % 16)),
            13 => Step::Sweep,
            14 => Step::Change(Rules::ALL[self.number(3)]),
            _ => Step::Reattach(PARTIES[self.number(2)]),
        }
    }

    /// A packet of some flow, at its sender's hook, or elsewhere.
    fn packet(&mut self) -> Step {
        let frame = self.frame();
        let place = self.place(&frame);
        let mut bytes = frame.bytes();
        self.spoil(&mut bytes);
        Step::Meet(bytes, place)
    }

    /// An error about a packet, from its receiver.
    fn error(&mut self) -> Step {
        let quoted = self.frame();
        let place = self.place(&Frame { reply: !quoted.reply, ..quoted });
        let icmp_type = 1 + self.byte() % 4;
        let icmp_type = if quoted.sender().is_ipv4() && icmp_type < 3 { 11 } else { icmp_type };
        let mut bytes = error_about(&quoted, quoted.receiver(), icmp_type);
        self.spoil(&mut bytes);
        Step::Meet(bytes, place)
    }

    fn shape(&mut self) -> Step {
        let (high, low) = (self.number(2), self.number(128));
        let mut bytes = self.shapes[(high * 128 + low) % self.shapes.len()].bytes.clone();
        self.spoil(&mut bytes);
        let cut = self.number(64);
        bytes.truncate((bytes.len() - cut.min(bytes.len())).max(ETHERNET));
        Step::Meet(bytes, self.number(PLACES.len()))
    }

    fn raw(&mut self) -> Step {
        let place = self.number(PLACES.len());
        let length = usize::from(self.byte()).min(self.bytes.len());
        let (bytes, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        let mut frame = bytes.to_vec();
        frame.resize(length.max(ETHERNET), 0);
        Step::Meet(frame, place)
    }

    fn frame(&mut self) -> Frame {
        let (ends, how) = (self.byte(), self.byte());
        let from = PARTIES[usize::from(ends & 3) % 3];
        // Another one: nobody speaks to itself.
        let to = PARTIES[(usize::from(ends & 3) + 1 + usize::from(ends >> 2 & 1)) % 3];
        let v6 = ends & 8 != 0;
        let (source, destination) = (from.address(v6), to.address(v6));
        let port = PORTS[usize::from(ends >> 4 & 3)];
        let protocol = match (how & 7, v6) {
            (0..=3, _) => FlowProtocol::Tcp(port),
            (4 | 5, _) => FlowProtocol::Udp(port),
            (6, _) => FlowProtocol::Sctp(port),
            (_, false) => FlowProtocol::Icmp { icmp_type: 8 },
            (_, true) => FlowProtocol::Icmp6 { icmp_type: 128 },
        };
        let flow = Flow { source, destination, protocol };
        // Sixteen flows fill a bucket twice.
        let mut frame = Frame::opening(flow, 40_000 + u16::from(how >> 4));
        frame.reply = how & 8 != 0;
        frame.hops = if ends & 0x40 != 0 { 1 } else { 64 };
        frame.options = if ends & 0x80 != 0 { 3 } else { 0 };
        frame.flags(FLAGS[self.number(FLAGS.len())])
    }

    /// The place of a frame's sender, if it is local, else of its receiver; now and then another.
    fn place(&mut self, frame: &Frame) -> usize {
        let other = self.byte();
        if other >= 224 {
            return usize::from(other) % PLACES.len();
        }
        match (Party::of(frame.sender()), Party::of(frame.receiver())) {
            (Party::Client, _) => 0,
            (Party::Server, _) => 1,
            (Party::Outside, Party::Client) => 2,
            (Party::Outside, _) => 3,
        }
    }

    /// Most frames stay as they are.
    fn spoil(&mut self, bytes: &mut [u8]) {
        let with = self.byte();
        if with >= 192 {
            let at = ETHERNET - 2 + self.number(bytes.len() - ETHERNET + 2);
            bytes[at] ^= 1 << (with % 8);
        }
    }
}

impl Iterator for Steps<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            if self.bytes.is_empty() || self.taken >= STEPS {
                return None;
            }
            self.taken += 1;
            let step = self.step();
            self.generations += usize::from(step.is_generation());
            if !step.is_generation() || self.generations <= GENERATIONS {
                return Some(step);
            }
        }
    }
}

/// The shapes that steps choose from.
#[must_use]
pub fn shapes() -> Vec<Shape> {
    shapes::all()
}

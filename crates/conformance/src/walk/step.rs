//! What a walk is made of, and how bytes become one.

use std::fmt;

use flowgate_policy::outcome::{Flow, FlowProtocol};

use crate::{
    connections::{Timeouts, UNIT},
    frames::{Frame, tcp},
    trio::{Party, Rules},
};

/// The most steps of a walk.
const STEPS: usize = 300;
/// The most changes of rules: each is a generation.
const CHANGES: usize = 6;
/// Where time may begin: soon after a boot, where 32 bits of jiffies wrap, where the 30 bits of
/// units of an entry's age wrap, and once far behind that.
const STARTS: [u64; 4] = [1 << 26, 1 << 32, 1 << 38, 1 << 45];
/// How long before it, in units: each time-out is crossed on both sides.
const BEFORE: [u64; 4] = [1, 61, 8001, 20_000];

/// Which two parties speak, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Who begins, if all goes well.
    pub from: Party,
    /// With whom.
    pub to: Party,
    /// Protocol and port, in IPv4's terms.
    pub protocol: FlowProtocol,
}

const PING: FlowProtocol = FlowProtocol::Icmp { icmp_type: 8 };

/// The conversations that there are, for each family.
const CONVERSATIONS: [Conversation; 8] = [
    conversation(Party::Client, Party::Server, FlowProtocol::Tcp(80)),
    conversation(Party::Client, Party::Server, FlowProtocol::Udp(53)),
    conversation(Party::Client, Party::Outside, FlowProtocol::Tcp(443)),
    conversation(Party::Outside, Party::Server, FlowProtocol::Tcp(80)),
    conversation(Party::Client, Party::Server, PING),
    conversation(Party::Server, Party::Client, FlowProtocol::Tcp(80)),
    conversation(Party::Outside, Party::Server, PING),
    conversation(Party::Client, Party::Outside, FlowProtocol::Sctp(132)),
];

const fn conversation(from: Party, to: Party, protocol: FlowProtocol) -> Conversation {
    Conversation { from, to, protocol }
}

impl Conversation {
    /// Its packet that runs from the first to the second, or back.
    #[must_use]
    pub const fn frame(&self, v6: bool, reply: bool, tcp_flags: u8) -> Frame {
        let protocol = match (self.protocol, v6) {
            (PING, true) => FlowProtocol::Icmp6 { icmp_type: 128 },
            (protocol, _) => protocol,
        };
        let (source, destination) = (self.from.address(v6), self.to.address(v6));
        let mut frame =
            Frame::opening(Flow { source, destination, protocol }, 40_000).flags(tcp_flags);
        frame.reply = reply;
        frame
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A packet.
    Send(Frame),
    /// The receiver of a packet, which may never have been sent, reports an error about it.
    Report(Frame),
    /// Time passes, in jiffies.
    Wait(u64),
    /// The flow tables are swept.
    Sweep,
    /// A new generation with these rules.
    Change(Rules),
    /// Likewise, and the generation keeps what is established.
    Keep(Rules),
}

/// Where time begins, under which rules, and what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Jiffies.
    pub start: u64,
    /// The first rules.
    pub rules: Rules,
    /// What happens.
    pub steps: Vec<Step>,
}

impl Walk {
    /// The walk that bytes describe: three for the beginning, then three for each step. What is
    /// missing counts as zero; what is too much is left out.
    #[must_use]
    pub fn read(bytes: &[u8], timeouts: &Timeouts) -> Self {
        let (head, rest) = bytes.split_at(bytes.len().min(3));
        let at = |index: usize| usize::from(head.get(index).copied().unwrap_or_default());
        let start = STARTS[at(0) / 4 % 4] - BEFORE[at(0) % 4] * UNIT - at(2) as u64;
        // Few conversations make long ones.
        let choice = Choice { first: at(1) / 16, count: 1 + at(1) % 4 };
        let mut changes = 0;
        let steps =
            rest.chunks_exact(3).map(|step| choice.step([step[0], step[1], step[2]], timeouts));
        let steps = steps.filter(|step| {
            let change = matches!(step, Step::Change(_) | Step::Keep(_));
            changes += usize::from(change);
            !change || changes <= CHANGES
        });
        let steps = steps.take(STEPS).collect();
        Self { start, rules: Rules::ALL[at(1) / 4 % 4 % 3], steps }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(frame) => packet(f, frame),
            Self::Report(frame) => {
                f.write_str("an ICMP error about ")?;
                packet(f, frame)
            }
            Self::Wait(jiffies) => {
                write!(f, "{} units and {} jiffies", jiffies / UNIT, jiffies % UNIT)
            }
            Self::Sweep => f.write_str("a sweep"),
            Self::Change(rules) => write!(f, "rules: {rules:?}"),
            Self::Keep(rules) => write!(f, "rules: {rules:?}, what is established stays"),
        }
    }
}

fn packet(f: &mut fmt::Formatter<'_>, frame: &Frame) -> fmt::Result {
    let (arrow, flow) = (if frame.reply { "<-" } else { "->" }, frame.flow);
    write!(f, "{} {arrow} {} {}", flow.source, flow.destination, flow.protocol)?;
    let names = [(tcp::SYN, " SYN"), (tcp::FIN, " FIN"), (tcp::RST, " RST"), (tcp::ACK, " ACK")];
    let tcp = matches!(flow.protocol, FlowProtocol::Tcp(_));
    let set = names.iter().filter(|(flag, _)| tcp && frame.tcp_flags & flag != 0);
    set.map(|(_, name)| name).try_for_each(|name| f.write_str(name))
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "from jiffy {}, rules: {:?}", self.start, self.rules)?;
        self.steps.iter().enumerate().try_for_each(|(number, step)| writeln!(f, "{number}: {step}"))
    }
}

/// Which conversations a walk is about.
struct Choice {
    first: usize,
    count: usize,
}

impl Choice {
    fn step(&self, [kind, which, how]: [u8; 3], timeouts: &Timeouts) -> Step {
        match kind % 16 {
            0..=10 => Step::Send(self.frame(which, flags(how))),
            11 => Step::Report(self.frame(which, tcp::ACK)),
            12 | 13 => Step::Wait(time(which, how, timeouts)),
            14 => Step::Sweep,
            _ if which < 128 => Step::Change(Rules::ALL[usize::from(which) % 3]),
            _ => Step::Keep(Rules::ALL[usize::from(which) % 3]),
        }
    }

    /// The first bit is the direction, the others are the conversation.
    fn frame(&self, which: u8, tcp_flags: u8) -> Frame {
        let number = (self.first + usize::from(which >> 1) % self.count) % 16;
        CONVERSATIONS[number % 8].frame(number >= 8, which & 1 == 1, tcp_flags)
    }
}

/// What TCP sends, or any flags at all.
fn flags(how: u8) -> u8 {
    const USUAL: [u8; 8] = [
        tcp::ACK,
        tcp::SYN,
        tcp::SYN | tcp::ACK,
        tcp::FIN | tcp::ACK,
        tcp::RST,
        tcp::RST | tcp::ACK,
        tcp::ACK,
        tcp::SYN,
    ];
    if how < 192 { USUAL[usize::from(how % 8)] } else { how & 0x3f }
}

/// Some jiffies, or about as long as a time-out.
fn time(which: u8, how: u8, timeouts: &Timeouts) -> u64 {
    let Timeouts { opening, established, closing, answered } = *timeouts;
    let units = match which % 8 {
        0 => 0,
        1 => 1,
        2 | 3 => closing,
        4 => answered,
        5 | 6 => opening,
        _ => established,
    };
    // Up to a unit and a half less or more.
    (units * UNIT + UNIT + UNIT / 2).saturating_sub(3 * u64::from(how))
}

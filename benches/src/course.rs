//! The program that goes before the program under test: it makes each packet the next flow's, and
//! puts back what the packet before had changed.
//!
//! Its source is `benches/programs`; `cargo xtask build-ebpf --bench` builds it.

use std::{error::Error, net::IpAddr};

use crate::packets::Packet;
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramFd, SchedClassifier, TestRun, TestRunOptions},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// An ELF parser wants it aligned.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!("../objects/bench.o"));
/// The programs that drive the benches; their source is `benches/programs`.
pub static OBJECT: &[u8] = &ALIGNED.0;

/// Words of a packet that are restored.
const WORDS: usize = Packet::LEAST / 8;
const NUMBERS: usize = 9;
/// As the programs' map has it: some numbers, the packet's head, and what of it stays.
pub type Element = [u64; NUMBERS + 2 * WORDS];

/// What runs in one call.
#[derive(Clone, Debug)]
pub struct Course {
    /// The packet of the first flow.
    pub packet: Packet,
    /// Flows that take turns, from the packet's port on; when ports end, with the next address.
    pub flows: usize,
    /// The flow that comes next.
    pub next: usize,
    /// Bytes that the program under test puts in front of a frame (XDP).
    pub grown: usize,
}

impl Course {
    /// Of flows from the packet's own on.
    #[must_use]
    pub fn of(packet: &Packet, flows: usize) -> Self {
        Self { packet: packet.clone(), flows, next: 0, grown: 0 }
    }

    /// As the programs' map `COURSE` has it.
    ///
    /// # Panics
    /// If the packet is shorter than [`Packet::LEAST`].
    #[must_use]
    pub fn element(&self) -> Element {
        element(self)
    }
}

/// What came of a call.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Nanoseconds per packet, a whole number.
    pub nanoseconds: f64,
    /// What the program said to the last packet.
    pub action: i32,
}

/// The loaded program.
pub struct Driver {
    ebpf: Ebpf,
    program: &'static str,
    course: Array<MapData, Element>,
    tested: ProgramArray<MapData>,
}

impl Driver {
    /// Loads it.
    ///
    /// # Errors
    /// The kernel doesn't take it.
    pub fn load() -> Result<Self> {
        Self::start(Ebpf::load(OBJECT)?, "tc_next_packet")
    }

    /// Loads the one that gives each flow a destination of its own, of which there are as many as flows.
    ///
    /// # Errors
    /// The kernel doesn't take it.
    pub fn to_targets(targets: &[IpAddr]) -> Result<Self> {
        Self::start(load_with_targets(targets)?, "tc_next_target")
    }

    fn start(mut ebpf: Ebpf, name: &'static str) -> Result<Self> {
        let program: &mut SchedClassifier = ebpf.program_mut(name).ok_or(MISSING)?.try_into()?;
        program.load()?;
        let course = Array::try_from(ebpf.take_map("COURSE").ok_or(MISSING)?)?;
        let tested = ProgramArray::try_from(ebpf.take_map("TESTED").ok_or(MISSING)?)?;
        Ok(Self { ebpf, program: name, course, tested })
    }

    /// Runs a program on so many packets, from the course's next flow on.
    ///
    /// # Errors
    /// The kernel doesn't run it.
    pub fn run(&mut self, tested: &ProgramFd, course: &Course, runs: u32) -> Result<Run> {
        self.course.set(0, course.element(), 0)?;
        self.tested.set(0, tested, 0)?;
        let options = TestRunOptions {
            data_in: Some(&course.packet.bytes),
            repeat: runs,
            ..TestRunOptions::default()
        };
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(self.program).ok_or(MISSING)?.try_into()?;
        let result = program.test_run(options)?;
        Ok(Run {
            nanoseconds: result.duration.as_nanos() as f64,
            action: result.return_value as i32,
        })
    }
}

/// What is wrong if a program or a map is missing.
pub const MISSING: &str = "the bench's object isn't what it should be";

/// The object, with these destinations for flows.
///
/// # Errors
/// The kernel doesn't take it.
pub fn load_with_targets(targets: &[IpAddr]) -> Result<Ebpf> {
    let count = u32::try_from(targets.len())?;
    let mut ebpf = EbpfLoader::new().map_max_entries("TARGETS", count).load(OBJECT)?;
    let mut map: Array<_, [u64; 2]> = Array::try_from(ebpf.map_mut("TARGETS").ok_or(MISSING)?)?;
    for (index, target) in (0..).zip(targets) {
        map.set(index, in_memory(*target), 0)?;
    }
    Ok(ebpf)
}

/// An address as it lies in memory, an IPv4 one at the beginning.
#[must_use]
pub const fn in_memory(address: IpAddr) -> [u64; 2] {
    let bytes = match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    };
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

fn element(course: &Course) -> Element {
    let Course { packet, flows, next, grown } = course;
    let short = |at: usize| u64::from(u16::from_be_bytes([packet.bytes[at], packet.bytes[at + 1]]));
    let words = |bytes: &[u8]| -> [u64; WORDS] {
        std::array::from_fn(|n| {
            u64::from_ne_bytes(bytes[8 * n..8 * n + 8].try_into().expect("8 bytes"))
        })
    };
    let mut kept = [0xff; Packet::LEAST];
    for at in [packet.port_at, packet.address_at] {
        kept[at..at + 2].fill(0);
    }
    let numbers = [
        *flows as u64,
        *next as u64,
        short(packet.port_at),
        packet.port_at as u64,
        packet.address_at as u64,
        short(packet.address_at),
        u64::from(packet.vlan),
        packet.bytes.len() as u64,
        *grown as u64,
    ];
    let mut element = [0; NUMBERS + 2 * WORDS];
    element[..NUMBERS].copy_from_slice(&numbers);
    element[NUMBERS..NUMBERS + WORDS].copy_from_slice(&words(&packet.bytes));
    element[NUMBERS + WORDS..].copy_from_slice(&words(&kept));
    element
}

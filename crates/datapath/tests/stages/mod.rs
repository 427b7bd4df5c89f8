//! Stages that know nothing of flowgate: objects put together here, instruction by instruction; and a balancer
//! to put them around.
#![allow(dead_code, reason = "each test needs a part of it")]

use std::time::Instant;

use flowgate_datapath::{
    OpenError,
    lb::{Balanced, Builder, LoadBalancer, Stage, XdpAction},
};
use flowgate_services::{
    Services,
    model::{Backend, Service},
};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};

/// Code, registers (destination in the lower half, source in the upper one), offset, value.
pub(crate) type Insn = (u8, u8, i16, i32);

/// The name of an object's map.
pub(crate) const NOTES: &str = "NOTES";

const EXIT: Insn = (0x95, 0, 0, 0);

/// An object with one program in a section, and a hash of four elements from `u32` to `u64` that is named
/// `NOTES`.
pub(crate) fn object(section: &str, name: &str, program: &[Insn]) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let code: Vec<u8> = program.iter().flat_map(encoded).collect();
    let notes: Vec<u8> = [1u32, 4, 8, 4, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    let parts =
        [(section, SectionKind::Text, name, code), ("maps", SectionKind::Data, NOTES, notes)];
    for (section, kind, name, bytes) in parts {
        let section = object.add_section(vec![], section.into(), kind);
        let value = object.append_section_data(section, &bytes, 8);
        object.add_symbol(Symbol {
            name: name.into(),
            value,
            size: bytes.len() as u64,
            kind: if kind == SectionKind::Text { SymbolKind::Text } else { SymbolKind::Data },
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
    let license = object.add_section(vec![], "license".into(), SectionKind::Data);
    object.append_section_data(license, b"MIT\0", 1);
    object.write().expect("an object")
}

fn encoded(&(code, registers, offset, value): &Insn) -> [u8; 8] {
    let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&offset.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// Says the same of every frame.
pub(crate) fn says(name: &str, action: i32) -> Stage {
    Stage::object(object("xdp", name, &[(0xb7, 0, 0, action), EXIT]), name)
}

/// Appends a digit to the number that the first byte of a frame's source address is, to the base of four, and
/// says something.
pub(crate) fn counts(name: &str, digit: i32, action: XdpAction) -> Stage {
    let program = [
        (0x61, 0x12, 0, 0),  // r2 = data
        (0x61, 0x13, 4, 0),  // r3 = data_end
        (0xbf, 0x24, 0, 0),  // r4 = r2
        (0x07, 4, 0, 7),     // r4 += 7
        (0x2d, 0x34, 4, 0),  // if r4 > r3 goto the end
        (0x71, 0x25, 6, 0),  // r5 = *(u8 *)(r2 + 6)
        (0x67, 5, 0, 2),     // r5 <<= 2
        (0x47, 5, 0, digit), // r5 |= digit
        (0x73, 0x52, 6, 0),  // *(u8 *)(r2 + 6) = r5
        (0xb7, 0, 0, i32::from(action as u8)),
        EXIT,
    ];
    Stage::object(object("xdp.frags", name, &program), name)
}

/// A balancer with one service; `None`: it can't be had here, which is said.
pub(crate) fn open(compose: impl FnOnce(Builder) -> Builder) -> Option<LoadBalancer> {
    let builder = match std::env::var_os("FLOWGATE_OBJECT") {
        Some(path) => LoadBalancer::builder().object(std::fs::read(path).expect("it is there")),
        None => LoadBalancer::builder(),
    };
    match compose(builder.minimum_kernel(5, 10)).open() {
        Ok(mut balancer) => {
            let web = Service::udp("web", 53).address("198.51.100.1".parse().expect("an address"));
            let web = web.backend(Backend::new("198.18.0.1".parse().expect("an address")));
            let services = Services::new([web]).expect("a good service");
            let _ = balancer.apply(&services, Instant::now()).expect("it fits");
            Some(balancer)
        }
        Err(error @ OpenError::MissingCapability { .. }) => {
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A datagram to an address; the first byte of its source's Ethernet address is 0.
pub(crate) fn datagram(destination: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 0, 2, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 36];
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 198, 18, 5, 1]);
    frame.extend(destination);
    frame.extend([0x9c, 0x40, 0, 53, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    frame
}

/// To the service, and to nobody's address.
pub(crate) fn balanced(balancer: &mut LoadBalancer) -> Balanced {
    balancer.replay(&datagram([198, 51, 100, 1])).expect("it runs")
}

pub(crate) fn passed(balancer: &mut LoadBalancer) -> Balanced {
    balancer.replay(&datagram([198, 51, 100, 2])).expect("it runs")
}

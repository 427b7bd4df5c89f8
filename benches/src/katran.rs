//! Katran's program, loaded and configured for the packets of [`crate::balanced_rows`]: what the balancer is compared
//! with.
//!
//! Not here: Katran. Its object is built from its own sources (docs/measurements.md says how); names and
//! layouts of its maps are those of `katran/lib/bpf/balancer_maps.h` and `balancer_structs.h` of August 2026.

use std::{error::Error, net::IpAddr, path::Path};

use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData},
    programs::{ProgramFd, Xdp},
    util::nr_cpus,
};

use crate::{
    balanced_rows::{backend, vip},
    balancing::FrameDriver,
    course::Course,
    sampling::{Sample, Sampling},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PROGRAM: &str = "balancer_ingress";
const MISSING: &str = "the object isn't Katran's balancer";
/// `RING_SIZE`: slots of a VIP.
const RING: u32 = 65537;
/// Backends of a VIP.
const REALS: u32 = 10;
/// Connections that a CPU remembers: those of all rows, and more.
const REMEMBERED: u32 = 1 << 20;
/// `F_IPV6` of a real.
const IPV6: u8 = 1;
/// Ports of its VIPs, and their protocol's number.
const VIPS: [(u16, u8); 3] = [(80, 6), (80, 17), (443, 6)];

/// `BPF_MAP_TYPE_LRU_HASH` (`include/uapi/linux/bpf.h`).
const LRU_HASH: u32 = 9;
/// Bytes of `struct flow_key`.
const FLOW_KEY: u32 = 40;
/// Bytes of `struct real_pos_lru`.
const REAL_POS_LRU: u32 = 16;

/// Katran in the kernel.
pub struct Katran {
    driver: FrameDriver,
    _maps: Ebpf,
    entry: ProgramFd,
    empty: ProgramFd,
}

impl Katran {
    /// Loads an object, with VIPs and reals like the balancer's services and backends, to be compared with an empty
    /// program.
    ///
    /// # Errors
    /// It can't be read, isn't Katran's, or the kernel doesn't take it.
    pub fn load(object: &Path, empty: ProgramFd) -> Result<Self> {
        let mut ebpf = Ebpf::load(&std::fs::read(object)?)?;
        configure(&mut ebpf)?;
        let program: &mut Xdp = ebpf.program_mut(PROGRAM).ok_or(MISSING)?.try_into()?;
        program.load()?;
        let entry = program.fd()?.try_clone()?;
        Ok(Self { driver: FrameDriver::load()?, _maps: ebpf, entry, empty })
    }

    /// One round: the program and the empty one.
    ///
    /// # Errors
    /// The kernel doesn't run it.
    pub fn time(&mut self, course: &mut Course, sampling: Sampling) -> Result<(Sample, i32)> {
        self.driver.time([&self.entry, &self.empty], course, sampling)
    }
}

fn configure(ebpf: &mut Ebpf) -> Result<()> {
    let mut gateway: Array<_, [u8; 8]> = Array::try_from(map(ebpf, "ctl_array")?)?;
    gateway.set(0, [2, 0, 0, 0, 0, 0xfe, 0, 0], 0)?;
    let mut vips: HashMap<_, [u8; 20], [u32; 2]> = HashMap::try_from(map(ebpf, "vip_map")?)?;
    let families = [false, true].into_iter().flat_map(|v6| VIPS.map(|vip| (v6, vip)));
    for (number, (v6, (port, protocol))) in (0..).zip(families.clone()) {
        let [high, low] = port.to_be_bytes();
        let key = in_struct(vip(v6), [high, low, protocol, 0]);
        vips.insert(key, [0, number], 0)?;
    }
    let mut reals: Array<_, [u8; 20]> = Array::try_from(map(ebpf, "reals")?)?;
    for (index, v6) in [false, true].into_iter().enumerate() {
        for number in 0..REALS {
            let flags = if v6 { IPV6 } else { 0 };
            let real = in_struct(backend(v6, number as usize), [flags, 0, 0, 0]);
            // Number 0 is nobody.
            reals.set(1 + index as u32 * REALS + number, real, 0)?;
        }
    }
    let mut rings: Array<_, u32> = Array::try_from(map(ebpf, "ch_rings")?)?;
    for (number, (v6, _)) in (0..).zip(families) {
        for slot in 0..RING {
            let real = 1 + u32::from(v6) * REALS + slot % REALS;
            rings.set(number * RING + slot, real, 0)?;
        }
    }
    remember(ebpf)
}

/// A memory of connections for each CPU.
fn remember(ebpf: &mut Ebpf) -> Result<()> {
    let mut memories: ArrayOfMaps<_> = ArrayOfMaps::try_from(map(ebpf, "lru_mapping")?)?;
    for cpu in 0..nr_cpus().map_err(|(_, error)| error)? {
        let memory = aya_obj::Map::new_from_params(LRU_HASH, FLOW_KEY, REAL_POS_LRU, REMEMBERED, 0);
        memories.set(cpu as u32, &MapData::create(memory, "memory", None)?, 0)?;
    }
    Ok(())
}

fn map<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Map> {
    ebpf.map_mut(name).ok_or_else(|| format!("{MISSING}: no map {name}").into())
}

/// An address in 16 bytes, and what follows it.
fn in_struct(address: IpAddr, rest: [u8; 4]) -> [u8; 20] {
    let mut bytes = [0; 20];
    match address {
        IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes[..16].copy_from_slice(&v6.octets()),
    }
    bytes[16..].copy_from_slice(&rest);
    bytes
}

//! What flowgate is compared with: the scheme that Cilium has, as a program of the bench's own.
//!
//! An identity for each network, in an LPM trie; for each identity a policy entry for TCP port 80, in
//! another one.

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::lpm_trie::{Key, LpmTrie},
    programs::{ProgramFd, SchedClassifier},
};
use flowgate_benches::course::{MISSING, OBJECT, in_memory};
use ipnet::IpNet;

use crate::Result;

/// As the programs' maps have them.
type Address = [u32; 5];
type Service = [u32; 2];

/// Both programs, over the same tries.
pub(crate) struct Tries {
    /// The verdict alone.
    pub(crate) judging: ProgramFd,
    /// With conntrack.
    pub(crate) tracking: ProgramFd,
    /// Holds them.
    _ebpf: Ebpf,
}

impl Tries {
    /// With an identity for each network, and room for so many connections.
    pub(crate) fn load(networks: &[IpNet], connections: usize) -> Result<Self> {
        let count = u32::try_from(networks.len())?;
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("IDENTITIES", count).map_max_entries("POLICIES", count);
        loader.map_max_entries("CONNECTIONS", u32::try_from(2 * connections)?);
        let mut ebpf = loader.load(OBJECT)?;
        let mut identities = trie::<Address, [u32; 6]>(&mut ebpf, "IDENTITIES")?;
        for (identity, network) in (1..).zip(networks) {
            identities.insert(&address(*network), [identity, 0, 0, 0, 0, 0], 0)?;
        }
        let mut policies = trie::<Service, [u32; 3]>(&mut ebpf, "POLICIES")?;
        for identity in 1..=count {
            // Egress, TCP, port 80; precedence, allowed.
            let service = 1 | 6 << 8 | u32::from(80_u16.to_be()) << 16;
            policies.insert(&Key::new(64, [identity, service]), [1, 1, 0], 0)?;
        }
        let [judging, tracking] =
            [load(&mut ebpf, "tc_tries")?, load(&mut ebpf, "tc_tries_tracked")?];
        Ok(Self { judging, tracking, _ebpf: ebpf })
    }
}

fn trie<'a, K: Pod, V: Pod>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<LpmTrie<&'a mut aya::maps::MapData, K, V>> {
    Ok(LpmTrie::try_from(ebpf.map_mut(name).ok_or(MISSING)?)?)
}

fn address(network: IpNet) -> Key<Address> {
    let [first, last] = in_memory(network.addr());
    let words = [first as u32, (first >> 32) as u32, last as u32, (last >> 32) as u32];
    let v6 = u32::from(matches!(network, IpNet::V6(_)));
    let bits = 32 + u32::from(network.prefix_len());
    Key::new(bits, [v6, words[0], words[1], words[2], words[3]])
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<ProgramFd> {
    let program: &mut SchedClassifier = ebpf.program_mut(name).ok_or(MISSING)?.try_into()?;
    program.load()?;
    Ok(program.fd()?.try_clone()?)
}

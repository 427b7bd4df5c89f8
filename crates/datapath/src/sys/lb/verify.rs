//! The balancer's programs handed to the verifier, one by one, with its log kept.

use flowgate_abi::lb::maps;
use flowgate_ebpf_progs::lb as progs;

use super::kernel::make_maps;
use crate::{
    error::OpenError,
    lb::BalancerOptions,
    sys::{object::map_data, syscall::ProgramKind, verify},
    verification::Verification,
};

/// Loads each program by itself, and drops it.
pub(crate) fn verify(
    object: &[u8],
    options: &BalancerOptions,
    hertz: u32,
) -> Result<Vec<Verification>, OpenError> {
    let ebpf = make_maps(object, options, &options.settings(hertz), None)?;
    let typed = map_data(&ebpf, maps::FRONTENDS.name);
    verify::all(&progs::PROGRAMS, ProgramKind::XdpFrags, (object, &ebpf), typed)
}

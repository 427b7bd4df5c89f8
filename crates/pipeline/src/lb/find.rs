//! Whose packet it is: a perfect hash of two loads. What isn't a service's mostly costs the first alone.
//!
//! A target's hash chooses a bucket; the bucket's displacement multiplies the hash's other half into the
//! index of its frontend. User space chooses displacements so that no two frontends meet
//! (`flowgate-services`).

use flowgate_abi::lb::{Frontend, Settings, Target};

use super::{Balance, Balanceable};

/// The bucket that a target's displacement lies in.
#[inline(always)]
#[must_use]
pub const fn bucket(hash: u64, settings: &Settings) -> u32 {
    hash as u32 & settings.displacement_mask
}

/// The index of a target's frontend, by its hash and its bucket's displacement.
#[inline(always)]
#[must_use]
pub const fn index(hash: u64, displacement: u32, settings: &Settings) -> u32 {
    ((hash >> 32) as u32).wrapping_mul(displacement) >> settings.frontend_shift
}

/// The frontend of a target.
#[inline(always)]
pub fn exact<'t, F: Balanceable, T: Balance>(
    tables: &'t T,
    target: &Target,
) -> Option<&'t Frontend> {
    let hash = F::target_hash(target);
    let settings = tables.settings();
    let displacement = tables.displacement(bucket(hash, settings));
    if displacement == 0 {
        return None;
    }
    let frontend = tables.frontend(index(hash, displacement, settings))?;
    (frontend.target == *target).then_some(frontend)
}

/// The frontend of a target, or that which has all ports of its address.
#[inline(always)]
pub fn find<'t, F: Balanceable, T: Balance>(
    tables: &'t T,
    target: &Target,
) -> Option<&'t Frontend> {
    if let Some(frontend) = exact::<F, T>(tables, target) {
        return Some(frontend);
    }
    if tables.head()?.wildcards.load() == 0 {
        return None;
    }
    exact::<F, T>(tables, &Target { kind: target.kind & !0xffff, ..*target })
}

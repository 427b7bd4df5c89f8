//! Attaching a program at TC: TCX where the kernel has it (6.6), else clsact.
//!
//! A TCX link detaches when its last descriptor or pin goes. A clsact filter is no link and stays
//! until it is removed; ours have a preference and handle of their own, by which they are found again and
//! replaced in place.

use std::{io, path::Path};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
};

use crate::endpoint::HookKind;

/// How a clsact filter is known: its preference (priority) and handle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    pub(super) preference: u16,
    pub(super) handle: u32,
}

impl Filter {
    /// The filter on an interface, which is removed when this is dropped.
    pub(super) fn found(
        self,
        interface: &str,
        direction: TcAttachType,
    ) -> io::Result<SchedClassifierLink> {
        let handle = TcHandle::from(self.handle);
        SchedClassifierLink::attached(interface, direction, self.preference, handle, None)
    }
}

/// Where a program is attached.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    pub(super) interface: &'a str,
    pub(super) direction: TcAttachType,
    /// In front of whoever is there under TCX; otherwise behind.
    pub(super) first: bool,
    pub(super) filter: Filter,
}

/// A link, and which mechanism it is.
pub(super) type Made = Result<(SchedClassifierLink, HookKind), io::Error>;

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// A pinned link gets our program, atomically.
pub(super) fn take_over(program: &mut SchedClassifier, pin: &Path) -> Made {
    let link: FdLink = PinnedLink::from_pin(pin).map_err(other)?.into();
    let id = program.attach_to_link(link.try_into().map_err(other)?).map_err(other)?;
    Ok((program.take_link(id).map_err(other)?, HookKind::Tcx))
}

/// Pins a link, unless it is.
pub(super) fn pinned(link: SchedClassifierLink, pin: &Path) -> io::Result<SchedClassifierLink> {
    let link: FdLink = link.try_into().map_err(other)?;
    if pin.exists() {
        return link.try_into().map_err(other);
    }
    let pinned = link.pin(pin).map_err(other)?;
    FdLink::from(pinned).try_into().map_err(other)
}

/// Attaches a program by a mechanism; by clsact, if the kernel has no TCX and nothing `only` will do.
pub(super) fn fresh(
    program: &mut SchedClassifier,
    spot: Spot<'_>,
    kind: HookKind,
    only: Option<HookKind>,
) -> Made {
    if kind == HookKind::Tcx {
        let order = if spot.first { LinkOrder::first() } else { LinkOrder::default() };
        let order = TcAttachOptions::TcxOrder(order);
        match program.attach_with_options(spot.interface, spot.direction, order) {
            Ok(id) => return Ok((program.take_link(id).map_err(other)?, HookKind::Tcx)),
            Err(error) if only.is_some() || !without_tcx(&error) => return Err(other(error)),
            Err(_) => {}
        }
    }
    clsact(program, spot)
}

/// The kernel doesn't know the attach type: EINVAL before 6.6.
fn without_tcx(error: &ProgramError) -> bool {
    match error {
        ProgramError::SyscallError(error) => {
            matches!(error.io_error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
        }
        _ => false,
    }
}

fn clsact(program: &mut SchedClassifier, spot: Spot<'_>) -> Made {
    let Spot { interface, direction, filter, .. } = spot;
    // There may be one already, ours or another's.
    let _ = tc::qdisc_add_clsact(interface);
    let options = NlOptions {
        priority: filter.preference,
        handle: TcHandle::from(filter.handle),
        ..NlOptions::default()
    };
    let attached =
        program.attach_with_options(interface, direction, TcAttachOptions::Netlink(options));
    let id = match attached {
        Ok(id) => id,
        // A leftover of ours: replaced in place.
        Err(first) => {
            let Ok(leftover) = filter.found(interface, direction) else {
                return Err(other(first));
            };
            program.attach_to_link(leftover).map_err(|_| other(first))?
        }
    };
    Ok((program.take_link(id).map_err(other)?, HookKind::Clsact))
}

//! Attaching the two programs to a link: TCX where the kernel has it (6.6), else clsact.
//!
//! A TCX link detaches when its last descriptor or pin goes. A clsact filter is no link and stays
//! until it is removed; ours has a preference and handle of its own, by which it is found again and
//! replaced in place.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
};
use flowgate_ebpf_progs as progs;

use super::{kernel::KernelTables, syscall};
use crate::{
    endpoint::HookKind,
    error::{AttachError, OpenError},
};

/// Preference (priority) and handle of our clsact filters.
const PREFERENCE: u16 = 0xf10a;
const HANDLE: u32 = 1;

/// Both programs on one link. Detaches when dropped, unless [`Attachment::keep`] was called or the
/// links are pinned.
#[derive(Debug)]
pub(crate) struct Attachment {
    links: Vec<Option<SchedClassifierLink>>,
    pins: Vec<PathBuf>,
    /// Which mechanism it is.
    pub(crate) kind: HookKind,
}

impl Attachment {
    /// Leaves the programs attached when this is dropped.
    pub(crate) fn keep(mut self) {
        self.pins.clear();
        // A TCX link lives on by its pin; a clsact filter would be removed when dropped.
        if self.kind == HookKind::Clsact {
            self.links.drain(..).flatten().for_each(std::mem::forget);
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        for pin in self.pins.drain(..) {
            // What can't be unpinned is found and reported by the next one who opens.
            let _ = std::fs::remove_file(pin);
        }
    }
}

/// The programs of a link, each with its direction; what goes to the endpoint first, so that the
/// endpoint is never open in one direction only.
const HOOKS: [(&str, TcAttachType, &str); 2] = [
    (progs::TC_TO_ENDPOINT, TcAttachType::Egress, "to"),
    (progs::TC_FROM_ENDPOINT, TcAttachType::Ingress, "from"),
];

/// A link.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) interface: &'a str,
    pub(crate) ifindex: u32,
    /// The endpoint lies on this side of it.
    pub(crate) is_uplink: bool,
}

impl Place<'_> {
    /// Where a program goes: behind an uplink is the world, and not the endpoint.
    fn direction(self, of_endpoint: TcAttachType) -> TcAttachType {
        match of_endpoint {
            TcAttachType::Egress if self.is_uplink => TcAttachType::Ingress,
            TcAttachType::Ingress if self.is_uplink => TcAttachType::Egress,
            direction => direction,
        }
    }
}

/// Attaches both programs to an interface, or takes over what is pinned for it.
pub(crate) fn attach(
    tables: &mut KernelTables,
    place: Place<'_>,
    pins: Option<&Path>,
    only: Option<HookKind>,
) -> Result<Attachment, AttachError> {
    let Place { interface, ifindex, .. } = place;
    let mut attachment =
        Attachment { links: Vec::new(), pins: Vec::new(), kind: only.unwrap_or(HookKind::Tcx) };
    for (name, direction, short) in HOOKS {
        let program = tables.program_mut(name);
        let pin = pins.map(|pins| pin(pins, ifindex, short));
        let link = match &pin {
            Some(pin) if pin.exists() => take_over(program, pin),
            _ => {
                let direction = place.direction(direction);
                fresh(program, interface, direction, &mut attachment.kind, only)
            }
        };
        let failed = |source| AttachError::Hook { interface: interface.to_owned(), source };
        let (link, kind) = link.map_err(failed)?;
        attachment.kind = kind;
        attachment.links.push(Some(link));
        if let (Some(pin), HookKind::Tcx) = (pin, kind) {
            let last = attachment.links.last_mut().expect("just pushed");
            let link = last.take().expect("just pushed");
            attachment.pins.push(pin.clone());
            *last = Some(pinned(link, &pin).map_err(failed)?);
        }
    }
    Ok(attachment)
}

fn pin(pins: &Path, ifindex: u32, short: &str) -> PathBuf {
    pins.join(format!("{ifindex}-{short}"))
}

/// Gives every pinned link our program of its direction, each atomically. A link whose interface is
/// gone takes no program any more, and whoever attaches its endpoint again hears why.
pub(crate) fn renew(tables: &mut KernelTables, pins: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Pin { path: pins.to_owned(), source };
    for entry in std::fs::read_dir(pins).map_err(failed)? {
        let pin = entry.map_err(failed)?.path();
        let name = pin.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let hook = HOOKS.iter().find(|(_, _, short)| name.ends_with(&format!("-{short}")));
        if let Some((program, ..)) = hook {
            drop(take_over(tables.program_mut(program), &pin));
        }
    }
    Ok(())
}

/// Removes what an earlier process attached to an interface: the pins, with which the links go, and
/// the clsact filters.
pub(crate) fn remove(pins: &Path, ifindex: u32) {
    let interface = syscall::interface_name(ifindex);
    for (_, direction, short) in HOOKS {
        // The interface may be gone, and what was attached with it; then there is nothing to remove.
        let _ = std::fs::remove_file(pin(pins, ifindex, short));
        if let Some(interface) = &interface {
            let handle = TcHandle::from(HANDLE);
            drop(SchedClassifierLink::attached(interface, direction, PREFERENCE, handle, None));
        }
    }
}

type Made = Result<(SchedClassifierLink, HookKind), io::Error>;

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// A pinned link gets our program, atomically.
fn take_over(program: &mut SchedClassifier, pin: &Path) -> Made {
    let link: FdLink = PinnedLink::from_pin(pin).map_err(other)?.into();
    let id = program.attach_to_link(link.try_into().map_err(other)?).map_err(other)?;
    Ok((program.take_link(id).map_err(other)?, HookKind::Tcx))
}

/// Pins a link, unless it is.
fn pinned(link: SchedClassifierLink, pin: &Path) -> io::Result<SchedClassifierLink> {
    let link: FdLink = link.try_into().map_err(other)?;
    if pin.exists() {
        return link.try_into().map_err(other);
    }
    let pinned = link.pin(pin).map_err(other)?;
    FdLink::from(pinned).try_into().map_err(other)
}

fn fresh(
    program: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
    kind: &mut HookKind,
    only: Option<HookKind>,
) -> Made {
    if *kind == HookKind::Tcx {
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        match program.attach_with_options(interface, direction, order) {
            Ok(id) => return Ok((program.take_link(id).map_err(other)?, HookKind::Tcx)),
            Err(error) if only.is_some() || !without_tcx(&error) => return Err(other(error)),
            Err(_) => {}
        }
    }
    clsact(program, interface, direction)
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

fn clsact(program: &mut SchedClassifier, interface: &str, direction: TcAttachType) -> Made {
    // There may be one already, ours or another's.
    let _ = tc::qdisc_add_clsact(interface);
    let options =
        NlOptions { priority: PREFERENCE, handle: TcHandle::from(HANDLE), ..NlOptions::default() };
    let attached =
        program.attach_with_options(interface, direction, TcAttachOptions::Netlink(options));
    let id = match attached {
        Ok(id) => id,
        // A leftover of ours: replaced in place.
        Err(first) => {
            let handle = TcHandle::from(HANDLE);
            let leftover =
                SchedClassifierLink::attached(interface, direction, PREFERENCE, handle, None);
            let Ok(leftover) = leftover else { return Err(other(first)) };
            program.attach_to_link(leftover).map_err(|_| other(first))?
        }
    };
    Ok((program.take_link(id).map_err(other)?, HookKind::Clsact))
}

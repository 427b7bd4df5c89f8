//! Attaching the two programs to a link, by [`super::tc`].

use std::path::{Path, PathBuf};

use aya::programs::{TcAttachType, tc::SchedClassifierLink};
use flowgate_ebpf_progs as progs;

use super::{
    kernel::KernelTables,
    syscall,
    tc::{self, Filter, Spot},
};
use crate::{
    endpoint::HookKind,
    error::{AttachError, OpenError},
};

/// How our clsact filters are known.
const FILTER: Filter = Filter { preference: 0xf10a, handle: 1 };

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
            Some(pin) if pin.exists() => tc::take_over(program, pin),
            _ => {
                let direction = place.direction(direction);
                let spot = Spot { interface, direction, first: false, filter: FILTER };
                tc::fresh(program, spot, attachment.kind, only)
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
            *last = Some(tc::pinned(link, &pin).map_err(failed)?);
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
            drop(tc::take_over(tables.program_mut(program), &pin));
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
            drop(FILTER.found(interface, direction));
        }
    }
}

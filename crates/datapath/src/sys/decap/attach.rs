//! Attaching a program to an interface, where only one of the two is.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::programs::{SchedClassifier, TcAttachType, Xdp, tc::SchedClassifierLink};

use crate::{
    decap::Way,
    endpoint::HookKind,
    lb::XdpAttach,
    sys::{
        lb,
        tc::{self, Filter, Spot},
    },
};

/// How our clsact filter is known: in front of the policy datapath's.
const FILTER: Filter = Filter { preference: 0xf109, handle: 1 };

/// An interface, and where its links are pinned.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) interface: &'a str,
    pub(super) ifindex: u32,
    pub(super) pins: Option<&'a Path>,
}

impl Place<'_> {
    fn tc_pin(self) -> Option<PathBuf> {
        self.pins.map(|pins| pins.join(format!("{}-tc", self.ifindex)))
    }
}

/// A program on one interface. Detaches when dropped, unless [`Attachment::keep`] was called.
#[derive(Debug)]
pub(crate) enum Attachment {
    Xdp(lb::Attachment),
    Tc(AtTc),
}

/// The program at TC.
#[derive(Debug)]
pub(crate) struct AtTc {
    link: Option<SchedClassifierLink>,
    pin: Option<PathBuf>,
    kind: HookKind,
    adopted: bool,
}

impl Drop for AtTc {
    fn drop(&mut self) {
        if let Some(pin) = self.pin.take() {
            // What can't be unpinned is found and reported by the next one who attaches.
            let _ = std::fs::remove_file(pin);
        }
    }
}

impl Attachment {
    /// By what it runs.
    pub(crate) fn way(&self) -> Way {
        match self {
            Self::Xdp(attachment) => Way::Xdp(attachment.mode),
            Self::Tc(attachment) if attachment.kind == HookKind::Tcx => Way::Tcx,
            Self::Tc(_) => Way::Clsact,
        }
    }

    /// An earlier process had attached it.
    pub(crate) const fn adopted(&self) -> bool {
        match self {
            Self::Xdp(attachment) => attachment.adopted,
            Self::Tc(attachment) => attachment.adopted,
        }
    }

    /// Leaves the program attached when this is dropped.
    pub(crate) fn keep(self) {
        match self {
            Self::Xdp(attachment) => attachment.keep(),
            Self::Tc(mut attachment) => {
                attachment.pin = None;
                // A TCX link lives on by its pin; a clsact filter would be removed when dropped.
                if attachment.kind == HookKind::Clsact {
                    std::mem::forget(attachment.link.take());
                }
            }
        }
    }
}

/// Attaches the program at XDP; what an earlier process had at TC goes then.
pub(super) fn xdp(program: &mut Xdp, place: Place<'_>, how: XdpAttach) -> io::Result<Attachment> {
    let program = program.fd().map_err(io::Error::other)?;
    let attachment = lb::attach(program.as_fd(), place.ifindex, place.pins, how)?;
    if let Some(pin) = place.tc_pin() {
        // Neither needs to be there.
        let _ = std::fs::remove_file(pin);
        drop(FILTER.found(place.interface, TcAttachType::Ingress));
    }
    Ok(Attachment::Xdp(attachment))
}

/// Attaches the program at TC; what an earlier process had at XDP goes then.
pub(super) fn tc(program: &mut SchedClassifier, place: Place<'_>) -> io::Result<Attachment> {
    let pin = place.tc_pin();
    let attachment = match pin.filter(|pin| pin.exists()) {
        Some(pin) => {
            let (link, kind) = tc::take_over(program, &pin)?;
            AtTc { link: Some(link), pin: Some(pin), kind, adopted: true }
        }
        None => fresh(program, place)?,
    };
    if let Some(pins) = place.pins {
        lb::forget(pins, place.ifindex);
    }
    Ok(Attachment::Tc(attachment))
}

fn fresh(program: &mut SchedClassifier, place: Place<'_>) -> io::Result<AtTc> {
    let direction = TcAttachType::Ingress;
    let spot = Spot { interface: place.interface, direction, first: true, filter: FILTER };
    let (mut link, kind) = tc::fresh(program, spot, HookKind::Tcx, None)?;
    let pin = place.tc_pin().filter(|_| kind == HookKind::Tcx);
    if let Some(pin) = &pin {
        link = tc::pinned(link, pin)?;
    }
    Ok(AtTc { link: Some(link), pin, kind, adopted: false })
}

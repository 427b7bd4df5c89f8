//! The balancer's place in a dispatcher: a program of six instructions stands there that runs what is in a slot of the
//! balancer's.
//!
//! So what frames meet first of the balancer changes without anything of the dispatcher's: stages, samples, a process
//! that takes over. Who dies and has pinned nothing leaves an empty slot, behind which the dispatcher goes on; the next
//! one that joins takes it out.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{Component, Slot, change, is_occupied, program};
use crate::{
    lb::{DispatcherError, Place, XdpAttach, XdpMode},
    sys::syscall::{self, xdp},
};

/// A place that is taken until this is dropped, unless [`Seat::keep`] was called.
#[derive(Debug)]
pub(in crate::sys::lb) struct Seat {
    ifindex: u32,
    /// The number of what stands in the place.
    program: u32,
    /// The kernel empties it when nobody in user space holds it.
    slot: OwnedFd,
    pins: Option<Pins>,
    left: bool,
}

/// Where one is.
#[derive(Clone, Copy, Debug)]
pub(in crate::sys::lb) struct Seated {
    pub(in crate::sys::lb) mode: XdpMode,
    pub(in crate::sys::lb) adopted: bool,
    pub(in crate::sys::lb) position: usize,
    pub(in crate::sys::lb) programs: usize,
}

#[derive(Clone, Debug)]
struct Pins {
    program: PathBuf,
    slot: PathBuf,
}

impl Pins {
    fn new(links: &Path, ifindex: u32) -> Self {
        let pin = |what| links.join(format!("{ifindex}-dispatched-{what}"));
        Self { program: pin("program"), slot: pin("slot") }
    }

    fn remove(&self) {
        for path in [&self.program, &self.slot] {
            // There need not be one.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What stands in the place, and its slot.
struct Ours {
    program: OwnedFd,
    slot: OwnedFd,
}

impl Ours {
    fn pinned(pins: &Pins) -> Option<Self> {
        Some(Self { program: found(&pins.program)?, slot: found(&pins.slot)? })
    }

    fn load(pins: Option<&Pins>) -> Result<Self, DispatcherError> {
        let slot = xdp::program_array("dispatched", 1)?;
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied => DispatcherError::NotPermitted { source: error },
            _ => DispatcherError::Kernel(error),
        };
        let program = program::load_ours(slot.as_fd()).map_err(refused)?;
        if let Some(pins) = pins {
            // Of an attempt that was killed.
            pins.remove();
            syscall::pin(slot.as_fd(), &pins.slot)?;
            syscall::pin(program.as_fd(), &pins.program)?;
        }
        Ok(Self { program, slot })
    }
}

impl Seat {
    /// Takes a place for a program, or the one that an earlier process had. `None`: the interface has another program
    /// than a dispatcher.
    pub(in crate::sys::lb) fn take(
        program: BorrowedFd<'_>,
        ifindex: u32,
        links: Option<&Path>,
        (how, place): (XdpAttach, Place),
    ) -> Result<Option<(Self, Seated)>, DispatcherError> {
        if is_occupied(ifindex)? {
            return Ok(None);
        }
        let pins = links.map(|links| Pins::new(links, ifindex));
        let ours = pins.as_ref().and_then(Ours::pinned);
        let ours = ours.map_or_else(|| Ours::load(pins.as_ref()), Ok)?;
        let id = syscall::program_id(ours.program.as_fd())?;
        let seat = Self { ifindex, program: id, slot: ours.slot, pins, left: false };
        seat.renew(program)?;
        let slot = Slot { actions: place.goes_on(), priority: place.priority, frags: true };
        let mut adopted = false;
        let changed = change(ifindex, how, |components| {
            let there = components.iter_mut().find(|component| component.id == id);
            adopted = there.is_some();
            if let Some(there) = there {
                let is_other = there.slot != slot;
                there.slot = slot;
                return Ok(is_other);
            }
            components.retain(|one| !program::is_left_behind(one.program.as_fd()).unwrap_or(false));
            components.push(Component::new(ours.program.try_clone()?, slot)?);
            Ok(true)
        })?;
        let position = changed.programs.iter().position(|one| *one == id).unwrap_or_default();
        let mode = changed.mode.unwrap_or(XdpMode::Native);
        let programs = changed.programs.len();
        Ok(Some((seat, Seated { mode, adopted, position, programs })))
    }

    /// Has the dispatcher run another program in the place, atomically.
    pub(in crate::sys::lb) fn renew(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let program = program.as_raw_fd().to_ne_bytes();
        syscall::update(self.slot.as_fd(), &0u32.to_ne_bytes(), &program)
    }

    /// Leaves the place taken when this is dropped.
    pub(in crate::sys::lb) fn keep(mut self) {
        self.left = true;
    }

    /// Has the dispatcher go on without it. Whatever comes of that, the balancer's program doesn't run there any more.
    pub(in crate::sys::lb) fn leave(&mut self) -> Result<(), DispatcherError> {
        if std::mem::replace(&mut self.left, true) {
            return Ok(());
        }
        let left = self.out_of_dispatcher();
        let emptied = syscall::delete(self.slot.as_fd(), &0u32.to_ne_bytes());
        self.pins.iter().for_each(Pins::remove);
        left.and(emptied.map_err(DispatcherError::Kernel))
    }

    fn out_of_dispatcher(&self) -> Result<(), DispatcherError> {
        // Somebody has taken it off, or the interface is gone.
        if is_occupied(self.ifindex).unwrap_or(true) {
            return Ok(());
        }
        let without = change(self.ifindex, XdpAttach::Any, |components| {
            let before = components.len();
            components.retain(|component| component.id != self.program);
            Ok(components.len() < before)
        });
        without.map(drop)
    }
}

/// A pin that there may be.
fn found(path: &Path) -> Option<OwnedFd> {
    path.exists().then(|| xdp::pinned(path).ok()).flatten()
}

impl Drop for Seat {
    fn drop(&mut self) {
        // The slot is emptied with its last descriptor: what stays in the place goes on to the next one.
        let _ = self.leave();
    }
}

//! Attaching a program to an interface: by a link (Linux 5.9), which detaches when its last descriptor or pin
//! goes, or in a place of a dispatcher ([`super::dispatcher`]).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::dispatcher::{Seat, Seated};
use crate::{
    lb::{Beside, DispatcherError, Place, XdpAttach, XdpMode},
    sys::syscall::{self, xdp},
};

/// The program on one interface. Detaches when dropped, unless [`Attachment::keep`] was called.
#[derive(Debug)]
pub(crate) struct Attachment {
    hold: Hold,
    pub(crate) mode: XdpMode,
    /// An earlier process had attached it.
    pub(crate) adopted: bool,
    pub(crate) beside: Beside,
}

/// By what it is there.
#[derive(Debug)]
enum Hold {
    Link(Held),
    Seat(Seat),
}

#[derive(Debug)]
struct Held {
    link: OwnedFd,
    pin: Option<PathBuf>,
}

impl Attachment {
    /// Has the interface run another program, atomically.
    pub(crate) fn renew(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        match &self.hold {
            Hold::Link(held) => xdp::update_link(held.link.as_fd(), program),
            Hold::Seat(seat) => seat.renew(program),
        }
    }

    /// Leaves the program attached when this is dropped: it lives on by its pin.
    pub(crate) fn keep(self) {
        match self.hold {
            Hold::Link(mut held) => held.pin = None,
            Hold::Seat(seat) => seat.keep(),
        }
    }

    /// Detaches it.
    pub(crate) fn detach(self) -> Result<(), DispatcherError> {
        match self.hold {
            Hold::Link(_) => Ok(()),
            Hold::Seat(mut seat) => seat.leave(),
        }
    }

    const fn linked(held: Held, mode: XdpMode, adopted: bool) -> Self {
        Self { hold: Hold::Link(held), mode, adopted, beside: Beside::Nobody }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(pin) = self.pin.take() {
            // What can't be unpinned is found and reported by the next one who opens.
            let _ = std::fs::remove_file(pin);
        }
    }
}

/// Why a program couldn't be attached.
#[derive(Debug)]
pub(crate) enum AttachError {
    /// What the kernel said.
    Kernel(io::Error),
    /// There is a dispatcher, or there was to be one.
    Dispatcher(DispatcherError),
}

impl From<io::Error> for AttachError {
    fn from(error: io::Error) -> Self {
        Self::Kernel(error)
    }
}

/// Gives the program a place in the interface's dispatcher, which is made if there is none. A kernel that doesn't permit
/// it has it attached alone.
pub(super) fn attach_beside(
    program: BorrowedFd<'_>,
    ifindex: u32,
    pins: Option<&Path>,
    (how, place): (XdpAttach, Place),
) -> Result<Attachment, AttachError> {
    match Seat::take(program, ifindex, pins, (how, place)) {
        Ok(Some((seat, Seated { mode, adopted, position, programs }))) => {
            let beside = Beside::Dispatched { position, programs };
            Ok(Attachment { hold: Hold::Seat(seat), mode, adopted, beside })
        }
        // By our link, or the kernel says whose the interface is.
        Ok(None) => {
            attach(program, ifindex, pins, how).map_err(|error| alone(error, ifindex, pins))
        }
        Err(DispatcherError::NotPermitted { .. }) => {
            let alone = attach(program, ifindex, pins, how)?;
            Ok(Attachment { beside: Beside::NotPermitted, ..alone })
        }
        Err(error) => Err(AttachError::Dispatcher(error)),
    }
}

/// A link takes programs of one kind, and a place's are of another.
fn alone(error: io::Error, ifindex: u32, pins: Option<&Path>) -> AttachError {
    let pins = pins.iter().flat_map(|pins| MODES.map(|mode| pin(pins, ifindex, mode)));
    match pins.into_iter().find(|pin| pin.exists()) {
        Some(pin) if error.raw_os_error() == Some(libc::EINVAL) => {
            AttachError::Dispatcher(DispatcherError::Alone { pin })
        }
        _ => error.into(),
    }
}

const MODES: [XdpMode; 2] = [XdpMode::Native, XdpMode::Generic];

/// Attaches the program, or takes over the link that is pinned for the interface.
pub(in crate::sys) fn attach(
    program: BorrowedFd<'_>,
    ifindex: u32,
    pins: Option<&Path>,
    how: XdpAttach,
) -> io::Result<Attachment> {
    let pin = |mode: XdpMode| pins.map(|pins| pin(pins, ifindex, mode));
    for mode in MODES {
        if let Some(pin) = pin(mode).filter(|pin| pin.exists()) {
            return take_over(program, pin, mode);
        }
    }
    let fresh = |mode| Ok((xdp::link_xdp(program, ifindex, mode)?, mode));
    let (link, mode) = match how {
        XdpAttach::Native => fresh(XdpMode::Native),
        XdpAttach::Generic => fresh(XdpMode::Generic),
        XdpAttach::Any => match fresh(XdpMode::Native) {
            Err(error) if !is_taken(&error) => fresh(XdpMode::Generic),
            native_or_taken => native_or_taken,
        },
    }?;
    let pin = pin(mode);
    if let Some(pin) = &pin {
        syscall::pin(link.as_fd(), pin)?;
    }
    Ok(Attachment::linked(Held { link, pin }, mode, false))
}

/// Removes the pins of an interface, and with them what nobody else holds.
pub(in crate::sys) fn forget(pins: &Path, ifindex: u32) {
    for mode in MODES {
        // There need not be one.
        let _ = std::fs::remove_file(pin(pins, ifindex, mode));
    }
}

fn pin(pins: &Path, ifindex: u32, mode: XdpMode) -> PathBuf {
    pins.join(format!("{ifindex}-{mode}"))
}

/// Another program is there, in whatever mode.
pub(crate) fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

/// A pinned link gets our program, atomically. One whose interface is gone takes no program any more: remove
/// the pin.
fn take_over(program: BorrowedFd<'_>, pin: PathBuf, mode: XdpMode) -> io::Result<Attachment> {
    let link = xdp::pinned(&pin)?;
    xdp::update_link(link.as_fd(), program)?;
    Ok(Attachment::linked(Held { link, pin: Some(pin) }, mode, true))
}

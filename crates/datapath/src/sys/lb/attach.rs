//! Attaching a program to an interface: by a link (Linux 5.9), which detaches when its last descriptor or pin
//! goes.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use crate::{
    lb::{XdpAttach, XdpMode},
    sys::syscall::{self, xdp},
};

/// The program on one interface. Detaches when dropped, unless [`Attachment::keep`] was called.
#[derive(Debug)]
pub(crate) struct Attachment {
    link: OwnedFd,
    pin: Option<PathBuf>,
    pub(crate) mode: XdpMode,
    /// An earlier process had attached it.
    pub(crate) adopted: bool,
}

impl Attachment {
    /// Has the interface run another program, atomically.
    pub(crate) fn renew(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        xdp::update_link(self.link.as_fd(), program)
    }

    /// Leaves the program attached when this is dropped: the link lives on by its pin.
    pub(crate) fn keep(mut self) {
        self.pin = None;
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Some(pin) = self.pin.take() {
            // What can't be unpinned is found and reported by the next one who opens.
            let _ = std::fs::remove_file(pin);
        }
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
    Ok(Attachment { link, pin, mode, adopted: false })
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
    Ok(Attachment { link, pin: Some(pin), mode, adopted: true })
}

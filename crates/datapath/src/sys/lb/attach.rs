//! Attaching the balancer's program to an interface: by a link (Linux 5.9), which detaches when its last
//! descriptor or pin goes.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::programs::{
    ProgramError, Xdp, XdpMode as Mode,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};

use crate::lb::{XdpAttach, XdpMode};

/// The program on one interface. Detaches when dropped, unless [`Attachment::keep`] was called.
#[derive(Debug)]
pub(crate) struct Attachment {
    _link: XdpLink,
    pin: Option<PathBuf>,
    pub(crate) mode: XdpMode,
    /// An earlier process had attached it.
    pub(crate) adopted: bool,
}

impl Attachment {
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
pub(super) fn attach(
    program: &mut Xdp,
    ifindex: u32,
    pins: Option<&Path>,
    how: XdpAttach,
) -> io::Result<Attachment> {
    let pin = |mode: XdpMode| pins.map(|pins| pins.join(format!("{ifindex}-{mode}")));
    for mode in MODES {
        if let Some(pin) = pin(mode).filter(|pin| pin.exists()) {
            return take_over(program, pin, mode);
        }
    }
    let (link, mode) = match how {
        XdpAttach::Native => (fresh(program, ifindex, XdpMode::Native)?, XdpMode::Native),
        XdpAttach::Generic => (fresh(program, ifindex, XdpMode::Generic)?, XdpMode::Generic),
        XdpAttach::Any => match fresh(program, ifindex, XdpMode::Native) {
            Ok(link) => (link, XdpMode::Native),
            Err(error) if is_taken(&error) => return Err(error),
            Err(_) => (fresh(program, ifindex, XdpMode::Generic)?, XdpMode::Generic),
        },
    };
    let pin = pin(mode);
    let link = match &pin {
        Some(pin) => pinned(link, pin)?,
        None => link,
    };
    Ok(Attachment { _link: link, pin, mode, adopted: false })
}

/// Another program is there, in whatever mode.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

fn fresh(program: &mut Xdp, ifindex: u32, mode: XdpMode) -> io::Result<XdpLink> {
    let flags = match mode {
        XdpMode::Native => Mode::Driver,
        XdpMode::Generic => Mode::Skb,
    };
    match program.attach_to_if_index(ifindex, flags) {
        Ok(id) => program.take_link(id).map_err(other),
        Err(ProgramError::SyscallError(error)) => Err(error.io_error),
        Err(error) => Err(other(error)),
    }
}

/// A pinned link gets our program, atomically. One whose interface is gone takes no program any more: remove
/// the pin.
fn take_over(program: &mut Xdp, pin: PathBuf, mode: XdpMode) -> io::Result<Attachment> {
    let link: FdLink = PinnedLink::from_pin(&pin).map_err(other)?.into();
    let id = program.attach_to_link(link.try_into().map_err(other)?).map_err(other)?;
    let link = program.take_link(id).map_err(other)?;
    Ok(Attachment { _link: link, pin: Some(pin), mode, adopted: true })
}

fn pinned(link: XdpLink, pin: &Path) -> io::Result<XdpLink> {
    let link: FdLink = link.try_into().map_err(other)?;
    let pinned = link.pin(pin).map_err(other)?;
    FdLink::from(pinned).try_into().map_err(other)
}

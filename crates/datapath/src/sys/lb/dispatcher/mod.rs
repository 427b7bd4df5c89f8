//! libxdp's dispatcher: a program that runs several others on one interface, each in the place of one of its
//! functions (`protocol.org` of xdp-tools). Here one is read, made anew with other programs, and put in the place of the
//! old one.
//!
//! Not here: the balancer's own program in it ([`seat`]).
//!
//! Invariant: an interface has the old dispatcher or the new one, and whichever it has is pinned. A dispatcher that isn't
//! understood is left alone. Tested by `kernel_dispatcher`, and by `netns_stages` as far as one is only named.

mod config;
mod pins;
mod program;
mod seat;
mod types;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use self::{
    config::{Config, MOST, Slot, VERSION},
    types::PLACE,
};
use super::is_taken;
use crate::{
    lb::{DispatcherError, XdpAttach, XdpMode},
    sys::{
        link::Link,
        syscall::{self, extension, xdp},
    },
};

pub(super) use seat::{Seat, Seated};

/// How often somebody else may be quicker.
const TRIES: usize = 10;

/// Whether a program of this name is one.
pub(crate) fn is_dispatcher(program: &str) -> bool {
    program == program::NAME
}

/// The names of the programs that a dispatcher runs, in their order, as far as they are pinned where they
/// usually are.
pub(crate) fn components(ifindex: u32, id: u32) -> Vec<String> {
    let name = |place| xdp::name_of(pins::pinned(ifindex, id, place).ok()?.as_fd()).ok();
    (0..MOST).map_while(name).collect()
}

/// A program in a dispatcher's place.
struct Component {
    program: OwnedFd,
    id: u32,
    name: String,
    slot: Slot,
}

impl Component {
    fn new(program: OwnedFd, slot: Slot) -> io::Result<Self> {
        let id = syscall::program_id(program.as_fd())?;
        let name = xdp::name_of(program.as_fd())?;
        Ok(Self { program, id, name, slot })
    }

    /// The program, and what holds it in a dispatcher's place.
    fn put(
        &self,
        dispatcher: BorrowedFd<'_>,
        place: u32,
    ) -> Result<(BorrowedFd<'_>, OwnedFd), DispatcherError> {
        let program = self.program.as_fd();
        let link = extension::link_extension(program, dispatcher, place);
        let refused = |source| DispatcherError::Component { program: self.name.clone(), source };
        Ok((program, link.map_err(refused)?))
    }
}

/// A dispatcher that an interface has.
struct Dispatcher {
    id: u32,
    program: OwnedFd,
    version: u8,
    components: Vec<Component>,
}

impl Dispatcher {
    fn read(ifindex: u32, id: u32) -> Result<Self, DispatcherError> {
        let program = xdp::program(id)?;
        let config = Config::read(&data(program.as_fd())?)?;
        let component = |(place, slot): (usize, &Slot)| {
            Ok(Component::new(pins::pinned(ifindex, id, place)?, *slot)?)
        };
        let components = config.slots.iter().enumerate().map(component);
        let components = components.collect::<Result<_, DispatcherError>>()?;
        Ok(Self { id, program, version: config.version, components })
    }
}

/// A dispatcher's read-only data; nothing of a program that has none, or several maps.
fn data(program: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let Some(map) = extension::only_map(program)? else { return Ok(Vec::new()) };
    let mut bytes = vec![0; syscall::shape(map.as_fd())?.value];
    syscall::lookup(map.as_fd(), &0u32.to_ne_bytes(), &mut bytes, false)?;
    Ok(bytes)
}

/// Where the programs run after a change, and which they are: their numbers in their order.
struct Changed {
    /// `None`: nothing runs.
    mode: Option<XdpMode>,
    programs: Vec<u32>,
}

/// Has an interface run other programs, if `alter` says that they are others.
fn change(
    ifindex: u32,
    how: XdpAttach,
    mut alter: impl FnMut(&mut Vec<Component>) -> Result<bool, DispatcherError>,
) -> Result<Changed, DispatcherError> {
    let _lock = pins::Lock::take()?;
    for _ in 0..TRIES {
        let link = Link::by_index(ifindex)?;
        let mut old = link.xdp_program.map(|id| Dispatcher::read(ifindex, id)).transpose()?;
        let mut components =
            old.as_mut().map_or_else(Vec::new, |old| std::mem::take(&mut old.components));
        let is_other = alter(&mut components)?;
        components.sort_by(|a, b| (a.slot.priority, &a.name).cmp(&(b.slot.priority, &b.name)));
        let programs = components.iter().map(|component| component.id).collect();
        if !is_other {
            return Ok(Changed { mode: link.xdp_mode, programs });
        }
        let modes = modes(link.xdp_mode, how);
        if let Some(mode) = replace(ifindex, old.as_ref(), &components, modes)? {
            let mode = (!components.is_empty()).then_some(mode);
            return Ok(Changed { mode, programs });
        }
    }
    Err(DispatcherError::Contended)
}

/// The modes to try: the one that the interface has, if it has one.
fn modes(current: Option<XdpMode>, how: XdpAttach) -> &'static [XdpMode] {
    use XdpMode::{Generic, Native};
    match (current, how) {
        (Some(Native), _) | (None, XdpAttach::Native) => &[Native],
        (Some(Generic), _) | (None, XdpAttach::Generic) => &[Generic],
        (None, XdpAttach::Any) => &[Native, Generic],
    }
}

/// Puts a dispatcher of these programs in the place of the old one, or nothing if there are none; `None`: somebody
/// else was quicker.
fn replace(
    ifindex: u32,
    old: Option<&Dispatcher>,
    components: &[Component],
    modes: &[XdpMode],
) -> Result<Option<XdpMode>, DispatcherError> {
    let version = old.map_or(VERSION, |old| old.version);
    let new = match components {
        [] => None,
        some => Some(make(ifindex, version, some)?),
    };
    let programs = [old.map(|old| old.program.as_fd()), new.as_ref().map(|new| new.0.as_fd())];
    let exchange = |mode| pins::exchange(ifindex, programs[0], programs[1], mode);
    let mut last = None;
    for mode in modes {
        match exchange(*mode) {
            Ok(()) => {
                old.iter().for_each(|old| pins::unpin(ifindex, old.id));
                return Ok(Some(*mode));
            }
            Err(error) => last = Some(error),
        }
    }
    new.iter().for_each(|(_, id)| pins::unpin(ifindex, *id));
    match last {
        Some(error) if !is_taken(&error) => Err(error.into()),
        _ => Ok(None),
    }
}

/// A dispatcher with its programs in their places, pinned, and its number.
fn make(
    ifindex: u32,
    version: u8,
    components: &[Component],
) -> Result<(OwnedFd, u32), DispatcherError> {
    if components.len() > MOST {
        return Err(DispatcherError::Full { most: MOST });
    }
    let slots: Vec<_> = components.iter().map(|component| component.slot).collect();
    let frags = slots.iter().all(|slot| slot.frags);
    let dispatcher = program::load(&Config { version, frags, slots })?;
    let id = syscall::program_id(dispatcher.as_fd())?;
    let all = (PLACE..).zip(components).map(|(place, one)| one.put(dispatcher.as_fd(), place));
    let all = all.collect::<Result<Vec<_>, DispatcherError>>()?;
    pins::pin(ifindex, id, &all).inspect_err(|_| pins::unpin(ifindex, id))?;
    Ok((dispatcher, id))
}

/// The program of an interface is no dispatcher.
fn is_occupied(ifindex: u32) -> io::Result<bool> {
    let Some(id) = Link::by_index(ifindex)?.xdp_program else { return Ok(false) };
    Ok(!is_dispatcher(&xdp::program_name(id)?))
}

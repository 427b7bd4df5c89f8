//! libxdp's dispatcher, recognised: a program that runs several others on one interface, each in the place of one
//! of its functions (`protocol.org` of xdp-tools).
//!
//! Not here: joining it. Tested by `netns_stages`.

use std::{os::fd::AsFd, path::Path};

use crate::sys::syscall::xdp;

/// Its program's name.
const NAME: &str = "xdp_dispatcher";
/// Where it pins what it runs, unless its environment says otherwise.
const PINS: &str = "/sys/fs/bpf/xdp";
/// Programs that it has places for.
const PLACES: u32 = 10;

/// Whether a program of this name is one.
pub(crate) fn is_dispatcher(program: &str) -> bool {
    program == NAME
}

/// The names of the programs that a dispatcher runs, in their order, as far as they are pinned where they
/// usually are.
pub(crate) fn components(ifindex: u32, id: u32) -> Vec<String> {
    let directory = Path::new(PINS).join(format!("dispatch-{ifindex}-{id}"));
    let name = |number| {
        let program = xdp::pinned(&directory.join(format!("prog{number}-prog"))).ok()?;
        xdp::name_of(program.as_fd()).ok()
    };
    (0..PLACES).map_while(name).collect()
}

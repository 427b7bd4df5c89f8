//! Carrying pinned maps from one directory to another.

use std::{io, os::fd::AsFd, path::Path};

use aya::maps::{MapData, MapType};
use flowgate_abi::{
    Settings,
    maps::{self, MapKind, MapSpec},
};
use zerocopy::IntoBytes;

use super::syscall;

/// There is state in a directory of maps: its settings, which are written last, are there.
pub(crate) fn is_complete(maps: &Path, settings_size: usize) -> io::Result<bool> {
    let pin = maps.join(maps::STATE.name);
    if !pin.exists() {
        return Ok(false);
    }
    Ok(element(&pin, settings_size)?.iter().any(|byte| *byte != 0))
}

/// A pinned array, to read.
pub(crate) struct Elements {
    map: MapData,
    size: usize,
}

impl Elements {
    /// One whose elements are of a size.
    pub(crate) fn open(pin: &Path, size: usize) -> io::Result<Self> {
        let map = MapData::from_pin(pin).map_err(io::Error::other)?;
        let have = map.info().map_err(io::Error::other)?.value_size() as usize;
        if have != size {
            return Err(unlike(pin, &format!("its elements have {have} bytes instead of {size}")));
        }
        Ok(Self { map, size })
    }

    /// An element.
    pub(crate) fn get(&self, index: u32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.size];
        match syscall::lookup(self.map.fd().as_fd(), &index.to_ne_bytes(), &mut bytes, false)? {
            true => Ok(bytes),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "an element isn't there")),
        }
    }
}

/// Element 0 of a pinned array, whose elements are of a size.
pub(crate) fn element(pin: &Path, size: usize) -> io::Result<Vec<u8>> {
    Elements::open(pin, size)?.get(0)
}

/// The keys of a pinned map, which are of a size, with their values of 32 bits.
pub(crate) fn entries(pin: &Path, key: usize) -> io::Result<Vec<(Vec<u8>, u32)>> {
    let map = MapData::from_pin(pin).map_err(io::Error::other)?;
    let info = map.info().map_err(io::Error::other)?;
    if (info.key_size() as usize, info.value_size()) != (key, 4) {
        return Err(unlike(pin, "its keys or values are of another size"));
    }
    let mut entries = Vec::new();
    for key in syscall::keys(map.fd().as_fd(), key)? {
        let mut value = [0; 4];
        if syscall::lookup(map.fd().as_fd(), &key, &mut value, false)? {
            entries.push((key, u32::from_ne_bytes(value)));
        }
    }
    Ok(entries)
}

/// Pins a map once more, if it is what it is taken for.
pub(crate) fn share(spec: &MapSpec, from: &Path, to: &Path) -> io::Result<()> {
    let map = MapData::from_pin(from).map_err(io::Error::other)?;
    let info = map.info().map_err(io::Error::other)?;
    let have = (
        info.map_type().map_err(io::Error::other)?,
        info.key_size() as usize,
        info.value_size() as usize,
    );
    if have != (kind(spec.kind), spec.key, spec.value) {
        return Err(unlike(from, &format!("it is {have:?}")));
    }
    map.pin(to).map_err(io::Error::other)
}

/// Makes the map of settings and pins it, complete.
pub(crate) fn make_state(pin: &Path, settings: &Settings) -> io::Result<()> {
    let map = syscall::create_array(maps::STATE.name, maps::STATE.value)?;
    syscall::update(map.as_fd(), &0u32.to_ne_bytes(), settings.as_bytes())?;
    syscall::pin(map.as_fd(), pin)
}

const fn kind(kind: MapKind) -> MapType {
    match kind {
        MapKind::Array | MapKind::MappedArray => MapType::Array,
        MapKind::PerCpuArray => MapType::PerCpuArray,
        MapKind::Hash => MapType::Hash,
        MapKind::RingBuf => MapType::RingBuf,
        MapKind::SocketStorage => MapType::SkStorage,
    }
}

fn unlike(pin: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", pin.display()))
}

//! A stage's map, for who knows what is in it.
//!
//! Invariant: the kernel reads and writes as many bytes as a key and a value have, so no others reach it. Tested
//! by `kernel_stages`.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use crate::{error::TableError, sys::syscall};

/// A map of a stage's: its elements as bytes, in the layout that the stage's object has.
///
/// Errors are the kernel's; keys and values of other sizes than the map's are refused before it is asked.
#[derive(Clone, Copy, Debug)]
pub struct StageMap<'b> {
    map: BorrowedFd<'b>,
    key: usize,
    value: usize,
}

impl<'b> StageMap<'b> {
    pub(super) fn new(map: BorrowedFd<'b>) -> io::Result<Self> {
        let syscall::Shape { key, value } = syscall::shape(map)?;
        Ok(Self { map, key, value })
    }

    /// An element; `None`: there is none. Of a map with values for each CPU, all of them, each rounded up to
    /// 8 bytes.
    ///
    /// # Errors
    /// As above.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        has_size("a key", key, self.key)?;
        let mut value = vec![0; self.value];
        let found = syscall::lookup(self.map, key, &mut value, false)?;
        Ok(found.then_some(value))
    }

    /// Writes an element.
    ///
    /// # Errors
    /// As above.
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<(), TableError> {
        has_size("a key", key, self.key)?;
        has_size("a value", value, self.value)?;
        Ok(syscall::update(self.map, key, value)?)
    }

    /// Removes an element, if it is there.
    ///
    /// # Errors
    /// As above.
    pub fn remove(&self, key: &[u8]) -> Result<(), TableError> {
        has_size("a key", key, self.key)?;
        Ok(syscall::delete(self.map, key)?)
    }

    /// The keys of all elements. Those that come or go meanwhile may be missing, or be there twice.
    ///
    /// # Errors
    /// As above.
    pub fn keys(&self) -> Result<Vec<Vec<u8>>, TableError> {
        Ok(syscall::keys(self.map, self.key)?)
    }
}

/// The map itself, for what isn't read by elements (ring buffers, sockets).
impl AsFd for StageMap<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map
    }
}

fn has_size(what: &str, bytes: &[u8], size: usize) -> io::Result<()> {
    if bytes.len() == size {
        return Ok(());
    }
    let problem = format!("{what} of this map has {size} bytes, not {}", bytes.len());
    Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
}

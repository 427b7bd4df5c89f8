//! Tells when a file may have changed.
//!
//! It watches the directory, since editors and configuration systems put another file or symbolic link in the
//! old one's place. Not here: whether the content is another one.

use std::{future::poll_fn, io, path::Path, pin::Pin};

use futures_core::Stream;
use inotify::{EventStream, Inotify, WatchMask};

/// Some events at once; what doesn't fit is read later.
const BUFFER: usize = 4096;

/// A watched directory.
#[derive(Debug)]
pub(crate) struct Watch(EventStream<Vec<u8>>);

impl Watch {
    /// Watches the directory of a file, inside of a tokio runtime.
    ///
    /// # Errors
    ///
    /// There is no such directory, or the system has no more watches.
    pub(crate) fn new(file: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let directory = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        inotify.watches().add(directory, WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO)?;
        Ok(Self(inotify.into_event_stream(vec![0; BUFFER])?))
    }

    /// Waits until something was written in the directory.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        let event = poll_fn(|context| Pin::new(&mut self.0).poll_next(context)).await;
        event.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into())).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It waits for the kernel's word, not for time.
    #[tokio::test(flavor = "current_thread")]
    async fn writing_and_replacing_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lb.yaml");
        let mut watch = Watch::new(&file).unwrap();
        std::fs::write(&file, "a").unwrap();
        watch.changed().await.unwrap();
        let other = directory.path().join("new");
        std::fs::write(&other, "b").unwrap();
        watch.changed().await.unwrap();
        std::fs::rename(&other, &file).unwrap();
        watch.changed().await.unwrap();
    }
}

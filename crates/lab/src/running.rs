//! Work on a thread of its own, until it is told to stop.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::LabError;

/// A thread at work. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Running<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<T>>>,
}

impl<T: Send + 'static> Running<T> {
    pub(crate) fn start(
        name: &str,
        work: impl FnOnce(&AtomicBool) -> io::Result<T> + Send + 'static,
    ) -> Result<Self, LabError> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&told));
        let thread = thread.map_err(|source| LabError::Thread { source })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    pub(crate) fn end(mut self) -> io::Result<T> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("ended once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Dropped without being asked: nobody wants to know.
            let _ = thread.join();
        }
    }
}

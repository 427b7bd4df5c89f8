//! Numbered jobs on all CPUs. What a job does follows from its number alone, so that the result doesn't depend
//! on who does it when.

use std::{
    num::NonZero,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Does the jobs from 0 to `count`, and adds up what each gives.
///
/// # Panics
/// If a job does.
pub fn fold<T: Default + Send>(
    count: usize,
    job: impl Fn(usize) -> T + Sync,
    add: impl Fn(T, T) -> T + Sync,
) -> T {
    let (next, add) = (AtomicUsize::new(0), &add);
    let work = || {
        let numbers = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
        numbers.take_while(|number| *number < count).map(&job).fold(T::default(), add)
    };
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers.min(count)).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        done.fold(T::default(), add)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_once() {
        let mut done = fold(1000, |job| vec![job], |a, b| [a, b].concat());
        done.sort_unstable();
        assert_eq!(done, (0..1000).collect::<Vec<_>>());
        assert_eq!(fold(0, |job| job, |a, b| a + b), 0);
    }

    #[test]
    #[should_panic(expected = "number 7")]
    fn a_panic_isnt_lost() {
        fold(10, |job| assert_ne!(job, 7, "number {job}"), |(), ()| ());
    }
}

//! The kernels asked: Debian's in virtual machines, the running one in namespaces.

use std::path::Path;
use std::slice;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::budget::Program;
use crate::error::Error;
use crate::findings::Seen;
use crate::guest::{self, Job};
use crate::kernel_image::{KernelImage, KernelImages};
use crate::kernels::{Options, Wanted};
use crate::line::Line;
use crate::machine::{Finished, QEMU};
use crate::namespaces;
use crate::privileges;
use crate::process;
use crate::said;
use crate::setting::{self, Changed};
use crate::setup::VM_SETUP;
use crate::table::Row;
use crate::test_binary::{TestBinary, TestTarget};
use crate::tree;

/// The comparison of oracle, host and kernel, alone.
const COMPARISON: &str = "oracle_host_and_kernel_agree";
/// The programs of the balancer and of its backends, each with tests of its own.
const OTHERS: [&str; 2] = ["xdp_balance", "xdp_decapsulate"];
/// What is composed of the balancer's programs and others: of all stages, samples and dispatchers one test each, because
/// each loads the balancer anew, which takes an emulated machine many seconds.
const COMPOSED: [&str; 3] = [
    "a_frame_meets_the_stages_in_their_order",
    "a_sample_is_the_frame_as_it_went_on",
    "others_come_and_go_beside_the_balancer",
];
/// Of `flowgate-lb`'s tests in a dispatcher.
const EMBEDDED: &str = "two_balancers_share_an_interface";
/// Virtual machines at a time: each keeps one CPU busy.
const MACHINES: usize = 2;

/// Asks each kernel; the rows come in the order of what is wanted.
pub(crate) fn rows(wanted: &[Wanted], options: &Options) -> Result<Vec<Row>, Error> {
    let tests = Tests::build()?;
    let mut rows = in_machines(wanted, &tests, options);
    if wanted.contains(&Wanted::Running) {
        rows.push(row(Wanted::Running, || running(&tests, options)));
    }
    rows.sort_by_key(|row| wanted.iter().position(|wanted| *wanted == row.wanted));
    Ok(rows)
}

/// The test executables.
struct Tests {
    verifier: TestBinary,
    kernel: TestBinary,
    /// Those of [`OTHERS`].
    others: [TestBinary; 2],
    /// Those of [`COMPOSED`].
    composition: [TestBinary; 3],
    /// Those of [`EMBEDDED`].
    embedder: TestBinary,
}

impl Tests {
    fn build() -> Result<Self, Error> {
        let [stages, samples, dispatcher] = TestTarget::composition();
        Ok(Self {
            verifier: TestTarget::verifier().build()?,
            kernel: TestTarget::kernel().build()?,
            others: [TestTarget::balancer().build()?, TestTarget::decapsulator().build()?],
            composition: [stages.build()?, samples.build()?, dispatcher.build()?],
            embedder: TestTarget::embedder().build()?,
        })
    }

    /// The verifier's word, and the corpora as they are, the first of them also hardened. All of the kernel
    /// tests run once on the kernels that are promised, [`COMPOSED`] there alone, [`EMBEDDED`] on one of them.
    fn jobs(&self, wanted: Wanted) -> Vec<Job> {
        // One thread, because lines of tests that run at once come mixed.
        let always = ["--test-threads=1", "--show-output"];
        let job = |test: &TestBinary, filter: &[&'static str], hardened| Job {
            executable: test.executable.clone(),
            programs: test.programs.clone(),
            arguments: [&always, filter].concat(),
            hardened,
        };
        // By a part of its name: the module in front of it may change.
        let comparison = [COMPARISON].as_slice();
        let all = if wanted.runs_every_test() { &[] } else { comparison };
        let [balancer, decapsulator] = &self.others;
        let mut jobs = vec![
            job(&self.verifier, &[], false),
            job(&self.kernel, all, false),
            job(&self.kernel, comparison, true),
            job(balancer, all, false),
            job(decapsulator, all, false),
        ];
        if wanted.runs_every_test() {
            let composed = self.composition.iter().zip(&COMPOSED);
            jobs.extend(composed.map(|(test, name)| job(test, slice::from_ref(name), false)));
        }
        if wanted.runs_the_embedder() {
            jobs.push(job(&self.embedder, &[EMBEDDED], false));
        }
        jobs
    }
}

/// The rows of all kernels but the running one, some machines at a time.
fn in_machines(wanted: &[Wanted], tests: &Tests, options: &Options) -> Vec<Row> {
    let wanted: Vec<_> = wanted.iter().filter(|wanted| **wanted != Wanted::Running).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let images = require_programs().map(|()| KernelImages::open());
    let image = |wanted| match (&images, wanted) {
        (Ok(images), Wanted::Line(line)) => images.newest(Some(line)),
        (Ok(images), _) => images.newest(None),
        (Err(program), _) => Err(Error::MissingProgram { program, hint: VM_SETUP }),
    };
    let mut images: Vec<_> = wanted.into_iter().map(|wanted| (*wanted, image(*wanted))).collect();
    // What takes longest begins first, so that the machines end together.
    images.sort_by_key(|(wanted, _)| !wanted.runs_every_test());
    let queue = Mutex::new(images.into_iter());
    let rows = Mutex::new(Vec::new());
    let next = || queue.lock().ok()?.next();
    thread::scope(|scope| {
        for _ in 0..MACHINES {
            scope.spawn(|| {
                while let Some((wanted, image)) = next() {
                    let row = row(wanted, || in_machine(wanted, &image?, tests, options));
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
                }
            });
        }
    });
    rows.into_inner().unwrap_or_default()
}

/// The first program that a virtual machine needs and that isn't installed.
fn require_programs() -> Result<(), &'static str> {
    [QEMU, guest::STRIP, "busybox", "modprobe", "depmod", "xz", "zstd", "dpkg", "apt-get"]
        .into_iter()
        .find(|program| process::find(program).is_none())
        .map_or(Ok(()), Err)
}

fn row(wanted: Wanted, ask: impl FnOnce() -> Result<(String, Seen), Error>) -> Row {
    let begun = Instant::now();
    let (kernel, seen) = match ask() {
        Ok((release, seen)) => (release, Ok(seen)),
        Err(error) => (wanted.shown(), Err(error)),
    };
    Row { wanted, kernel, seen, findings: Vec::new(), took: begun.elapsed() }
}

fn in_machine(
    wanted: Wanted,
    image: &KernelImage,
    tests: &Tests,
    options: &Options,
) -> Result<(String, Seen), Error> {
    let line = line_of(&image.release)?;
    let jobs = tests.jobs(wanted);
    let limit = Duration::from_secs(options.timeout);
    let said = guest::run(image, &jobs, options.corpus, limit)?;
    let all_ended = said.len() == jobs.len();
    let ([verifier, corpus, hardened, others @ ..], true) = (said.as_slice(), all_ended) else {
        let tail = format!("{} of {} programs ended", said.len(), jobs.len());
        return Err(Error::Machine { timed_out: false, tail });
    };
    Ok((image.release.clone(), seen(line, verifier, (corpus, others), Some(hardened))))
}

fn running(tests: &Tests, options: &Options) -> Result<(String, Seen), Error> {
    privileges::require()?;
    let release = tree::read_text(Path::new("/proc/sys/kernel/osrelease"))?.trim().to_owned();
    let line = line_of(&release)?;
    let jobs = tests.jobs(Wanted::Running);
    let [verifier, corpus, hardened, others @ ..] = jobs.as_slice() else {
        unreachable!("there are more")
    };
    let hear = |test, job: &Job| namespaces::hear(test, &job.arguments, options.corpus);
    let verifier = hear(&tests.verifier, verifier)?;
    let corpus = hear(&tests.kernel, corpus)?;
    let others = tests.others.iter().zip(others).map(|(test, job)| hear(test, job));
    let others = others.collect::<Result<Vec<_>, _>>()?;
    let hardened = match options.harden_running {
        true => {
            let _until_the_end = Changed::to(Path::new(setting::HARDENING), "2")?;
            Some(hear(&tests.kernel, hardened)?)
        }
        false => None,
    };
    Ok((release, seen(line, &verifier, (&corpus, &others), hardened.as_ref())))
}

fn line_of(release: &str) -> Result<Line, Error> {
    Line::of_release(release).ok_or_else(|| Error::Release { release: release.to_owned() })
}

/// A kernel that refuses one of the other programs has said so; its tests would say it once more.
fn seen(
    line: Line,
    verifier: &Finished,
    (corpus, others): (&Finished, &[Finished]),
    hardened: Option<&Finished>,
) -> Seen {
    let programs = said::programs(verifier);
    let refused = |program: &Program| matches!(program, Program::Refused { .. });
    let is_refused =
        |name: &str| programs.as_ref().is_ok_and(|said| said.get(name).is_some_and(refused));
    let (others, composition) = others.split_at(OTHERS.len());
    let others = OTHERS.iter().zip(others).filter(|(name, _)| !is_refused(name));
    let corpora: Vec<_> = [corpus].into_iter().chain(others.map(|(_, said)| said)).collect();
    let corpus = said::agreement_of_all(&corpora, composition);
    Seen { line, programs, corpus, hardened: hardened.map(said::agreement) }
}

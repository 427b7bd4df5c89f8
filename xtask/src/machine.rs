//! A virtual machine under plain emulation: boots a kernel with an initramfs, passes on what its serial
//! console says, and returns output and exit code of each program that ran in it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;

/// The emulator.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// The script in the machine prints this before it runs a program.
pub(crate) const BEGIN: &str = "@@flowgate-begin";
/// And this after it, with the exit code.
pub(crate) const END: &str = "@@flowgate-exit:";
/// And this when there is no other program.
pub(crate) const DONE: &str = "@@flowgate-done";

/// Lines of the console that an error shows.
const TAIL: usize = 25;

/// What a program in the machine did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    /// What it wrote.
    pub(crate) lines: Vec<String>,
}

/// Boots and waits until all programs ended, at most for `limit`. Lines are passed on under a name.
///
/// Now and then a kernel panics in an interrupt of the emulated boot. As no program ran, that says nothing of
/// them: it is booted once more.
pub(crate) fn boot(
    kernel: &Path,
    initramfs: &Path,
    limit: Duration,
    name: &str,
) -> Result<Vec<Finished>, Error> {
    let first = boot_once((kernel, initramfs), limit, name);
    let Err(error @ Error::Boot { .. }) = first else { return first };
    println!("    {name:<8} | {error}\n    {name:<8} | It is booted once more.");
    boot_once((kernel, initramfs), limit, name)
}

fn boot_once(
    (kernel, initramfs): (&Path, &Path),
    limit: Duration,
    name: &str,
) -> Result<Vec<Finished>, Error> {
    let mut command = Command::new(QEMU);
    command
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"])
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
        .args(["-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child =
        command.spawn().map_err(|source| Error::Start { command: QEMU.to_owned(), source })?;
    let lines = child.stdout.take().map(lines_of);
    let console = Console { name: name.to_owned(), ..Console::default() };
    let result = match lines {
        Some(lines) => watch(&lines, limit, console),
        None => console.result(false),
    };
    stop(&mut child);
    result
}

/// The machine may hang on its way down: by now nothing of it is needed.
fn stop(child: &mut Child) {
    let _ended_already = child.kill();
    let _status_says_nothing = child.wait();
}

fn watch(
    lines: &Receiver<String>,
    limit: Duration,
    mut console: Console,
) -> Result<Vec<Finished>, Error> {
    let deadline = Instant::now() + limit;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                console.take(&line);
                if console.done {
                    return console.result(false);
                }
            }
            Err(RecvTimeoutError::Timeout) => return console.result(true),
            Err(RecvTimeoutError::Disconnected) => return console.result(false),
        }
    }
}

/// What has been read from the console so far.
#[derive(Default)]
struct Console {
    name: String,
    tail: VecDeque<String>,
    running: Option<Finished>,
    finished: Vec<Finished>,
    done: bool,
}

impl Console {
    fn take(&mut self, line: &str) {
        let line = line.trim_end_matches('\r');
        // The kernel's own messages may stand before ours in a line.
        if let Some((_, code)) = line.split_once(END) {
            let code = code.trim().parse().unwrap_or(-1);
            let program = self.running.take().unwrap_or_default();
            self.finished.push(Finished { code, ..program });
        } else if line.contains(BEGIN) {
            self.running = Some(Finished::default());
        } else if line.contains(DONE) {
            self.done = true;
        } else if let Some(program) = &mut self.running {
            println!("    {:<8} | {line}", self.name);
            program.lines.push(line.to_owned());
        }
        self.tail.push_back(line.to_owned());
        if self.tail.len() > TAIL {
            self.tail.pop_front();
        }
    }

    fn result(self, timed_out: bool) -> Result<Vec<Finished>, Error> {
        if self.done {
            return Ok(self.finished);
        }
        let began = self.running.is_some() || !self.finished.is_empty();
        let tail = Vec::from(self.tail).join("\n");
        match began || timed_out {
            true => Err(Error::Machine { timed_out, tail }),
            false => Err(Error::Boot { tail }),
        }
    }
}

fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(lines: &[&str]) -> Console {
        let mut console = Console::default();
        lines.iter().for_each(|line| console.take(line));
        console
    }

    #[test]
    fn a_result_is_what_stands_between_the_marks() {
        let seen = ["boot", BEGIN, "test a ... ok\r", "[1.0] x @@flowgate-exit:3"];
        let seen = [seen.as_slice(), &["noise", BEGIN, "@@flowgate-exit:0", DONE]].concat();
        let finished = console(&seen).result(false).unwrap();
        let first = Finished { code: 3, lines: vec!["test a ... ok".to_owned()] };
        assert_eq!(finished, [first, Finished::default()]);
    }

    #[test]
    fn without_an_end_there_is_no_result() {
        let error = console(&["boot", BEGIN, "@@flowgate-exit:0", "Kernel panic"]).result(true);
        assert!(
            matches!(error, Err(Error::Machine { timed_out: true, tail }) if tail.contains("panic"))
        );
    }

    #[test]
    fn only_a_kernel_that_ran_nothing_failed_to_boot() {
        let boot = console(&["boot", "Kernel panic"]).result(false);
        assert!(matches!(boot, Err(Error::Boot { tail }) if tail.contains("panic")));
        for begun in [[BEGIN].as_slice(), &[BEGIN, "@@flowgate-exit:0"]] {
            let ran = console(&[begun, &["Kernel panic"]].concat()).result(false);
            assert!(matches!(ran, Err(Error::Machine { timed_out: false, .. })));
        }
    }
}

//! A virtual machine under plain emulation: boots a kernel with an initramfs, passes on what its serial
//! console says, and returns the exit code of what ran in it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;

/// The emulator.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// The script in the machine prints this before it runs the program.
pub(crate) const BEGIN: &str = "@@flowgate-begin";
/// And this after it, with the exit code.
pub(crate) const END: &str = "@@flowgate-exit:";

/// Lines of the console that an error shows.
const TAIL: usize = 25;

/// What ran in the machine.
pub(crate) struct Finished {
    pub(crate) code: i32,
    /// What the program wrote.
    pub(crate) lines: Vec<String>,
}

/// Boots and waits until the program ended, at most for `limit`.
pub(crate) fn boot(kernel: &Path, initramfs: &Path, limit: Duration) -> Result<Finished, Error> {
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
    let result = lines.map_or_else(|| Console::default().result(false), |l| watch(&l, limit));
    stop(&mut child);
    result
}

/// The machine may hang on its way down: by now nothing of it is needed.
fn stop(child: &mut Child) {
    let _ended_already = child.kill();
    let _status_says_nothing = child.wait();
}

fn watch(lines: &Receiver<String>, limit: Duration) -> Result<Finished, Error> {
    let deadline = Instant::now() + limit;
    let mut console = Console::default();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                console.take(&line);
                if console.code.is_some() {
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
    all: Vec<String>,
    begun: Option<usize>,
    code: Option<i32>,
}

impl Console {
    fn take(&mut self, line: &str) {
        let line = line.trim_end_matches('\r');
        // The kernel's own messages may stand before ours in a line.
        if let Some((_, code)) = line.split_once(END) {
            self.code = code.trim().parse().ok();
        } else if line.contains(BEGIN) {
            self.begun = Some(self.all.len() + 1);
        } else if self.begun.is_some() {
            println!("    {line}");
        }
        self.all.push(line.to_owned());
    }

    fn result(mut self, timed_out: bool) -> Result<Finished, Error> {
        let Some(code) = self.code else {
            let tail = self.all.split_off(self.all.len().saturating_sub(TAIL)).join("\n");
            return Err(Error::Machine { timed_out, tail });
        };
        let mut lines = self.all.split_off(self.begun.unwrap_or(0).min(self.all.len()));
        lines.pop();
        Ok(Finished { code, lines })
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
    fn the_result_is_what_stands_between_the_marks() {
        let finished = console(&["boot", BEGIN, "test a ... ok\r", "[1.0] x @@flowgate-exit:3"]);
        let finished = finished.result(false).unwrap();
        assert_eq!((finished.code, finished.lines), (3, vec!["test a ... ok".to_owned()]));
    }

    #[test]
    fn without_an_end_there_is_no_result() {
        let error = console(&["boot", "Kernel panic"]).result(true);
        assert!(
            matches!(error, Err(Error::Machine { timed_out: true, tail }) if tail.contains("panic"))
        );
    }
}

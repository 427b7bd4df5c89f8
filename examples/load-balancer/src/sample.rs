//! `flowgate-lb sample`: takes samples from the running balancer and writes them as pcapng.
//!
//! The file is whole after every answer, so whoever interrupts the command has what it wrote until then.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    api::{
        Request,
        answer::{Done, Sampled, Samples, Service},
        client::Client,
    },
    capture::{
        Frame, hex,
        write::{self, Packet},
    },
    cli::Sample,
    command::CommandError,
};

/// From one question to the next, while no more is there.
const PAUSE: Duration = Duration::from_millis(100);

/// Until enough is written, or it is interrupted.
pub(crate) fn run(wanted: &Sample) -> Result<(), CommandError> {
    let Sample { every, snaplen, .. } = *wanted;
    let mut client = Client::connect(&wanted.client.directory)?;
    is_there(&mut client, wanted)?;
    client.ask::<Done>(&Request::Sample { every, snaplen })?;
    let written = follow(&mut client, wanted);
    let ended = client.ask::<Done>(&Request::Unsample);
    let (packets, lost) = written?;
    ended?;
    println!("{packets} packets written, {lost} lost");
    Ok(())
}

/// Of a service that isn't there nothing would ever come.
fn is_there(client: &mut Client, wanted: &Sample) -> Result<(), CommandError> {
    let Some(name) = &wanted.service else { return Ok(()) };
    let all: Vec<Service> = client.ask(&Request::Services)?;
    match all.iter().any(|service| service.name == *name) {
        true => Ok(()),
        false => Err(CommandError::NoService(name.clone())),
    }
}

/// Writes what comes; returns how many packets that were, and how many were lost.
fn follow(client: &mut Client, wanted: &Sample) -> Result<(u64, u64), CommandError> {
    let failed = |source| CommandError::File { path: wanted.write.clone(), source };
    let mut file = Captured::create(&wanted.write).map_err(failed)?;
    let enough = wanted.count.unwrap_or(u64::MAX);
    loop {
        let Samples { frames, lost } = client.ask(&Request::Samples)?;
        let is_wanted = |one: &&Sampled| wanted.service.is_none() || one.service == wanted.service;
        let left = usize::try_from(enough - file.packets).unwrap_or(usize::MAX);
        let mut some = frames.iter().filter(is_wanted).take(left);
        some.try_for_each(|one| file.write(one)).map_err(failed)?;
        if file.packets == enough {
            file.end(lost).map_err(failed)?;
            return Ok((enough, lost));
        }
        file.to.flush().map_err(failed)?;
        if frames.is_empty() {
            thread::sleep(PAUSE);
        }
    }
}

/// The file, as far as it is written.
struct Captured {
    to: BufWriter<File>,
    /// Their names, in the order of their numbers.
    interfaces: Vec<String>,
    packets: u64,
}

impl Captured {
    fn create(path: &Path) -> io::Result<Self> {
        let mut to = BufWriter::new(File::create(path)?);
        write::section(&mut to)?;
        Ok(Self { to, interfaces: Vec::new(), packets: 0 })
    }

    fn write(&mut self, sampled: &Sampled) -> io::Result<()> {
        let bytes = hex::bytes(&sampled.frame).map_err(io::Error::other)?;
        let frame = Frame { bytes, length: sampled.length };
        let packet = Packet {
            interface: self.interface(&sampled.interface)?,
            frame: &frame,
            time: UNIX_EPOCH + Duration::from_micros(sampled.time),
            verdict: sampled.action,
            comment: &comment(sampled),
        };
        write::packet(&mut self.to, &packet)?;
        self.packets += 1;
        Ok(())
    }

    /// Its number in the file, where it is named when it first occurs.
    fn interface(&mut self, name: &str) -> io::Result<u32> {
        let known = self.interfaces.iter().position(|known| known == name);
        let number = match known {
            Some(number) => number,
            None => {
                write::interface(&mut self.to, name)?;
                self.interfaces.push(name.to_owned());
                self.interfaces.len() - 1
            }
        };
        Ok(number as u32)
    }

    /// What was lost can't be told by interface: it is written of the first.
    fn end(&mut self, lost: u64) -> io::Result<()> {
        if !self.interfaces.is_empty() {
            write::lost(&mut self.to, (0, lost), SystemTime::now())?;
        }
        self.to.flush()
    }
}

/// What became of it, in words: `forwarded, service web, backend 198.18.0.11`.
fn comment(sampled: &Sampled) -> String {
    let service = sampled.service.as_ref().map(|service| format!(", service {service}"));
    let backend = sampled.backend.map(|backend| format!(", backend {backend}"));
    [Some(sampled.verdict.clone()), service, backend].into_iter().flatten().collect()
}

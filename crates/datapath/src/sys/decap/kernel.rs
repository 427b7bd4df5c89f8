//! The object loaded, with what is configured in its maps.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use aya::{
    Ebpf,
    programs::{SchedClassifier, TestRun, TestRunOptions, Xdp},
};
use flowgate_abi::{
    DropReason,
    decap::{Counter, maps},
    event::Tally,
    maps::MapSpec,
};
use flowgate_ebpf_progs::decap as progs;
use zerocopy::IntoBytes;

use super::attach::{self, Attachment, Place};
use crate::{
    decap::{ADDRESSES, Decapsulated, Ends, Fate, Hook},
    error::OpenError,
    report::ProgramReport,
    sys::{
        object::{self, Maps, map_data},
        syscall::{self, ProgramKind},
        verify,
    },
    verification::Verification,
};

/// What is configured, in the kernel.
#[derive(Debug)]
pub(crate) struct KernelEnds {
    ebpf: Ebpf,
    cpus: usize,
}

impl KernelEnds {
    /// Loads the object, with everything in its maps before a program can see them.
    pub(crate) fn load(object: &[u8], ends: &Ends) -> Result<Self, OpenError> {
        let mut ebpf = make_maps(object, ends)?;
        object::load(progs::XDP_DECAPSULATE, || xdp(&mut ebpf).load())?;
        object::load(progs::TC_DECAPSULATE, || classifier(&mut ebpf).load())?;
        let cpus = syscall::possible_cpus().map_err(OpenError::Kernel)?;
        let kernel = Self { ebpf, cpus };
        kernel.fill(ends).map_err(OpenError::Kernel)?;
        Ok(kernel)
    }

    fn fill(&self, ends: &Ends) -> io::Result<()> {
        for (address, role) in ends.roles() {
            self.set_role(address, role)?;
        }
        for (index, network) in ends.networks().iter().enumerate() {
            let key = (index as u32).to_ne_bytes();
            syscall::update(self.map(&maps::BALANCERS), &key, network.as_bytes())?;
        }
        Ok(())
    }

    fn map(&self, spec: &MapSpec) -> BorrowedFd<'_> {
        map_data(&self.ebpf, spec.name).fd().as_fd()
    }

    /// Says what an address is; 0: nothing.
    pub(crate) fn set_role(&self, address: IpAddr, role: u32) -> io::Result<()> {
        let (map, key) = (self.map(&maps::ADDRESSES), crate::decap::target(address));
        if role == 0 {
            return syscall::delete(map, key.as_bytes());
        }
        syscall::update(map, key.as_bytes(), &role.to_ne_bytes())
    }

    /// What the verifier and the JIT said of each program.
    pub(crate) fn programs(&mut self) -> Vec<ProgramReport> {
        let xdp = object::report(progs::XDP_DECAPSULATE, xdp(&mut self.ebpf).info());
        let tc = object::report(progs::TC_DECAPSULATE, classifier(&mut self.ebpf).info());
        xdp.into_iter().chain(tc).collect()
    }

    /// Binds a program to an interface, of a name and an index.
    pub(crate) fn attach(
        &mut self,
        (interface, ifindex): (&str, u32),
        pins: Option<&Path>,
        hook: Hook,
    ) -> io::Result<Attachment> {
        let place = Place { interface, ifindex, pins };
        match hook {
            Hook::Xdp(how) => attach::xdp(xdp(&mut self.ebpf), place, how),
            Hook::Tc => attach::tc(classifier(&mut self.ebpf), place),
        }
    }

    /// Runs a frame through a program (`BPF_PROG_TEST_RUN`).
    pub(crate) fn replay(&mut self, hook: Hook, frame: &[u8]) -> io::Result<Decapsulated> {
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        let (result, dropped) = match hook {
            Hook::Xdp(_) => (xdp(&mut self.ebpf).test_run(options), XDP_DROP),
            Hook::Tc => (classifier(&mut self.ebpf).test_run(options), TC_ACT_SHOT),
        };
        let result = result.map_err(io::Error::other)?;
        out.truncate(result.data_size_out as usize);
        let fate = match result.return_value {
            value if value == dropped => Fate::Drop(None),
            _ if out == frame => Fate::Pass,
            _ => Fate::Unwrapped,
        };
        Ok(Decapsulated { fate, frame: out })
    }

    /// What was dropped for a reason.
    pub(crate) fn dropped(&self, reason: DropReason) -> io::Result<Tally> {
        self.tally(&maps::DROPS, reason as u32)
    }

    /// What else was counted.
    pub(crate) fn counted(&self, counter: Counter) -> io::Result<Tally> {
        self.tally(&maps::COUNTERS, counter as u32)
    }

    fn tally(&self, spec: &MapSpec, index: u32) -> io::Result<Tally> {
        let sums = syscall::sum_per_cpu(self.map(spec), (index, spec.value), self.cpus)?;
        Ok(Tally { packets: sums[0], bytes: sums[1] })
    }
}

/// `include/uapi/linux/bpf.h`.
const XDP_DROP: u32 = 1;
/// `include/uapi/linux/pkt_cls.h`.
const TC_ACT_SHOT: u32 = 2;

fn xdp(ebpf: &mut Ebpf) -> &mut Xdp {
    let program = ebpf.program_mut(progs::XDP_DECAPSULATE);
    program.and_then(|program| program.try_into().ok()).expect("the object has that program")
}

fn classifier(ebpf: &mut Ebpf) -> &mut SchedClassifier {
    let program = ebpf.program_mut(progs::TC_DECAPSULATE);
    program.and_then(|program| program.try_into().ok()).expect("the object has that program")
}

/// Loads each program by itself, and drops it.
pub(crate) fn verify(object: &[u8], ends: &Ends) -> Result<Vec<Verification>, OpenError> {
    let ebpf = make_maps(object, ends)?;
    let typed = map_data(&ebpf, maps::BALANCERS.name);
    let one = |name, kind| verify::all(&[name], kind, (object, &ebpf), typed);
    let mut all = one(progs::XDP_DECAPSULATE, ProgramKind::XdpFrags)?;
    for name in &progs::PROGRAMS[1..] {
        all.extend(one(name, ProgramKind::Classifier)?);
    }
    Ok(all)
}

/// The object with its maps made, and its programs not loaded yet.
fn make_maps(object: &[u8], ends: &Ends) -> Result<Ebpf, OpenError> {
    let sizes = vec![(&maps::ADDRESSES, ADDRESSES as u32)];
    object::make_maps(object, &ends.settings(), &Maps { all: maps::ALL, sizes, pins: None })
}

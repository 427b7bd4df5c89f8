//! The decisions that an embedder makes before a decapsulator is opened.

use std::{borrow::Cow, net::IpAddr, path::PathBuf};

use flowgate_ebpf_progs::decap as progs;
use ipnet::IpNet;

use super::{Decapsulator, Ends, Report, decapsulator::Tables, host::HostEnds};
use crate::{
    builder::Backend,
    error::OpenError,
    pins::LinkPins,
    report::BackendKind,
    sys::{
        decap::{KernelEnds, verify},
        probe,
    },
    verification::Verification,
};

/// What a decapsulator is made of.
#[must_use]
#[derive(Clone, Debug, Default)]
pub struct Builder {
    backend: Backend,
    ends: Ends,
    pins: Option<PathBuf>,
    object: Option<Cow<'static, [u8]>>,
}

impl Builder {
    /// Where addresses lie; the kernel, if nothing is said.
    pub const fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Takes tunnels to an address of this host: the backend's, as its balancers know it. At least one.
    pub fn tunnel_end(mut self, address: IpAddr) -> Self {
        self.ends.tunnel_ends.push(address);
        self
    }

    /// Lets packets to a service's address out of tunnels; all others are dropped.
    pub fn service(mut self, address: IpAddr) -> Self {
        self.ends.services.push(address);
        self
    }

    /// Takes tunnels from a network of balancers (`Uplink::source4` and `source6` there), up to 32 of them. If
    /// none is named, from everybody: then whoever reaches this host can send packets to its services in any
    /// client's name.
    pub fn balancers(mut self, network: IpNet) -> Self {
        self.ends.balancers.push(network);
        self
    }

    /// Takes tunnels in UDP to a port (GUE, variant 1), too; 0: none.
    pub const fn gue(mut self, port: u16) -> Self {
        self.ends.gue_port = port;
        self
    }

    /// Pins the links below a directory of a BPF file system, so that they outlive a killed process and are
    /// adopted by the next one that is opened with the same directory: packets are decapsulated all the time.
    /// One decapsulator at a time has a directory.
    pub fn pin(mut self, directory: impl Into<PathBuf>) -> Self {
        self.pins = Some(directory.into());
        self
    }

    /// Loads another object than the one that ships with `flowgate-ebpf-progs`.
    pub fn object(mut self, object: impl Into<Cow<'static, [u8]>>) -> Self {
        self.object = Some(object.into());
        self
    }

    /// Opens the decapsulator. Nothing is decapsulated until it is attached.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is left behind.
    pub fn open(self) -> Result<Decapsulator, OpenError> {
        self.ends.check()?;
        match self.backend {
            Backend::Kernel => self.open_kernel(),
            Backend::Host => Ok(self.open_host()),
        }
    }

    /// Has the running kernel's verifier judge each program, and keeps nothing of it; see
    /// [`crate::Builder::verify`].
    ///
    /// # Errors
    /// A missing capability, or maps that the kernel refuses. A program that it refuses is no error.
    pub fn verify(&self) -> Result<Vec<Verification>, OpenError> {
        probe::permitted()?;
        verify(self.object_bytes(), &self.ends)
    }

    fn object_bytes(&self) -> &[u8] {
        self.object.as_deref().unwrap_or(progs::OBJECT)
    }

    fn open_host(self) -> Decapsulator {
        let tables = Tables::Host(Box::new(HostEnds::new(&self.ends)));
        let report =
            Report { backend: BackendKind::Host, programs: Vec::new(), kernel: String::new() };
        Decapsulator::new((tables, self.ends), None, report)
    }

    fn open_kernel(self) -> Result<Decapsulator, OpenError> {
        let probe = probe::probe(probe::MINIMUM)?;
        let pins = self.pins.as_deref().map(LinkPins::open).transpose()?;
        let mut kernel = KernelEnds::load(self.object_bytes(), &self.ends)?;
        let report = Report {
            backend: BackendKind::Kernel,
            programs: kernel.programs(),
            kernel: probe.release,
        };
        let tables = Tables::Kernel(Box::new(kernel));
        Ok(Decapsulator::new((tables, self.ends), pins, report))
    }
}

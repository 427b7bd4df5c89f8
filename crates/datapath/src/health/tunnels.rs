//! The programs, and their interfaces.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use flowgate_ebpf_progs::decap as progs;

use super::{AttachError, Checks};
use crate::{
    error::OpenError,
    sys::{
        health::{Attachment, Programs},
        link::Link,
        probe,
    },
};

/// The programs that take checks into tunnels. Dropping it detaches them.
#[derive(Debug)]
pub struct Tunnels {
    attachments: BTreeMap<u32, Attachment>,
    programs: Programs,
    checks: Checks,
}

impl Tunnels {
    /// Loads the programs. No check goes through a tunnel until they are attached.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open() -> Result<Self, OpenError> {
        Self::open_object(progs::OBJECT)
    }

    /// Loads them from another object than the one that ships with `flowgate-ebpf-progs`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_object(object: impl Into<Cow<'static, [u8]>>) -> Result<Self, OpenError> {
        let _ = probe::probe(probe::MINIMUM)?;
        let (programs, table) = Programs::load(&object.into())?;
        let checks = Checks::new(Arc::new(table));
        Ok(Self { attachments: BTreeMap::new(), programs, checks })
    }

    /// Binds the programs to an Ethernet interface by which packets go to backends and answers come; nothing
    /// happens if they are.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach(&mut self, interface: &str) -> Result<(), AttachError> {
        let name = || interface.to_owned();
        let link = Link::by_name(interface)
            .map_err(|source| AttachError::UnknownInterface { interface: name(), source })?;
        if self.attachments.contains_key(&link.ifindex) {
            return Ok(());
        }
        let attached = self.programs.attach(interface);
        let attached =
            attached.map_err(|source| AttachError::Refused { interface: name(), source })?;
        self.attachments.insert(link.ifindex, attached);
        Ok(())
    }

    /// Takes the programs off an interface; nothing happens if they aren't there, or if the interface is gone.
    pub fn detach(&mut self, interface: &str) {
        if let Ok(link) = Link::by_name(interface) {
            self.attachments.remove(&link.ifindex);
        }
    }

    /// What has checks go through tunnels.
    #[must_use]
    pub fn checks(&self) -> Checks {
        self.checks.clone()
    }
}

//! What an extension has to look at: what is new in it, and what may have come away from the running plan
//! since that was written.
//!
//! Invariant: every network and every open endpoint that isn't as the extended plan says is among it.
//! Tested below: beside many pods it is few. That it is enough, `tests/extension.rs` and
//! `tests/extension_chain.rs` show.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::{Binding, Installer, Store};
use crate::{extension::Extension, plan::Plan};

/// What to look at.
pub(super) struct Concern<'a> {
    pub(super) networks: BTreeSet<IpNet>,
    /// What is new; `None`: nobody knows what the tables have, so it is everything.
    pub(super) extension: Option<&'a Extension>,
}

impl Concern<'_> {
    /// An endpoint may not be as it was planned.
    pub(super) fn has(&self, binding: &Binding) -> bool {
        let Some(extension) = self.extension else { return true };
        let named = binding.workload.as_ref();
        named.is_none_or(|workload| extension.delta.workloads.contains(workload))
            || binding.prefixes().next().is_none()
            || binding.prefixes().any(|net| self.networks.contains(&net))
    }

    /// The slots that own networks of these.
    pub(super) fn owners<S: Store>(&self, installer: &Installer<S>) -> HashMap<IpNet, u32> {
        let slots = installer.bindings.iter();
        let all = slots.flat_map(|(slot, binding)| binding.prefixes().map(|net| (net, *slot)));
        all.filter(|(net, _)| self.networks.contains(net)).collect()
    }
}

impl<S: Store> Installer<S> {
    /// What an extension concerns, which may be there already.
    pub(super) fn concern<'a>(&self, extension: &'a Extension, is_there: bool) -> Concern<'a> {
        let plan = &extension.plan;
        let Some(strays) = &self.strays else {
            let there = self.ipcache.iter().map(|(net, _)| net);
            let networks = there.chain(plan.ipcache.iter().map(|(net, _)| *net)).collect();
            return Concern { networks, extension: None };
        };
        let new = extension.delta.networks.iter().filter(|_| !is_there);
        Concern {
            networks: strays.iter().chain(new).copied().collect(),
            extension: Some(extension),
        }
    }

    /// These networks may not lead where the running plan says.
    pub(super) fn stray(&mut self, networks: impl Iterator<Item = IpNet>) {
        if let Some(strays) = &mut self.strays {
            strays.extend(networks);
        }
    }

    /// All networks lead where the running plan says.
    pub(super) fn has_settled_all(&mut self) {
        self.strays = Some(BTreeSet::new());
    }
}

/// The peer of a network in a plan, if it has that network.
pub(super) fn peer_in(plan: &Plan, net: &IpNet) -> Option<u32> {
    let at = plan.ipcache.binary_search_by_key(net, |(net, _)| *net).ok()?;
    Some(plan.ipcache[at].1)
}

#[cfg(test)]
mod tests {
    use flowgate_identity::{Labels, LocalAllocator};

    use super::*;
    use crate::{
        compile::Session,
        host::HostTables,
        install::EndpointAddress,
        inventory::{Workload, WorkloadRef},
        options::Options,
    };

    const PODS: u32 = 500;

    fn pod(number: u32, app: &str) -> Workload {
        Workload {
            id: WorkloadRef { namespace: "shop".into(), name: format!("pod-{number}").into() },
            labels: Labels::from_iter([("app", app)]),
            addresses: vec![[198, 18, number.to_be_bytes()[2], number.to_be_bytes()[3]].into()],
            ports: vec![],
            node: None,
            host_network: false,
        }
    }

    /// Pods of which no two are alike.
    fn session(pods: u32) -> Session<LocalAllocator> {
        let mut session = Session::new(LocalAllocator::new(), Options::default());
        (0..pods).for_each(|number| session.set_workload(pod(number, &format!("app-{number}"))));
        session
    }

    /// Beside many pods one joins, another leaves and a third is attached: three networks are looked at.
    #[test]
    fn what_stays_is_not_looked_at() {
        let mut session = session(PODS);
        let running = session.plan().unwrap();
        let room = self::session(2 * PODS).plan().unwrap();
        let Ok(mut installer) = Installer::adopt(HostTables::for_plan(&room));
        let _ = installer.apply(&running).unwrap();
        session.set_workload(pod(PODS, "new"));
        session.remove_workload(&pod(7, "").id);
        let extension = Extension::of(&running, &session.plan().unwrap()).unwrap();
        let v4 = Some([198, 18, 0, 3].into());
        let address = EndpointAddress { ifindex: 5, v4, ..EndpointAddress::default() };
        installer.attach(pod(3, "").id, address).unwrap();
        let networks = |numbers: [u32; 3]| -> BTreeSet<IpNet> {
            numbers.into_iter().map(|number| pod(number, "").addresses[0].into()).collect()
        };
        let concern = installer.concern(&extension, false);
        assert_eq!(concern.networks, networks([3, 7, PODS]));
        assert_eq!(concern.owners(&installer).len(), 1);
        assert_eq!((extension.delta.new.len(), extension.delta.gone.len()), (1, 1));
        assert!(installer.extend(&extension).unwrap() < 20);
        assert!(installer.concern(&extension, true).networks.is_empty(), "nothing is left to do");
    }

    /// Where nobody knows what the tables have, all is looked at.
    #[test]
    fn after_adoption_everything_is_looked_at() {
        let running = session(PODS).plan().unwrap();
        let extension = Extension::of(&running, &running).unwrap();
        let Ok(installer) = Installer::adopt(HostTables::for_plan(&running));
        let concern = installer.concern(&extension, false);
        assert_eq!(concern.networks.len(), running.ipcache.len());
        assert!(concern.extension.is_none());
    }
}

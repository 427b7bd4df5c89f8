//! Who defined what, and whose an address is.
//!
//! Invariant: an object has one definition, and an address one owner.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use flowgate_policy::model::PolicyRef;

use crate::{
    Location, Reason,
    error::ManifestError,
    field::{Field, Read},
    location::ObjectName,
    object::{Object, Parsed},
    places::{PolicyPlaces, RulePlaces},
};

/// An object says that it has an address.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) address: IpAddr,
    /// Whose it is. A host-network pod claims for its node.
    pub(crate) owner: ObjectName,
    pub(crate) at: Box<Location>,
}

impl Claim {
    /// Adds the address in `field`, unless it is there already.
    pub(crate) fn add(claims: &mut Vec<Self>, field: &Field<'_>, owner: ObjectName) -> Read<()> {
        let address = field.address()?;
        if claims.iter().all(|claim| claim.address != address) {
            claims.push(Self { address, owner, at: field.location() });
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct Owned {
    owner: ObjectName,
    at: Option<Box<Location>>,
}

/// The definitions and addresses so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    objects: BTreeMap<ObjectName, Location>,
    addresses: BTreeMap<IpAddr, Owned>,
    /// Where each policy and its rules are.
    pub(crate) policies: BTreeMap<PolicyRef, PolicyPlaces>,
    /// Where each node stands in the inventory.
    pub(crate) nodes: BTreeMap<Arc<str>, usize>,
}

impl Index {
    /// Refuses what contradicts the objects so far.
    pub(crate) fn check(&self, parsed: &Parsed) -> Result<(), ManifestError> {
        if let Some(first) = self.objects.get(&parsed.name) {
            let first = Box::new(first.clone());
            return Err(ManifestError::new(parsed.at.clone(), Reason::DuplicateObject { first }));
        }
        parsed.claims.iter().try_for_each(|claim| self.check_claim(claim))
    }

    fn check_claim(&self, claim: &Claim) -> Result<(), ManifestError> {
        match self.addresses.get(&claim.address) {
            Some(Owned { owner, at }) if *owner != claim.owner => {
                let (address, owner, first) = (claim.address, owner.clone(), at.clone());
                let reason = Reason::AddressTaken { address, owner, first };
                Err(ManifestError::new(claim.at.as_ref().clone(), reason))
            }
            _ => Ok(()),
        }
    }

    /// Adds what was checked.
    pub(crate) fn add(&mut self, parsed: &Parsed) {
        self.objects.insert(parsed.name.clone(), parsed.at.clone());
        let (policies, rules) = match &parsed.object {
            Object::Policy(policy) => (std::slice::from_ref(policy), parsed.rules.clone()),
            // Which of the object's lists a rule comes from isn't known.
            Object::Policies(policies) => (policies.as_slice(), RulePlaces::default()),
            _ => return self.claim(parsed),
        };
        for policy in policies {
            let places = PolicyPlaces::of(policy, &parsed.at, &rules);
            self.policies.insert(policy.id.clone(), places);
        }
        self.claim(parsed);
    }

    fn claim(&mut self, parsed: &Parsed) {
        for Claim { address, owner, at } in &parsed.claims {
            let owned = Owned { owner: owner.clone(), at: Some(at.clone()) };
            self.addresses.entry(*address).or_insert(owned);
        }
    }

    /// Adds an address that was assigned.
    pub(crate) fn assign(&mut self, address: IpAddr, owner: ObjectName) {
        self.addresses.insert(address, Owned { owner, at: None });
    }
}

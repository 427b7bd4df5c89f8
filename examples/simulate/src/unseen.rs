//! Policies that differ, and of which a difference of plans says nothing.
//!
//! A plan knows the pods, nodes and networks of its manifests alone. What a policy says about pods that
//! aren't among them can't differ: where that is so, it is told, lest it be taken for no change.

use std::collections::{BTreeMap, BTreeSet};

use flowgate_kubernetes::Manifests;
use flowgate_policy::{
    inventory::Inventory,
    model::{Policy, PolicyRef, Subject},
};

/// What is to be told; `same`: the plans decide the same.
pub(crate) fn notes(before: &Manifests, after: &Manifests, same: bool) -> Vec<String> {
    let [old, new] = [before, after].map(Set::new);
    let ids: BTreeSet<&PolicyRef> =
        old.policies.keys().chain(new.policies.keys()).copied().collect();
    let differing = ids.into_iter().filter(|id| old.policies.get(id) != new.policies.get(id));
    let (seen, unseen): (Vec<_>, Vec<_>) =
        differing.partition(|id| old.selects_somebody_by(id) || new.selects_somebody_by(id));
    let nobody = |id: &PolicyRef| format!("{id} differs, but selects nobody in these manifests");
    let mut notes: Vec<String> = unseen.into_iter().map(nobody).collect();
    if same && !seen.is_empty() {
        let names: Vec<String> = seen.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "nothing is decided differently for the pods, nodes and networks of these manifests, though \
             these policies differ: {}",
            names.join(", ")
        ));
    }
    notes
}

/// One of the sets.
struct Set<'a> {
    inventory: &'a Inventory,
    policies: BTreeMap<&'a PolicyRef, &'a Policy>,
}

impl<'a> Set<'a> {
    fn new(manifests: &'a Manifests) -> Self {
        let policies = manifests.policies.iter().map(|policy| (&policy.id, policy)).collect();
        Self { inventory: &manifests.inventory, policies }
    }

    fn selects_somebody_by(&self, id: &PolicyRef) -> bool {
        self.policies.get(id).is_some_and(|policy| selects_somebody(self.inventory, policy))
    }
}

fn selects_somebody(inventory: &Inventory, policy: &Policy) -> bool {
    match &policy.subject {
        Subject::Nodes(labels) => inventory.nodes.iter().any(|node| labels.matches(&node.labels)),
        Subject::Workloads(selector) => {
            let mut pods = inventory.workloads.iter().filter(|pod| !pod.host_network);
            pods.any(|pod| inventory.selects(selector, pod))
        }
    }
}

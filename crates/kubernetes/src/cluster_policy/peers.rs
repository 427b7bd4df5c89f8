//! Subjects and peers of the policies of the cluster.

use std::{collections::BTreeSet, sync::Arc};

use flowgate_identity::Selector;
use flowgate_policy::model::{NamespaceSelector, Peer, RuleAction, WorkloadSelector};

use super::{Api, Direction, SET_LIMIT, only, some};
use crate::{
    NameRule, Reason, Warning,
    field::{Field, Read},
    network_policy::network,
    selector::selector,
};

/// What selects pods, as a subject or as a peer.
const PODS: &[&str] = &["namespaces", "pods"];

pub(super) fn subject(field: &Field<'_>, api: &Api) -> Read<WorkloadSelector> {
    match only(field, PODS)? {
        ("pods", pods) => of_pods(&pods, api),
        (_, namespaces) => of_namespaces(&namespaces),
    }
}

/// The peers in the list `field`.
pub(super) fn read(
    field: &Field<'_>,
    api: &Api,
    direction: &Direction,
    action: RuleAction,
) -> Read<Vec<Peer>> {
    let known = if direction.peers == "to" { api.egress_peers } else { PODS };
    let mut peers = Vec::new();
    for field in some(field, api.limit)? {
        match only(&field, known)? {
            ("pods", pods) => peers.push(Peer::Workloads(of_pods(&pods, api)?)),
            ("nodes", nodes) => peers.push(Peer::Nodes(selector(&nodes)?)),
            ("networks", networks) => peers.extend(of_networks(&networks)?),
            ("domainNames", names) => peers.extend(of_domains(&names, api, action)?),
            (_, namespaces) => peers.push(Peer::Workloads(of_namespaces(&namespaces)?)),
        }
    }
    Ok(peers)
}

/// All pods of the namespaces.
fn of_namespaces(field: &Field<'_>) -> Read<WorkloadSelector> {
    refuse_older(field, &["namespaceSelector", "sameLabels", "notSameLabels"])?;
    let namespaces = NamespaceSelector::Matching(selector(field)?);
    Ok(WorkloadSelector { namespaces, labels: Selector::everything() })
}

fn of_pods(field: &Field<'_>, api: &Api) -> Read<WorkloadSelector> {
    refuse_older(field, &["namespaces"])?;
    field.deny_unknown(&["namespaceSelector", "podSelector"])?;
    let namespaces = match field.get("namespaceSelector")? {
        None if api.any_namespace => Selector::everything(),
        None => selector(&field.require("namespaceSelector")?)?,
        Some(given) => selector(&given)?,
    };
    Ok(WorkloadSelector {
        namespaces: NamespaceSelector::Matching(namespaces),
        labels: selector(&field.require("podSelector")?)?,
    })
}

/// What v1alpha1 had in its first releases. It selects by comparison with the subject, or by a
/// selector one level deeper, and whoever writes it means it.
fn refuse_older(field: &Field<'_>, older: &[&str]) -> Read<()> {
    let entries = field.entries()?;
    match entries.iter().find(|(key, _)| older.contains(&key.as_ref())) {
        Some((_, found)) => Err(found.error(Reason::OlderField)),
        None => Ok(()),
    }
}

fn of_networks(list: &Field<'_>) -> Read<Vec<Peer>> {
    let fields = set(list)?;
    let peer = |field: &Field<'_>| Ok(Peer::Cidr { cidr: network(field)?, except: Vec::new() });
    fields.iter().map(peer).collect()
}

fn of_domains(list: &Field<'_>, api: &Api, action: RuleAction) -> Read<Vec<Peer>> {
    if action != RuleAction::Allow {
        return Err(list.error(Reason::DomainsWithoutAllow { allow: api.allow }));
    }
    let fields = set(list)?;
    list.warn(Warning::UnresolvedDomains { at: list.location() });
    let peer =
        |field: &Field<'_>| Ok(Peer::Domain(Arc::clone(field.name(NameRule::DomainPattern)?)));
    fields.iter().map(peer).collect()
}

/// The strings of a list in which none occurs twice.
fn set<'a>(list: &Field<'a>) -> Read<Vec<Field<'a>>> {
    let fields = some(list, SET_LIMIT)?;
    let mut seen = BTreeSet::new();
    for field in &fields {
        if !seen.insert(field.string()?) {
            return Err(field.error(Reason::DuplicateItem));
        }
    }
    Ok(fields)
}

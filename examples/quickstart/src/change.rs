//! A change of policy that takes one connection away and leaves another alone.
//!
//! It is found by trying: each rule of each policy is left out in turn, and as a last resort each
//! namespace is closed, until the prediction says that of the TCP flows that were allowed one is
//! denied and one still allowed.

use std::sync::Arc;

use flowgate_identity::{LocalAllocator, Selector};
use flowgate_policy::{
    compile::{CompileError, Compiler},
    inventory::Inventory,
    model::{NamespaceSelector, Policy, PolicyKind, PolicyRef, Rule, WorkloadSelector},
    options::Options,
    outcome::{Flow, FlowProtocol},
};

use crate::{answer::Answer, question::Question};

/// As many changes are tried; each compiles all policies.
const TRIALS: usize = 64;
/// As many connections are looked at on each side when two are chosen.
const CHOICE: usize = 1000;

/// A change, and two connections that show it.
#[derive(Debug)]
pub(crate) struct Change<'q> {
    /// What is changed, in words.
    pub(crate) what: String,
    /// The policies afterwards.
    pub(crate) policies: Vec<Policy>,
    pub(crate) revoked: Connection<'q>,
    pub(crate) kept: Connection<'q>,
}

/// A TCP connection between two pods.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection<'q> {
    pub(crate) question: &'q Question<'q>,
    pub(crate) flow: Flow,
}

/// Looks for a change. There may be none, for instance where nothing is allowed.
pub(crate) fn find<'q>(
    inventory: &Inventory,
    policies: &[Policy],
    answers: &[Answer<'q>],
) -> Result<Option<Change<'q>>, CompileError> {
    let allowed = allowed_connections(answers);
    for (what, changed) in candidates(inventory, policies).take(TRIALS) {
        let mut compiler = Compiler::new(LocalAllocator::new());
        let plan = compiler.compile(inventory, &changed, &Options::default())?;
        let (kept, revoked): (Vec<Connection<'q>>, Vec<_>) =
            allowed.iter().partition(|connection| plan.decide(&connection.flow).allowed());
        if let Some((revoked, kept)) = closest(&revoked, &kept) {
            return Ok(Some(Change { what, policies: changed, revoked, kept }));
        }
    }
    Ok(None)
}

/// The two that have most in common, for the eye: the same server, or else the same client.
fn closest<'q>(
    revoked: &[Connection<'q>],
    kept: &[Connection<'q>],
) -> Option<(Connection<'q>, Connection<'q>)> {
    let kept = || kept.iter().take(CHOICE);
    let pairs = revoked.iter().take(CHOICE).flat_map(|r| kept().map(move |k| (*r, *k)));
    pairs.min_by_key(|(r, k)| {
        let (r, k) = (r.question, k.question);
        (r.to.id != k.to.id, r.from.id != k.from.id)
    })
}

fn allowed_connections<'q>(answers: &[Answer<'q>]) -> Vec<Connection<'q>> {
    let mut connections = Vec::new();
    for answer in answers.iter().filter(|answer| answer.allowed()) {
        // One family is enough to show it.
        let (_, flow) = answer.question.flows[0];
        if matches!(flow.protocol, FlowProtocol::Tcp(_)) {
            connections.push(Connection { question: answer.question, flow });
        }
    }
    connections
}

/// The changes to try, each with what it is in words.
fn candidates<'a>(
    inventory: &'a Inventory,
    policies: &'a [Policy],
) -> impl Iterator<Item = (String, Vec<Policy>)> + 'a {
    let without_a_rule = (0..policies.len()).flat_map(|number| without_a_rule(policies, number));
    let closed = inventory.namespaces.keys().map(|namespace| closed(policies, namespace));
    without_a_rule.chain(closed)
}

/// A policy's rules, left out one by one.
fn without_a_rule(policies: &[Policy], number: usize) -> Vec<(String, Vec<Policy>)> {
    let policy = &policies[number];
    let mut changes = Vec::new();
    let mut change = |direction: &str, rule: usize, changed: Policy| {
        let what = format!("{} loses its {direction} rule {}", policy.id, rule + 1);
        let mut all = policies.to_vec();
        all[number] = changed;
        changes.push((what, all));
    };
    for rule in 0..policy.ingress.iter().flatten().count() {
        let ingress = without(&policy.ingress, rule);
        change("ingress", rule, Policy { ingress, ..policy.clone() });
    }
    for rule in 0..policy.egress.iter().flatten().count() {
        let egress = without(&policy.egress, rule);
        change("egress", rule, Policy { egress, ..policy.clone() });
    }
    changes
}

fn without(rules: &Option<Vec<Rule>>, number: usize) -> Option<Vec<Rule>> {
    let mut rules = rules.clone()?;
    rules.remove(number);
    Some(rules)
}

/// One policy more, which lets nothing into a namespace.
fn closed(policies: &[Policy], namespace: &Arc<str>) -> (String, Vec<Policy>) {
    let id = PolicyRef {
        kind: PolicyKind::NetworkPolicy,
        namespace: Arc::clone(namespace),
        name: "closed-by-quickstart".into(),
    };
    let what = format!("{id} is added, which lets nothing in");
    let subject = WorkloadSelector {
        namespaces: NamespaceSelector::Named(Arc::clone(namespace)),
        labels: Selector::everything(),
    };
    let mut all = policies.to_vec();
    all.push(Policy { ingress: Some(Vec::new()), ..Policy::new(id, subject) });
    (what, all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{question, scenario};

    #[test]
    fn the_built_in_example_has_one() {
        let manifests = scenario::read(&[]).unwrap();
        let pods = scenario::pods(&manifests);
        let questions = question::questions(&pods);
        let mut compiler = Compiler::new(LocalAllocator::new());
        let (inventory, policies) = (&manifests.inventory, &manifests.policies);
        let plan = compiler.compile(inventory, policies, &Options::default()).unwrap();
        let predict = |q| Answer::predict(q, |flow| Ok::<_, CompileError>(plan.decide(flow)));
        let answers: Vec<_> = questions.iter().map(|q| predict(q).unwrap()).collect();
        let change = find(inventory, policies, &answers).unwrap().unwrap();
        assert_eq!(change.what, "NetworkPolicy/shop/cart loses its ingress rule 1");
        assert_eq!(change.revoked.question.from.id.to_string(), "shop/front");
        assert_eq!(change.kept.question.to.id.to_string(), "shop/cart");
    }

    #[test]
    fn nothing_allowed_means_no_change() {
        let manifests = scenario::read(&[]).unwrap();
        let change = find(&manifests.inventory, &manifests.policies, &[]).unwrap();
        assert!(change.is_none());
    }
}

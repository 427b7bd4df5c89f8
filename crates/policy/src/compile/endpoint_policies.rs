//! Endpoint policies: what isolates an endpoint in one direction, as a group of rows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use flowgate_abi::policy::{Action, Decision, Direction};

use crate::{
    compile::{
        classes::{PeerClasses, Resolved},
        error::{CompileError, Numbered},
        peers::Endpoint,
        ports::{PortClasses, PortSet},
        rules::{NameId, PlainRule, PolicyId, RulePorts, Rules},
        tables::{Allowed, ClassSetId, EVERY_PORT, Slices, Tables},
    },
    options::Options,
    peer_key::NamedPorts,
};

/// What makes the policies of two endpoints the same.
#[derive(PartialEq, Eq, Hash)]
struct Key<'a> {
    direction: usize,
    policies: &'a [PolicyId],
    own: Vec<Resolved>,
    node: Option<&'a Arc<str>>,
}

/// Makes endpoint policies and, with them, rows and decisions.
pub(super) struct EndpointPolicies<'a> {
    rules: &'a Rules,
    classes: &'a PeerClasses<'a>,
    ports: &'a PortClasses,
    pub(super) tables: Tables,
    pub(super) groups: Slices,
    known: HashMap<Key<'a>, u32>,
    /// The port classes of what rules name by number.
    by_number: HashMap<&'a PortSet, Vec<u16>>,
}

impl<'a> EndpointPolicies<'a> {
    pub(super) fn new(
        rules: &'a Rules,
        classes: &'a PeerClasses<'a>,
        ports: &'a PortClasses,
        options: &Options,
    ) -> Self {
        let limit = (Numbered::RowCells, options.max_cells);
        Self {
            rules,
            classes,
            ports,
            tables: Tables::new(ports.count, options.max_cells),
            groups: Slices::new(classes.count as usize, limit),
            known: HashMap::new(),
            by_number: HashMap::new(),
        }
    }

    /// The number of the policy of `endpoint` in `direction`.
    pub(super) fn number(
        &mut self,
        endpoint: &Endpoint<'a>,
        direction: Direction,
    ) -> Result<u32, CompileError> {
        let key = self.key(endpoint, direction);
        if let Some(&number) = self.known.get(&key) {
            return Ok(number);
        }
        let group = self.group(&key)?;
        let number = self.groups.intern(&group)?;
        self.known.insert(key, number);
        Ok(number)
    }

    fn key(&self, endpoint: &Endpoint<'a>, direction: Direction) -> Key<'a> {
        let policies = &self.rules.isolating[direction as usize][endpoint.kind as usize];
        let ingress = direction == Direction::Ingress && !policies.is_empty();
        let node = endpoint.node.filter(|node| ingress && self.classes.of_node.contains_key(node));
        let own = if ingress { self.own(policies, &endpoint.ports) } else { Vec::new() };
        Key { direction: direction as usize, policies, own, node }
    }

    /// What the endpoint declares under the names that its own ingress rules use.
    fn own(&self, policies: &[PolicyId], ports: &NamedPorts) -> Vec<Resolved> {
        let rules = &self.rules.of_policy[Direction::Ingress as usize];
        let rules = policies.iter().flat_map(|&policy| &rules[policy as usize]);
        let mut names: Vec<NameId> =
            rules.filter_map(|rule| Some(&rule.ports.as_ref()?.names)).flatten().copied().collect();
        names.sort_unstable();
        names.dedup();
        let resolve = |name: NameId| {
            let (text, protocol) = &self.rules.names[name as usize];
            (name, ports.resolve(text, *protocol))
        };
        names.into_iter().map(resolve).filter(|(_, ports)| !ports.is_empty()).collect()
    }

    fn group(&mut self, key: &Key<'a>) -> Result<Vec<u16>, CompileError> {
        let default = self.default_decision(key.policies);
        let default_row = self.tables.flat_row(default)?;
        let mut group = vec![default_row; self.classes.count as usize];
        group[0] = 0;
        let default = self.tables.decision(default)?;
        for (class, allowed) in self.allowed(key) {
            group[usize::from(class)] = self.tables.row(default, allowed)?;
        }
        if let Some(classes) = key.node.and_then(|node| self.classes.of_node.get(node)) {
            let row = self.tables.flat_row(Decision::new(Action::Allow, 0, 0))?;
            for &class in classes {
                group[usize::from(class)] = row;
            }
        }
        Ok(group)
    }

    fn default_decision(&mut self, policies: &[PolicyId]) -> Decision {
        let action = if policies.is_empty() { Action::Allow } else { Action::Deny };
        Decision::new(action, Decision::DEFAULT, self.tables.cookie(policies))
    }

    /// What the rules allow, by peer class.
    fn allowed(&mut self, key: &Key<'a>) -> BTreeMap<u16, Vec<Allowed>> {
        let rules = self.rules;
        let mut allowed: BTreeMap<u16, Vec<Allowed>> = BTreeMap::new();
        for &policy in key.policies {
            for rule in &rules.of_policy[key.direction][policy as usize] {
                for (class, set) in self.matched(rule, key) {
                    allowed.entry(class).or_default().push((policy, set));
                }
            }
        }
        allowed
    }

    /// The peer classes that a rule matches, each with the port classes that it names there.
    fn matched(&mut self, rule: &'a PlainRule, key: &Key<'a>) -> Vec<(u16, ClassSetId)> {
        let classes = self.classes;
        let matched = &classes.of_set[rule.peers as usize];
        let Some(ports) = &rule.ports else {
            return matched.iter().map(|&class| (class, EVERY_PORT)).collect();
        };
        if ports.names.is_empty() || key.direction == Direction::Ingress as usize {
            let set = self.class_set(ports, &key.own);
            return set
                .into_iter()
                .flat_map(|set| matched.iter().map(move |&c| (c, set)))
                .collect();
        }
        let named = |class: u16| &classes.named[usize::from(class)];
        let sets = matched.iter().map(|&class| Some((class, self.class_set(ports, named(class))?)));
        sets.flatten().collect()
    }

    /// The port classes that a rule names, if it names any at a destination that declares `named`.
    fn class_set(&mut self, ports: &'a RulePorts, named: &[Resolved]) -> Option<ClassSetId> {
        let all = self.ports;
        let mut classes =
            self.by_number.entry(&ports.numbers).or_insert_with_key(|set| all.of(set)).clone();
        for (name, resolved) in named.iter().filter(|(name, _)| ports.names.contains(name)) {
            let protocol = self.rules.names[*name as usize].1;
            classes.extend(all.of(&resolved.iter().map(|&port| (protocol, port, port)).collect()));
        }
        classes.sort_unstable();
        classes.dedup();
        (!classes.is_empty()).then(|| self.tables.class_set(classes))
    }
}

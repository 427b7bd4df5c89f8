//! Endpoint policies: what applies to an endpoint in one direction, as a group of rows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use flowgate_abi::policy::Direction;

use crate::{
    compile::{
        classes::{PeerClasses, Resolved},
        error::{CompileError, Numbered},
        peers::Endpoint,
        ports::{PortClasses, PortSet, table},
        rules::{NameId, PlainRule, RulePorts, Rules, Standing},
        ruling::{Isolating, Match},
        subjects::PolicyId,
        tables::{ClassSetId, EVERY_PORT, Slices, Tables},
    },
    model::Tier,
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
        let policies = &self.rules.subjects.applying[direction as usize][endpoint.kind as usize];
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
        let isolating = self.isolating(key);
        let mut group = vec![self.tables.row(&isolating, Vec::new())?; self.classes.count as usize];
        group[0] = 0;
        for (class, matches) in self.matches(key) {
            group[usize::from(class)] = self.tables.row(&isolating, matches)?;
        }
        if let Some(classes) = key.node.and_then(|node| self.classes.of_node.get(node)) {
            let row = self.tables.allowed_row()?;
            for &class in classes {
                group[usize::from(class)] = row;
            }
        }
        Ok(group)
    }

    fn isolating(&self, key: &Key<'a>) -> Vec<Isolating> {
        let standing = |policy: PolicyId| self.rules.standing[policy as usize];
        let isolating = key.policies.iter().filter(|id| standing(**id).isolates[key.direction]);
        let isolating = isolating.map(|&policy| (policy, standing(policy)));
        isolating
            .map(|(policy, Standing { mode, response, .. })| Isolating { policy, mode, response })
            .collect()
    }

    /// The rules that match, by peer class.
    fn matches(&mut self, key: &Key<'a>) -> BTreeMap<u16, Vec<Match>> {
        let rules = self.rules;
        let mut matches: BTreeMap<u16, Vec<Match>> = BTreeMap::new();
        for &policy in key.policies {
            let Standing { tier, mode, response, .. } = rules.standing[policy as usize];
            for rule in &rules.of_policy[key.direction][policy as usize] {
                let place = if tier == Tier::Namespace { 0 } else { rule.place };
                for (class, ports) in self.matched(rule, key) {
                    let action = rule.action;
                    let one = Match { tier, policy, rule: place, action, mode, response, ports };
                    matches.entry(class).or_default().push(one);
                }
            }
        }
        matches
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
            let table = table(self.rules.names[*name as usize].1);
            classes.extend(all.of(&resolved.iter().map(|&port| (table, port, port)).collect()));
        }
        classes.sort_unstable();
        classes.dedup();
        (!classes.is_empty()).then(|| self.tables.class_set(classes))
    }
}

//! Groups of rows: what applies to an endpoint in one direction, by class of peers.
//!
//! A group is a function of the policies that apply, of what the endpoint itself declares, and of the
//! peers. So where none of these has changed it is taken over from the plan before: a class of peers
//! has the row that the class had in which some peer of it was. Only classes of which no peer was
//! there, and groups that are new, are worked out from rules.
//!
//! Invariant: a group that was taken over is the one that rules would have given. Tested by editing
//! at random, each step compared with a compilation from nothing (`tests/session.rs`).

use std::{collections::HashMap, sync::Arc};

use flowgate_abi::policy::Direction;

use crate::{
    compile::{
        census::Census,
        classes::{PeerClasses, Resolved, resolve},
        group::Group,
        interned::Interned,
        policies::{Applying, PolicyId, Standing, Version},
        population::Endpoint,
        ports::PortSet,
        rows::{RowId, RowMaker},
        rules::{EVERYBODY, PlainRule},
        ruling::{Isolating, Match},
    },
    model::Tier,
};

/// A number of a group.
pub(super) type GroupId = u32;

/// What makes the groups of two endpoints the same, whichever plan they are of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    direction: usize,
    policies: Vec<Version>,
    own: Vec<Resolved>,
    node: Option<Arc<str>>,
}

/// The groups of a plan, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    pub(super) all: Interned<Arc<Group>>,
    pub(super) by_key: HashMap<Key, GroupId>,
}

/// Where classes of peers come from.
#[derive(Debug)]
pub(super) struct Lineage {
    /// By class of the plan before: the classes that it has become.
    become_of: Vec<Vec<u16>>,
    /// The classes that nobody of it is in, ascending.
    fresh: Vec<u16>,
    /// Each class has become the one of its number: every group is what it was.
    same: bool,
}

impl Lineage {
    /// `representatives`: by peer, a peer of the plan before.
    pub(super) fn new(
        classes: &PeerClasses,
        before: &PeerClasses,
        representatives: &[Option<u32>],
    ) -> Self {
        let mut origin: Vec<Option<u16>> = vec![None; classes.count as usize];
        for (&class, representative) in classes.of_peer.iter().zip(representatives) {
            if let Some(peer) = representative {
                origin[usize::from(class)] = Some(before.of_peer[*peer as usize]);
            }
        }
        let become_of = vec![Vec::new(); before.count as usize];
        let mut lineage = Self { become_of, fresh: Vec::new(), same: false };
        for (class, origin) in (0..=u16::MAX).zip(origin).skip(1) {
            match origin {
                Some(origin) => lineage.become_of[usize::from(origin)].push(class),
                None => lineage.fresh.push(class),
            }
        }
        lineage.same = (classes.count, classes.world) == (before.count, before.world)
            && lineage.fresh.is_empty()
            && (0..).zip(&lineage.become_of).skip(1).all(|(class, now)| *now == [class]);
        lineage
    }
}

/// The groups of the plan before, and what its classes have become.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    pub(super) groups: &'a Groups,
    pub(super) lineage: &'a Lineage,
}

/// Makes groups.
pub(super) struct GroupMaker<'a> {
    pub(super) census: &'a Census,
    pub(super) applying: &'a Applying,
    pub(super) classes: &'a PeerClasses,
    pub(super) rows: RowMaker<'a>,
    pub(super) before: Option<Before<'a>>,
    pub(super) made: Groups,
}

impl GroupMaker<'_> {
    /// The group of an endpoint in a direction.
    pub(super) fn group(&mut self, endpoint: &Endpoint, direction: Direction) -> GroupId {
        let applying = self.applying;
        let policies = applying.to(direction, endpoint.subject);
        let key = self.key(endpoint, direction, policies);
        if let Some(&known) = self.made.by_key.get(&key) {
            return known;
        }
        let known = self.before.and_then(|before| {
            let number = before.groups.by_key.get(&key)?;
            Some((before.groups.all.get(*number), before.lineage))
        });
        let group = match known {
            Some((before, lineage)) if lineage.same => Arc::clone(before),
            Some((before, lineage)) => Arc::new(self.taken_over(before, lineage, &key, policies)),
            None => Arc::new(self.by_rules(&key, policies)),
        };
        let number = self.made.all.intern(&group);
        self.made.by_key.insert(key, number);
        number
    }

    fn key(&self, endpoint: &Endpoint, direction: Direction, policies: &[PolicyId]) -> Key {
        let options = self.census.options();
        let judged = direction == Direction::Ingress && !policies.is_empty();
        let node = endpoint.node.as_ref().or(options.local_node.as_ref());
        let version = |policy: &PolicyId| self.applying.policies[*policy as usize].version;
        Key {
            direction: direction as usize,
            policies: policies.iter().map(version).collect(),
            own: if judged { self.own(endpoint, policies) } else { Vec::new() },
            node: node.filter(|_| judged && options.allow_local_node).cloned(),
        }
    }

    /// What the endpoint declares under the names that its own ingress rules use.
    fn own(&self, endpoint: &Endpoint, policies: &[PolicyId]) -> Vec<Resolved> {
        let declared = self.census.ports.get(endpoint.ports);
        if declared.is_empty() {
            return Vec::new();
        }
        let entries = policies.iter().map(|&policy| &self.applying.policies[policy as usize]);
        let rules = entries.flat_map(|entry| entry.rules(Direction::Ingress));
        let names = rules.filter_map(|rule| Some(&rule.ports.as_ref()?.names)).flatten();
        let mut names: Vec<_> = names.copied().collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter_map(|name| resolve(self.rows.terms, name, declared)).collect()
    }

    fn by_rules(&mut self, key: &Key, policies: &[PolicyId]) -> Group {
        let isolating = self.isolating(key, policies);
        let (base, named) = self.matches(key, policies, None);
        let rest = self.rows.row(&isolating, base.clone());
        let mut rows = self.rows_of(&isolating, &base, named);
        self.exempt(key, &mut rows, None);
        self.finish(rest, rows)
    }

    fn taken_over(
        &mut self,
        before: &Group,
        lineage: &Lineage,
        key: &Key,
        policies: &[PolicyId],
    ) -> Group {
        let of = |&(class, row): &(u16, RowId)| {
            lineage.become_of[usize::from(class)].iter().map(move |&class| (class, row))
        };
        let mut rows: Vec<(u16, RowId)> = before.others.iter().flat_map(of).collect();
        if !lineage.fresh.is_empty() {
            rows.extend(self.fresh_rows(&lineage.fresh, key, policies));
        }
        rows.sort_unstable();
        self.finish(before.rest, rows)
    }

    /// The rows of some classes, from rules.
    fn fresh_rows(&mut self, fresh: &[u16], key: &Key, policies: &[PolicyId]) -> Vec<(u16, RowId)> {
        let isolating = self.isolating(key, policies);
        let (base, named) = self.matches(key, policies, Some(fresh));
        let rest = self.rows.row(&isolating, base.clone());
        let mut rows: Vec<(u16, RowId)> = fresh.iter().map(|&class| (class, rest)).collect();
        for (class, row) in self.rows_of(&isolating, &base, named) {
            if let Ok(at) = rows.binary_search_by_key(&class, |(class, _)| *class) {
                rows[at].1 = row;
            }
        }
        self.exempt(key, &mut rows, Some(fresh));
        rows
    }

    fn isolating(&self, key: &Key, policies: &[PolicyId]) -> Vec<Isolating> {
        let standing = |policy: &PolicyId| self.applying.policies[*policy as usize].standing;
        let isolating = policies.iter().filter(|id| standing(id).isolates[key.direction]);
        let isolating = isolating.map(|policy| (*policy, standing(policy)));
        isolating
            .map(|(policy, Standing { mode, response, .. })| Isolating { policy, mode, response })
            .collect()
    }

    /// The rules that match everybody, and those that match some classes; `only`: of these alone.
    fn matches(
        &mut self,
        key: &Key,
        policies: &[PolicyId],
        only: Option<&[u16]>,
    ) -> (Vec<Match>, Vec<(u16, Match)>) {
        let mut found = Matches { base: Vec::new(), named: Vec::new(), only };
        for &policy in policies {
            let entry = &self.applying.policies[policy as usize];
            let standing = entry.standing;
            let direction = if key.direction == 0 { Direction::Egress } else { Direction::Ingress };
            for rule in entry.rules(direction) {
                let place = if standing.tier == Tier::Namespace { 0 } else { rule.place };
                let one = Match {
                    tier: standing.tier,
                    policy,
                    rule: place,
                    action: rule.action,
                    mode: standing.mode,
                    response: standing.response,
                    ports: None,
                };
                self.match_rule(rule, one, key, &mut found);
            }
        }
        (found.base, found.named)
    }

    fn match_rule(&mut self, rule: &PlainRule, one: Match, key: &Key, found: &mut Matches<'_>) {
        let classes = self.classes;
        let all = || (rule.peers != EVERYBODY).then(|| classes.of_list(rule.peers));
        let Some(ports) = &rule.ports else { return found.add(all(), one) };
        if let Some(numbers) = ports.numbers {
            found.add(all(), Match { ports: Some(numbers), ..one });
        }
        if ports.names.is_empty() {
            return;
        }
        if key.direction == Direction::Ingress as usize {
            for resolved in key.own.iter().filter(|(name, _)| ports.names.contains(name)) {
                found.add(all(), Match { ports: Some(self.port_set(resolved)), ..one });
            }
            return;
        }
        for &class in all().unwrap_or(&classes.declaring) {
            let named = &classes.named[usize::from(class)];
            for resolved in named.iter().filter(|(name, _)| ports.names.contains(name)) {
                let ports = Some(self.port_set(resolved));
                found.add(Some(&[class]), Match { ports, ..one });
            }
        }
    }

    fn port_set(&mut self, (name, ports): &Resolved) -> u32 {
        let protocol = self.rows.terms.names.get(*name).1;
        self.rows.terms.port_sets.intern(&PortSet::named(protocol, ports))
    }

    fn rows_of(
        &mut self,
        isolating: &[Isolating],
        base: &[Match],
        mut named: Vec<(u16, Match)>,
    ) -> Vec<(u16, RowId)> {
        named.sort_by_key(|(class, _)| *class);
        let classes = named.chunk_by(|(a, _), (b, _)| a == b);
        let mut rows = Vec::new();
        for chunk in classes {
            let matches = base.iter().copied().chain(chunk.iter().map(|(_, one)| *one));
            rows.push((chunk[0].0, self.rows.row(isolating, matches.collect())));
        }
        rows
    }

    /// The endpoint's own node may reach it.
    fn exempt(&mut self, key: &Key, rows: &mut Vec<(u16, RowId)>, only: Option<&[u16]>) {
        let Some(classes) = key.node.as_ref().and_then(|node| self.classes.of_node.get(node))
        else {
            return;
        };
        let allowed = self.rows.allowed();
        for &class in
            classes.iter().filter(|class| only.is_none_or(|only| only.binary_search(class).is_ok()))
        {
            match rows.binary_search_by_key(&class, |(class, _)| *class) {
                Ok(at) => rows[at].1 = allowed,
                Err(at) => rows.insert(at, (class, allowed)),
            }
        }
    }

    /// A group in the one form that it has: its rest is the row of the class of the unknown.
    fn finish(&self, rest: RowId, mut rows: Vec<(u16, RowId)>) -> Group {
        let world = self.classes.world;
        let found = rows.binary_search_by_key(&world, |(class, _)| *class);
        let unknown = found.map_or(rest, |at| rows[at].1);
        if unknown != rest {
            let mut every = vec![rest; self.classes.count as usize];
            for (class, row) in rows {
                every[usize::from(class)] = row;
            }
            rows = (0..).zip(every).skip(1).collect();
        }
        rows.retain(|(_, row)| *row != unknown);
        Group::new(unknown, rows)
    }
}

/// Matching rules, in the making.
struct Matches<'a> {
    base: Vec<Match>,
    named: Vec<(u16, Match)>,
    only: Option<&'a [u16]>,
}

impl Matches<'_> {
    /// `None`: every class.
    fn add(&mut self, classes: Option<&[u16]>, one: Match) {
        let Some(classes) = classes else { return self.base.push(one) };
        let only = self.only;
        let wanted = classes
            .iter()
            .filter(|class| only.is_none_or(|only| only.binary_search(class).is_ok()));
        self.named.extend(wanted.map(|&class| (class, one)));
    }
}

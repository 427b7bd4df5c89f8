//! Workloads come, go and change their labels at random, by an extension wherever the change is one; in between
//! some join by a placement, others leave, and links are attached anew. After each step flows are decided about as in
//! a plan that was compiled from nothing.

use std::{net::IpAddr, sync::Arc};

use flowgate_conformance::{
    generate::{Case, Generator},
    links::links,
    room,
};
use flowgate_identity::LocalAllocator;
use flowgate_policy::{
    compile::{Compiler, Session},
    extension::Extension,
    host::HostTables,
    install::Installer,
    inventory::{Inventory, Workload},
    options::Options,
    outcome::Flow,
    plan::Plan,
    roster::Roster,
    simulate::simulate,
};

const CHAINS: usize = 25;
const STEPS: usize = 16;

/// Who is there of a case's workloads, what it compiles to, and the tables that run it.
struct Chain {
    case: Case,
    session: Session<LocalAllocator>,
    installer: Installer<HostTables>,
    running: Arc<Plan>,
    absent: Vec<Workload>,
    extended: usize,
    placed: usize,
}

impl Chain {
    /// All links are there from the beginning, and everybody is.
    fn new(case: Case) -> Self {
        let mut session = Session::new(LocalAllocator::new(), Options::default());
        let Inventory { namespaces, nodes, workloads } = &case.inventory;
        for (name, labels) in namespaces {
            session.set_namespace(name, Some(labels.clone()));
        }
        nodes.iter().for_each(|node| session.set_node(node.clone()));
        workloads.iter().for_each(|workload| session.set_workload(workload.clone()));
        case.policies.iter().for_each(|policy| session.set_policy(policy.clone()));
        let mut installer = Installer::adopt(room::tables()).expect("empty tables");
        for (workload, address) in links(&case.inventory) {
            installer.attach(workload, address).expect("room");
        }
        let running = session.plan().expect("a sound case");
        let _ = installer.apply(&running).expect("fits");
        Self { case, session, installer, running, absent: Vec::new(), extended: 0, placed: 0 }
    }

    /// Somebody comes, goes, or gets the labels of another; now and then several at once.
    fn edit(&mut self, generator: &mut Generator) {
        for _ in 0..=generator.below(2) {
            let present = self.session.inventory().workloads;
            let own: Vec<_> = present.iter().filter(|one| !one.host_network).collect();
            let Some(one) = pick(generator, &own) else { return };
            match generator.below(5) {
                0 | 1 if own.len() > 1 => {
                    self.absent.push((*one).clone());
                    self.session.remove_workload(&one.id);
                }
                2 => {
                    let labels = pick(generator, &own).map_or(&one.labels, |other| &other.labels);
                    let relabelled = Workload { labels: labels.clone(), ..(*one).clone() };
                    self.session.set_workload(relabelled);
                }
                _ => self.absent.drain(..).for_each(|back| self.session.set_workload(back)),
            }
        }
    }

    /// What the running plan doesn't know of: those who are absent take a place in it, somebody leaves, or gets
    /// a new link.
    fn meanwhile(&mut self, generator: &mut Generator) {
        let all = &self.case.inventory.workloads;
        let own: Vec<_> = all.iter().filter(|one| !one.host_network).collect();
        let Some(one) = pick(generator, &own).cloned() else { return };
        match generator.below(4) {
            0 | 1 => self.absent.clone().iter().for_each(|one| self.place(one)),
            2 => {
                self.installer.remove(&one.id, &one.addresses).expect("host tables");
            }
            _ => self.relink(&one),
        }
    }

    fn place(&mut self, one: &Workload) {
        let labels = self.case.inventory.namespace_labels(&one.id.namespace);
        if let Ok(placement) = Roster::new(&self.running).add(one, &labels) {
            self.installer.add(&placement).expect("fits");
            self.placed += 1;
        }
    }

    fn relink(&mut self, one: &Workload) {
        let bindings = self.installer.bindings();
        let mine = bindings.filter(|(_, binding)| binding.workload.as_ref() == Some(&one.id));
        let (mine, addresses): (Vec<_>, Vec<_>) =
            mine.map(|(slot, binding)| (slot, binding.address)).unzip();
        self.installer.detach(&mine).expect("host tables");
        for address in addresses {
            self.installer.attach(one.id.clone(), address).expect("room");
        }
    }

    /// By an extension, or else as a generation.
    fn step(&mut self) {
        let next = self.session.plan().expect("a sound case");
        let generation = self.installer.generation();
        match Extension::of(&self.running, &next) {
            Ok(extension) => {
                self.installer.extend(&extension).expect("fits");
                assert_eq!(self.installer.generation(), generation, "no flip");
                self.running = Arc::clone(extension.plan());
                self.extended += 1;
            }
            Err(_) => {
                let _ = self.installer.apply(&next).expect("fits");
                self.running = next;
            }
        }
    }

    fn check(&self, generator: &mut Generator) {
        let inventory = self.session.inventory();
        let mut compiler = Compiler::new(LocalAllocator::new());
        let options = Options::default();
        let plan = compiler.compile(&inventory, &self.case.policies, &options).expect("sound");
        let is_absent = |end: &IpAddr| self.absent.iter().any(|one| one.addresses.contains(end));
        for _ in 0..25 {
            let flow: Flow = generator.flow(&self.case);
            let seen = simulate(self.installer.store(), &self.running, &flow);
            if [flow.source, flow.destination].iter().any(is_absent) {
                // Its link is still there, and closed.
                let closed = seen.as_ref().map_or(true, |seen| !seen.allowed());
                assert!(closed || seen == Ok(plan.decide(&flow)), "{flow}: {seen:?}");
            } else {
                assert_eq!(seen, Ok(plan.decide(&flow)), "{flow}\n{inventory:#?}");
            }
        }
    }
}

/// Everybody of a namespace as the first one there, so that who is absent may have a place.
fn alike(mut case: Case) -> Case {
    let workloads = &mut case.inventory.workloads;
    for at in 0..workloads.len() {
        let namespace = workloads[at].id.namespace.clone();
        let is_first = |one: &&Workload| one.id.namespace == namespace && !one.host_network;
        let Some(first) = workloads.iter().find(is_first).cloned() else { continue };
        let one = &mut workloads[at];
        if !one.host_network {
            let Workload { labels, ports, node, .. } = first;
            *one = Workload { labels, ports, node, ..one.clone() };
        }
    }
    case
}

fn pick<'a, T>(generator: &mut Generator, of: &[&'a T]) -> Option<&'a T> {
    let at = generator.below(of.len().max(1) as u64);
    of.get(usize::try_from(at).ok()?).copied()
}

#[test]
fn a_chain_of_extensions_decides_as_a_compilation_from_nothing() {
    let mut generator = Generator::new(91);
    let (mut extended, mut placed) = (0, 0);
    for number in 0..CHAINS {
        let case = generator.case();
        let mut chain = Chain::new(if number % 2 == 0 { case } else { alike(case) });
        for step in 0..STEPS {
            chain.edit(&mut generator);
            chain.meanwhile(&mut generator);
            chain.step();
            chain.check(&mut generator);
            if step % 3 == 0 {
                chain.installer.settle().expect("host tables");
            }
        }
        extended += chain.extended;
        placed += chain.placed;
    }
    println!("{extended} of {} steps were extensions, {placed} had a place", CHAINS * STEPS);
    assert!(placed > 3);
    assert!(extended * 4 > CHAINS * STEPS && extended < CHAINS * STEPS);
}

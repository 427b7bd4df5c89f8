//! Events may arrive in any order: an agent over flowgate's parts comes to the same decisions whatever the
//! order, and at no single write allows what both the state before and the state after deny.
//!
//! The API server has one history: [`history`] makes some, changes of namespaces, pods, policies and nodes, group
//! after group. Policies speak of pods and of nodes, the agent's own among them. What an agent is told of it comes in streams of its own for each kind, and what happens
//! on its node (a pod's link comes or goes) in another: [`arrival`] puts them into any order. [`agent`] is the
//! agent: it compiles, applies, places and removes, and is killed now and then. [`verdicts`] sends packets
//! through the hooks after every write.
//!
//! What an agent must do for this is in [`arrival::Inbox`]: wait until all kinds have come as far, and never
//! go by half of a change. An endpoint is closed meanwhile.

mod agent;
mod arrival;
mod history;
mod late_labels;
mod verdicts;

use flowgate_conformance::{generate::Generator, parallel};

use crate::{
    agent::Agent,
    arrival::{Inbox, Message, Streams},
    history::History,
    verdicts::Watch,
};

/// What came of some orders.
#[derive(Default)]
struct Tally {
    applied: usize,
    placed: usize,
    removed: usize,
    restarts: usize,
    nodes: usize,
    allowed: usize,
    asked: usize,
    denied_at_node: usize,
}

impl Tally {
    fn and(self, other: Self) -> Self {
        Self {
            applied: self.applied + other.applied,
            placed: self.placed + other.placed,
            removed: self.removed + other.removed,
            restarts: self.restarts + other.restarts,
            nodes: self.nodes + other.nodes,
            allowed: self.allowed + other.allowed,
            asked: self.asked + other.asked,
            denied_at_node: self.denied_at_node + other.denied_at_node,
        }
    }
}

/// Lets an agent meet a history in one order.
fn run(history: &History, watch: Watch, generator: &mut Generator) -> (Vec<bool>, Tally) {
    let mut streams = Streams::of(history, generator);
    let mut agent = Agent::start(watch);
    let mut inbox = Inbox::new();
    let mut restarts = 0;
    while let Some(message) = streams.next(generator) {
        match message {
            Message::Attach(id, addresses) => agent.attach(&id, &addresses),
            Message::Detach(id) => agent.detach(&id),
            message => {
                if let Some(state) = inbox.take(message) {
                    agent.advance(state);
                }
            }
        }
        if generator.below(60) == 0 {
            agent = agent.restart();
            inbox = Inbox::new();
            streams.list_again(history, generator);
            restarts += 1;
        }
    }
    agent.is_at(history.last());
    agent.fill_vacancies();
    let (decisions, denied_at_node) = (agent.decisions(), agent.denied_at_node());
    let Agent { applied, placed, removed, .. } = agent;
    let allowed = decisions.iter().filter(|allowed| **allowed).count();
    let asked = decisions.len();
    let tally =
        Tally { applied, placed, removed, restarts, nodes: 0, allowed, asked, denied_at_node };
    (decisions, tally)
}

/// A history in twenty orders.
fn orders(number: usize) -> Tally {
    let mut generator = Generator::new(4248 + number as u64);
    let history = History::generate(&mut generator);
    let questions = verdicts::questions(&history, &mut generator);
    let mut first = None;
    let mut all = Tally { nodes: history.nodes_changed(), ..Tally::default() };
    for order in 0..20 {
        // After every write in one order, after some in the others.
        let watch = Watch::new(questions.clone(), if order == 0 { 1 } else { 41 });
        let (decisions, tally) = run(&history, watch, &mut generator);
        assert_eq!(*first.get_or_insert_with(|| decisions.clone()), decisions, "{number}");
        all = all.and(tally);
    }
    all
}

#[test]
fn a_thousand_orders_of_events_come_to_the_same_and_allow_nothing_between() {
    let all = parallel::fold(50, orders, Tally::and);
    let Tally { applied, placed, removed, restarts, nodes, allowed, asked, denied_at_node } = all;
    println!(
        "{applied} plans; {placed} pods joined and {removed} left without; {restarts} restarts"
    );
    println!("{nodes} nodes came, went or changed");
    println!("{allowed} of {asked} flows allowed in the end, {denied_at_node} denied at the node");
    assert!(applied > 2000 && placed > 200 && removed > 200 && restarts > 500 && nodes > 30);
    assert!(denied_at_node > 100);
    assert!(allowed * 10 > asked && allowed * 10 < asked * 9);
}

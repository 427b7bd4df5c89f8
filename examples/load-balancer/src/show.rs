//! Answers of the admin API as text.

use std::{collections::HashMap, fmt::Write};

use crate::{
    api::answer::{Backend, Done, Explained, Flows, Named, Service, Simulated, Stats, Status},
    health::Health,
    table::table,
};

/// What an answer looks like.
pub(crate) trait Show {
    /// Lines of text.
    fn show(&self) -> String;
}

impl Show for Status {
    fn show(&self) -> String {
        let mut text = format!(
            "flowgate-lb {} (process {}), up {}\nconfiguration {}\n",
            self.version,
            self.pid,
            time(self.uptime),
            self.config
        );
        let mut line = |text_of_line: String| {
            writeln!(text, "{text_of_line}").expect("a string takes all text");
        };
        if let Some(why) = &self.refused {
            line(format!("NOT TAKEN OVER: {why}"));
        }
        for one in &self.interfaces {
            line(one.to_string());
            if let Some(notice) = one.notice {
                line(format!("interface {}: {notice}", one.name));
            }
        }
        line(format!("{} services, {} backends, {} down", self.services, self.backends, self.down));
        line(format!("{} packets dropped", self.dropped));
        self.changes
            .iter()
            .for_each(|change| line(format!("changed since the file was read: {change}")));
        text
    }
}

impl Show for Vec<Service> {
    fn show(&self) -> String {
        let header = ["service", "addresses", "port", "forwarding", "slots", "backends", "active"];
        let row = |one: &Service| {
            let addresses: Vec<String> = one.addresses.iter().map(ToString::to_string).collect();
            let protocol = format!("{:?}", one.protocol).to_lowercase();
            vec![
                one.name.clone(),
                addresses.join(" "),
                format!("{}/{protocol}", one.port),
                one.forwarding.clone(),
                one.slots.to_string(),
                one.backends.to_string(),
                one.active.to_string(),
            ]
        };
        table(&header, self.iter().map(row))
    }
}

impl Show for Vec<Backend> {
    fn show(&self) -> String {
        let header = ["service", "backend", "weight", "state", "health", "since", "last failure"];
        let row = |one: &Backend| {
            vec![
                one.service.clone(),
                one.address.to_string(),
                one.weight.to_string(),
                one.state.clone(),
                one.health.map_or("-", health).to_owned(),
                one.since.map_or_else(|| "-".to_owned(), time),
                one.failure.clone().unwrap_or_default(),
            ]
        };
        table(&header, self.iter().map(row))
    }
}

impl Show for Stats {
    fn show(&self) -> String {
        rates(None, self)
    }
}

impl Show for Vec<Flows> {
    fn show(&self) -> String {
        let row = |one: &Flows| {
            let slots = [one.slots, one.moving_slots, one.pending_slots].map(u64::from);
            let numbers = slots.into_iter().chain([one.tracked, one.refused]);
            let mut row = vec![one.service.clone()];
            row.extend(numbers.map(|number| number.to_string()));
            row
        };
        table(
            &["service", "slots", "moving", "pending", "tracked", "refused"],
            self.iter().map(row),
        )
    }
}

impl Show for Done {
    fn show(&self) -> String {
        match self.changed.as_slice() {
            [] => "nothing to change\n".to_owned(),
            changed => changed.iter().map(|line| format!("{line}\n")).collect(),
        }
    }
}

impl Show for Explained {
    fn show(&self) -> String {
        let backend =
            self.backend.map_or_else(|| "nobody".to_owned(), |backend| backend.to_string());
        let translated = self.translated.map_or_else(String::new, |one| {
            format!("from {} to {}\n", one.source, one.destination)
        });
        let nobody = self.named.and_then(Named::why_nobody);
        let nobody = nobody.map_or_else(String::new, |why| format!("the id names nobody: {why}\n"));
        let Self { service, slot, why, .. } = self;
        format!("service {service}, slot {slot}: {backend}\n{translated}{nobody}{why}\n")
    }
}

impl Show for Vec<Simulated> {
    fn show(&self) -> String {
        let row = |(number, one): (usize, &Simulated)| {
            vec![
                number.to_string(),
                one.verdict.clone(),
                one.backend.map_or_else(String::new, |backend| backend.to_string()),
                one.reason.clone().unwrap_or_default(),
                one.frame.clone(),
            ]
        };
        table(&["packet", "verdict", "backend", "reason", "frame"], (1..).zip(self).map(row))
    }
}

/// What was counted, with rates since `before`.
pub(crate) fn rates(before: Option<&Stats>, now: &Stats) -> String {
    let seconds = before.map(|before| now.at.saturating_sub(before.at) as f64 / 1000.0);
    let earlier: HashMap<_, _> = before
        .iter()
        .flat_map(|stats| &stats.backends)
        .map(|one| ((&one.service, one.backend), one))
        .collect();
    let rate = |now: u64, before: Option<u64>| match (seconds, before) {
        (Some(seconds), Some(before)) if seconds > 0.0 => {
            format!("{:.0}", now.saturating_sub(before) as f64 / seconds)
        }
        _ => String::new(),
    };
    let mut header = vec!["service", "backend", "packets", "bytes", "flows"];
    if before.is_some() {
        header.extend(["packets/s", "bytes/s", "flows/s"]);
    }
    let rows = now.backends.iter().map(|one| {
        let old = earlier.get(&(&one.service, one.backend));
        let mut row = vec![one.service.clone(), one.backend.to_string()];
        row.extend([one.packets, one.bytes, one.opened].map(|number| number.to_string()));
        row.push(rate(one.packets, old.map(|old| old.packets)));
        row.push(rate(one.bytes, old.map(|old| old.bytes)));
        row.push(rate(one.opened, old.map(|old| old.opened)));
        row
    });
    let mut text = table(&header, rows);
    for one in &now.sources {
        let retired = if one.retired { ", no new ones" } else { "" };
        writeln!(
            text,
            "source {}: {} of {} ports taken{retired}",
            one.source, one.taken, one.ports
        )
        .expect("a string takes all text");
    }
    for drop in &now.drops {
        writeln!(text, "dropped: {} ({})", drop.packets, drop.reason)
            .expect("a string takes all text");
    }
    text
}

const fn health(health: Health) -> &'static str {
    match health {
        Health::Unknown => "unknown",
        Health::Up => "up",
        Health::Down => "down",
    }
}

/// Seconds for the eye.
fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::answer::{Counted, Dropped};

    fn stats(at: u64, packets: u64) -> Stats {
        let backend = [198, 18, 0, 1].into();
        let counted =
            Counted { service: "web".into(), backend, packets, bytes: packets * 100, opened: 1 };
        let drops = vec![Dropped { reason: "no backend".into(), packets: 2 }];
        Stats { at, backends: vec![counted], drops, sources: Vec::new() }
    }

    #[test]
    fn rates_are_what_came_in_between() {
        let text = rates(Some(&stats(1000, 100)), &stats(3000, 500));
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["web", "198.18.0.1", "500", "50000", "1", "200", "20000", "0"]);
        assert!(text.ends_with("dropped: 2 (no backend)\n"));
        assert!(!stats(0, 1).show().contains("/S"));
    }

    #[test]
    fn an_id_that_names_nobody_is_told() {
        let explained = |named| Explained {
            service: "web".into(),
            slot: 7,
            backend: Some([198, 18, 0, 1].into()),
            translated: None,
            named,
            why: "the slot's backend".into(),
        };
        let told = |named| explained(named).show().lines().nth(1).map(str::to_owned);
        let is = |line: &str| Some(line.to_owned());
        assert_eq!(told(None), is("the slot's backend"));
        assert_eq!(
            told(Some(Named::Nobody { server_id: 11 })),
            is("the id names nobody: no backend has server id 11")
        );
        let backend = Named::Backend { server_id: 11, address: [198, 18, 0, 1].into() };
        assert_eq!(told(Some(backend)), is("the slot's backend"));
        for named in [Named::NoServerId, Named::Unread] {
            assert!(told(Some(named)).unwrap().starts_with("the id names nobody: "), "{named:?}");
        }
    }

    #[test]
    fn times_are_short() {
        let times = [5, 65, 3700, 90_000].map(time);
        assert_eq!(times, ["5s", "1m05s", "1h01m", "1d01h"]);
    }
}

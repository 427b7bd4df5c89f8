//! The answers as text.

use serde::Serialize;

use crate::{
    answer::{Answer, Half, Judgement},
    cli::Format,
    probe::Family,
    table,
};

const HEADER: [&str; 7] = ["FROM", "TO", "PORT", "PROTO", "ALLOWED", "EGRESS", "INGRESS"];

/// One line for each answer; in a table, one more for each family where they differ.
pub(crate) fn print(format: Format, answers: &[Answer<'_>]) -> String {
    match format {
        Format::Json => json(answers),
        Format::Table => table(answers),
    }
}

/// A line of JSON for each.
pub(crate) fn json<T: Serialize>(answers: &[T]) -> String {
    let mut text = Vec::with_capacity(answers.len() * 256);
    for answer in answers {
        serde_json::to_writer(&mut text, answer).expect("strings and numbers are JSON");
        text.push(b'\n');
    }
    String::from_utf8(text).expect("JSON is UTF-8")
}

fn table(answers: &[Answer<'_>]) -> String {
    let mut rows = vec![HEADER.map(str::to_owned)];
    for answer in answers {
        rows.push(row(answer));
        rows.extend(answer.families.iter().flatten().map(|(family, j)| row_of_family(*family, j)));
    }
    table::print(&rows)
}

fn row(answer: &Answer<'_>) -> [String; 7] {
    let port = match (answer.port, answer.icmp_type, answer.code) {
        (Some(port), _, _) => port.to_string(),
        (None, Some(icmp_type), Some(code)) => format!("type {icmp_type} code {code}"),
        (None, Some(icmp_type), None) => format!("type {icmp_type}"),
        (None, None, Some(code)) => format!("code {code}"),
        (None, None, None) => "-".to_owned(),
    };
    let [allowed, egress, ingress] = cells(&answer.judgement);
    let (from, to) = (answer.from.to_owned(), answer.to.to_owned());
    [from, to, port, answer.proto.to_string(), allowed, egress, ingress]
}

fn row_of_family(family: Family, judgement: &Judgement) -> [String; 7] {
    let [allowed, egress, ingress] = cells(judgement);
    let empty = String::new;
    [format!("  over {family}"), empty(), empty(), empty(), allowed, egress, ingress]
}

fn cells(judgement: &Judgement) -> [String; 3] {
    let allowed = if judgement.allowed { "yes" } else { "no" };
    [allowed.to_owned(), cell(&judgement.egress), cell(&judgement.ingress)]
}

pub(crate) fn cell(half: &Half) -> String {
    let mut text = half.verdict.clone();
    if let Some(response) = &half.response {
        text += &format!(" with {response}");
    }
    if !half.policies.is_empty() {
        text += &format!(" ({})", half.policies.join(", "));
    }
    text
}

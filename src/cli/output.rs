//! Results for people (a table) and for programs (JSON).

use std::io::Write as _;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::protocol::user::is_unprintable;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

/// Writes a line to standard output. Whoever closed it (`… | head`) has seen enough.
pub fn line(text: &str) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// A text, as it stands or as the one member of an object.
pub fn text(format: Format, name: &'static str, text: &str) {
    match format {
        Format::Table => line(text.trim_end()),
        Format::Json => line(&format!("{:#}", json!({ name: text }))),
    }
}

/// Says on standard error how to go on where a list ends at its limit.
pub fn more(items: &[Value], limit: i64, id: &str) {
    go_on(items, limit, id, "--after");
}

/// The same where the newest come first.
pub fn earlier(items: &[Value], limit: i64, id: &str) {
    go_on(items, limit, id, "--before");
}

fn go_on(items: &[Value], limit: i64, id: &str, flag: &str) {
    let last = items.last().and_then(|item| item[id].as_str());
    if let Some(last) = last.filter(|_| i64::try_from(items.len()) == Ok(limit)) {
        eprintln!("keyward: there may be more; go on with {flag} {last}");
    }
}

/// One thing: its members one a line, or a JSON object.
pub fn object(format: Format, value: &Value) {
    match (format, value) {
        (Format::Table, Value::Object(members)) => {
            let width = members.keys().map(|name| name.chars().count()).max().unwrap_or(0);
            for (name, value) in members {
                line(&format!("{name:width$}  {}", cell(value)));
            }
        }
        _ => line(&format!("{value:#}")),
    }
}

/// Several things of one kind: a table with these columns, or a JSON array of all members.
pub fn list(format: Format, columns: &[&str], items: &[Value]) {
    if format == Format::Json {
        line(&format!("{:#}", Value::Array(items.to_vec())));
        return;
    }
    let rows: Vec<Vec<String>> =
        items.iter().map(|item| columns.iter().map(|name| cell(&item[*name])).collect()).collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, name)| {
            rows.iter().map(|row| row[at].chars().count()).chain([name.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let print = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        line(padded.join("  ").trim_end());
    };
    print(&columns.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>());
    rows.iter().for_each(|row| print(row));
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => visible(text),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// Somebody's name must not move the cursor, nor make a row of its own.
fn visible(text: &str) -> String {
    let escape = |c: char| if is_unprintable(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Epoch milliseconds as RFC 3339 in UTC.
pub fn time(at: crate::protocol::time::Timestamp) -> String {
    at.rfc3339()
}

//! What was measured, as Markdown for `docs/performance.md`, and the verdict.

use std::fmt::Write as _;
use std::time::Duration;

use crate::client::Run;
use crate::rows::{Against, Row};

/// The least that a full table may leave of the speed of a small one.
const LARGE_FLOOR: f64 = 0.9;
/// A load generator that is busier than this is what was measured.
const GENERATOR_LIMIT: f64 = 0.95;

/// One run, as it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub per_second: f64,
    /// Milliseconds.
    pub p50: f64,
    pub p99: f64,
    /// Processor time of the server for one operation, in microseconds.
    pub micros: f64,
    /// How much of one core the load generator took.
    pub generator: f64,
    /// How much of one core everybody else took.
    pub others: f64,
}

/// Time that went by.
pub struct Spent {
    pub server: Duration,
    pub generator: Duration,
    /// Of everybody, these two included.
    pub machine: Duration,
    pub elapsed: Duration,
}

impl Spent {
    pub fn since(&self, before: &Self) -> Self {
        Self {
            server: self.server - before.server,
            generator: self.generator - before.generator,
            machine: self.machine - before.machine,
            elapsed: self.elapsed - before.elapsed,
        }
    }
}

impl Measured {
    pub fn new(run: &Run, spent: &Spent) -> Self {
        let share = |time: Duration| time.as_secs_f64() / spent.elapsed.as_secs_f64();
        Self {
            per_second: run.per_second,
            p50: run.percentile(0.5),
            p99: run.percentile(0.99),
            micros: spent.server.as_secs_f64() * 1e6 / run.operations_in_all.max(1) as f64,
            generator: share(spent.generator),
            others: share(spent.machine.saturating_sub(spent.server + spent.generator)),
        }
    }
}

/// The middle one.
pub fn median<T: Copy>(mut values: Vec<T>, by: impl Fn(&T) -> f64) -> Option<T> {
    values.sort_by(|a, b| by(a).total_cmp(&by(b)));
    values.get(values.len() / 2).copied()
}

/// A row of the table.
pub struct RowResult {
    pub row: &'static Row,
    /// Statements that the database got for one operation, at as many connections, where they could be counted.
    pub round_trips: Option<f64>,
    /// What stands in the table.
    pub shown: Measured,
    pub small: Measured,
    /// Where it can be held against `small`.
    pub large: Option<Measured>,
    pub bare: Measured,
    /// What the rate is held against.
    pub against: f64,
}

impl RowResult {
    fn ratio(&self) -> f64 {
        self.shown.per_second / self.against
    }

    fn large_ratio(&self) -> Option<f64> {
        self.large.map(|large| large.per_second / self.small.per_second)
    }
}

/// A single number with its limits; less is better.
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    pub floor: f64,
    pub aim: Option<f64>,
}

fn verdict(floor: bool, aim: Option<bool>) -> &'static str {
    match (floor, aim) {
        (false, _) => "**missed**",
        (true, Some(false)) => "floor met",
        (true, _) => "met",
    }
}

/// Collects what is printed, and whether every floor was reached.
#[derive(Default)]
pub struct Report {
    text: String,
    pub missed: Vec<String>,
    /// The database is a process of its own, which takes its share of the same cores out of every row that asks it:
    /// the floors are then only shown.
    pub database_apart: bool,
}

impl Report {
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn paragraph(&mut self, text: &str) {
        let _ = writeln!(self.text, "{text}\n");
    }

    pub fn rows(&mut self, heading: &str, results: &[RowResult], rows: (i64, i64)) {
        self.paragraph(&format!("### {heading}"));
        self.paragraph(
            "| operation | ops/s | p50 ms | p99 ms | CPU µs | database | bare ops/s | bare µs | against | ratio | floor \
             | aim | |\n|---|--:|--:|--:|--:|--:|--:|--:|---|--:|--:|--:|---|",
        );
        // A table is one paragraph: what was written last goes on.
        self.text.pop();
        for result in results {
            let ratio = result.ratio();
            let row = result.row;
            let reached = ratio >= row.floor;
            let verdict = match (reached, self.database_apart) {
                (false, true) => "below",
                _ => verdict(reached, row.aim.map(|aim| ratio >= aim)),
            };
            let aim = row.aim.map(|aim| format!("{aim:.2}")).unwrap_or_default();
            let against = match row.against {
                Against::Bare => row.against.name(),
                other => format!("{} {:.0}", other.name(), result.against),
            };
            let own = result.shown;
            let _ = writeln!(
                self.text,
                "| {} | {:.0} | {:.2} | {:.2} | {:.0} | {} | {:.0} | {:.0} | {against} | {ratio:.2} | {:.2} | {aim} \
                 | {verdict} |",
                row.name,
                own.per_second,
                own.p50,
                own.p99,
                own.micros,
                result.round_trips.map_or_else(|| "?".to_owned(), |count| format!("{count:.1}")),
                result.bare.per_second,
                result.bare.micros,
                row.floor,
            );
            if !reached && !self.database_apart {
                self.missed.push(format!("{heading}: {}: {ratio:.2} of {:.2}", row.name, row.floor));
            }
        }
        let _ = writeln!(self.text);
        self.company(results);
        if results.iter().any(|result| result.large.is_some()) {
            self.large(heading, results, rows);
        }
    }

    /// Whether the numbers are Keyward's: who else was busy meanwhile.
    fn company(&mut self, results: &[RowResult]) {
        let most = |measured: fn(&RowResult) -> f64| results.iter().map(measured).fold(0.0, f64::max);
        let (own, bare) = (most(|result| result.shown.generator), most(|result| result.bare.generator));
        let others = most(|result| result.shown.others.max(result.bare.others));
        let text = format!(
            "The load generator took at most {:.0} % of one core against Keyward and {:.0} % against the bare handler; \
             all other processes{} at most {:.0} %.",
            own * 100.0,
            bare * 100.0,
            if self.database_apart { ", the database among them," } else { "" },
            others * 100.0
        );
        self.paragraph(&text);
        if own.max(bare) > GENERATOR_LIMIT {
            self.paragraph("At its limit it is the load generator that was measured: those rows say too little.");
        }
    }

    fn large(&mut self, heading: &str, results: &[RowResult], (small, large): (i64, i64)) {
        let text = format!(
            "With {large} people and grants instead of {small}:\n\n| operation | ops/s at {small} | ops/s at {large} | p99 \
             ms | ratio | floor | |\n|---|--:|--:|--:|--:|--:|---|"
        );
        self.paragraph(&text);
        self.text.pop();
        for result in results {
            let (Some(full), Some(ratio)) = (result.large, result.large_ratio()) else { continue };
            let reached = ratio >= LARGE_FLOOR;
            let _ = writeln!(
                self.text,
                "| {} | {:.0} | {:.0} | {:.2} | {ratio:.2} | {LARGE_FLOOR:.2} | {} |",
                result.row.name,
                result.small.per_second,
                full.per_second,
                full.p99,
                verdict(reached, None)
            );
            if !reached {
                let name = result.row.name;
                self.missed.push(format!("{heading}: {name} with {large} rows: {ratio:.2} of {LARGE_FLOOR:.2}"));
            }
        }
        let _ = writeln!(self.text);
    }

    pub fn figures(&mut self, heading: &str, figures: &[Figure]) {
        self.paragraph(&format!("### {heading}"));
        self.paragraph("| what | value | at most | aim | |\n|---|--:|--:|--:|---|");
        self.text.pop();
        for figure in figures {
            let reached = figure.value <= figure.floor;
            let aim = figure.aim.map(|aim| format!("{aim:.0} {}", figure.unit)).unwrap_or_default();
            let _ = writeln!(
                self.text,
                "| {} | {:.1} {} | {:.0} {} | {aim} | {} |",
                figure.name,
                figure.value,
                figure.unit,
                figure.floor,
                figure.unit,
                verdict(reached, figure.aim.map(|aim| figure.value <= aim))
            );
            if !reached {
                let (value, floor, unit) = (figure.value, figure.floor, figure.unit);
                self.missed.push(format!("{heading}: {}: {value:.1} of {floor:.0} {unit}", figure.name));
            }
        }
        let _ = writeln!(self.text);
    }
}

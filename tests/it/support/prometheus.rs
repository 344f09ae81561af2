//! Reads the text format of Prometheus, strictly: what a real one would stumble over is a failure here.

use std::collections::{BTreeMap, BTreeSet};

/// One series: its name and its labels, sorted.
pub type Series = (String, BTreeMap<String, String>);

#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub values: BTreeMap<Series, f64>,
    /// `counter`, `gauge` or `histogram` by family.
    pub types: BTreeMap<String, String>,
    helped: BTreeSet<String>,
}

impl Metrics {
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        assert!(text.ends_with('\n'), "the last line has no end");
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(metrics.helped.insert(name.to_owned()) && !help.is_empty(), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(metrics.types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            } else {
                let (series, value) = sample(line);
                let family = metrics.family(&series.0).unwrap_or_else(|| panic!("no TYPE before it: {line}"));
                assert!(metrics.helped.contains(&family), "no HELP: {line}");
                assert!(metrics.values.insert(series, value).is_none(), "twice: {line}");
            }
        }
        metrics.check_histograms();
        metrics
    }

    /// The family of a sample; those of a histogram have a suffix.
    fn family(&self, name: &str) -> Option<String> {
        let stems = ["_bucket", "_sum", "_count"].iter().filter_map(|suffix| name.strip_suffix(suffix));
        let histogram = stems.into_iter().find(|stem| self.types.get(*stem).is_some_and(|kind| kind == "histogram"));
        let plain = self.types.get(name).filter(|kind| *kind != "histogram").map(|_| name);
        histogram.or(plain).map(str::to_owned)
    }

    fn check_histograms(&self) {
        let mut buckets: BTreeMap<Series, Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), value) in &self.values {
            let Some(stem) = name.strip_suffix("_bucket") else { continue };
            let mut rest = labels.clone();
            let le = rest.remove("le").unwrap_or_else(|| panic!("{name} without le"));
            let le = le.parse().unwrap_or_else(|_| panic!("le {le}"));
            buckets.entry((stem.to_owned(), rest)).or_default().push((le, *value));
        }
        for ((stem, labels), mut buckets) in buckets {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{stem}{labels:?}: {buckets:?}");
            let last = buckets.last().expect("a bucket");
            assert!(last.0.is_infinite(), "{stem}{labels:?} lacks +Inf");
            assert_eq!(last.1, self.values[&(format!("{stem}_count"), labels.clone())], "{stem}{labels:?}");
            assert!(self.values.contains_key(&(format!("{stem}_sum"), labels)));
        }
    }

    /// The value of the one series with this name and these labels, and no others; 0 where there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.values.get(&(name.to_owned(), labels)).copied().unwrap_or_default()
    }

    /// All values that a label takes in a family.
    pub fn label_values(&self, name: &str, label: &str) -> BTreeSet<&str> {
        let series = self.values.keys().filter(|(known, _)| known == name);
        series.filter_map(|(_, labels)| labels.get(label).map(String::as_str)).collect()
    }
}

/// `name{label="value",…} 1.5`
fn sample(line: &str) -> (Series, f64) {
    let (name, rest) = line.split_at(line.find(['{', ' ']).expect(line));
    assert!(is_name(name, ':'), "{line}");
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while let Some((label, after)) = rest.split_once("=\"") {
            assert!(is_name(label, '_'), "{line}");
            let (value, after) = quoted(after).unwrap_or_else(|| panic!("no end of a label: {line}"));
            assert!(labels.insert(label.to_owned(), value).is_none(), "twice: {line}");
            rest = after.strip_prefix(',').unwrap_or(after);
            if rest.starts_with('}') {
                break;
            }
        }
        rest = rest.strip_prefix('}').unwrap_or_else(|| panic!("{line}"));
    }
    let value = rest.strip_prefix(' ').and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{line}"));
    ((name.to_owned(), labels), value)
}

fn is_name(text: &str, also: char) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == also;
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(allowed)
}

/// A text up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => match chars.next()?.1 {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                _ => return None,
            },
            (_, '\n') => return None,
            (_, c) => value.push(c),
        }
    }
}

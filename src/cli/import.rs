//! `keyward user import`: NDJSON from a file or standard input, a batch at a time, so that a file of any length takes
//! the same memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::output::{self, Format};
use super::progress::Progress;
use crate::account::import::{BATCH, ImportError, Importer, Outcome, Record};
use crate::app::App;
use crate::config::sqlite_url;
use crate::store::Store;

/// Longer lines are refused, so that a file without line ends does not fill the memory.
const MAX_LINE_BYTES: usize = 64 * 1024;

pub const LONG: &str = "\
Create the people of another system, one JSON object a line, with the sub and the password hash they had there.

Members: username, email, email_verified, name and the other standard claims of OpenID Connect, roles, groups, disabled, sub (or \
id), \
and password_hash or password. Hashes may be argon2, bcrypt or PBKDF2 as Keycloak, Django, passlib, Werkzeug, ASP.NET \
Core, Auth0 and others spell them; the next sign-in replaces each by one of our own. docs/import.md has an example of \
each.

Whoever is here already is left alone, so an import that broke off can be run again. A line that cannot be imported is \
told with its number and the reason, and does not stop the others; the exit code is 1 then.";

pub const EXAMPLES: &str = "\
Examples:
  keyward user import --dry-run people.ndjson
  zcat export.ndjson.gz | keyward user import - --output json > result.json";

#[derive(Args)]
pub struct ImportArgs {
    /// The file; `-` is standard input.
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Say what would be done and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: ImportArgs, app: &App, format: Format) -> anyhow::Result<()> {
    let (input, size) = open(&args.file)?;
    let scratch =
        if args.dry_run { Some(Scratch::new(app.config.database.acquire_timeout.to_std()).await?) } else { None };
    let importer = match &scratch {
        None => Importer::new(app),
        Some(scratch) => Importer::dry_run(app, scratch.store.clone()),
    };
    let mut report = Report::begin(format, args.dry_run, Progress::bytes(size, "importing"));
    let mut lines = Lines { input, number: 0, bytes: 0 };
    let outcome = read_all(&importer, &mut lines, &mut report).await;
    let (read, failed) = (lines.number, report.failed);
    report.end(read, outcome.as_ref().err());
    outcome.with_context(|| {
        format!("the import broke off at line {read} or shortly before; what is done stays, so run it again")
    })?;
    ensure!(failed == 0, "{failed} of {read} lines cannot be imported; put them right and import them again");
    Ok(())
}

async fn read_all(importer: &Importer<'_>, lines: &mut Lines, report: &mut Report) -> anyhow::Result<()> {
    let mut buffer = Vec::new();
    let (mut numbers, mut records) = (Vec::new(), Vec::new());
    loop {
        let line = lines.next(&mut buffer)?;
        let end = matches!(line, Line::End);
        let record = match line {
            Line::End | Line::Blank => None,
            Line::TooLong => Some(Err(ImportError::TooLong(MAX_LINE_BYTES))),
            Line::Text => Some(Record::parse(&buffer)),
        };
        if let Some(record) = record {
            numbers.push(lines.number);
            records.push(record);
        }
        if records.len() == BATCH || end {
            let outcomes = importer.batch(std::mem::take(&mut records)).await?;
            for (number, outcome) in numbers.drain(..).zip(outcomes) {
                report.line(number, outcome);
            }
            report.progress.advance_to(lines.bytes);
        }
        if end {
            return Ok(());
        }
    }
}

/// The input, and how long it is where that is known.
fn open(file: &Path) -> anyhow::Result<(Box<dyn BufRead>, Option<u64>)> {
    if file == Path::new("-") {
        return Ok((Box::new(BufReader::new(std::io::stdin())), None));
    }
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let found = opened.metadata()?;
    ensure!(!found.is_dir(), "{} is a directory; name a file of JSON lines", file.display());
    Ok((Box::new(BufReader::new(opened)), found.is_file().then_some(found.len())))
}

/// Reads lines and counts.
struct Lines {
    input: Box<dyn BufRead>,
    number: u64,
    bytes: u64,
}

enum Line {
    Text,
    Blank,
    TooLong,
    End,
}

impl Lines {
    /// The next line, without its end, in `buffer`.
    fn next(&mut self, buffer: &mut Vec<u8>) -> anyhow::Result<Line> {
        self.read_piece(buffer)?;
        if buffer.is_empty() {
            return Ok(Line::End);
        }
        self.number += 1;
        if self.number == 1 && buffer.starts_with(b"\xef\xbb\xbf") {
            buffer.drain(..3);
        }
        if buffer.len() > MAX_LINE_BYTES && !buffer.ends_with(b"\n") {
            let mut rest = Vec::new();
            while !rest.ends_with(b"\n") {
                self.read_piece(&mut rest)?;
                if rest.is_empty() {
                    break;
                }
            }
            return Ok(Line::TooLong);
        }
        Ok(if buffer.trim_ascii().is_empty() { Line::Blank } else { Line::Text })
    }

    /// Up to the end of the line, or as much of it as may be.
    fn read_piece(&mut self, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
        buffer.clear();
        let most = MAX_LINE_BYTES as u64 + 1;
        let read = self.input.by_ref().take(most).read_until(b'\n', buffer).context("reading the lines")?;
        self.bytes += read as u64;
        Ok(())
    }
}

/// Tells what became of the lines: in a table's case those that failed, as they come, on standard error, and the
/// counts at the end; as JSON one object, written as it grows.
struct Report {
    format: Format,
    dry_run: bool,
    progress: Progress,
    created: u64,
    unchanged: u64,
    failed: u64,
}

impl Report {
    fn begin(format: Format, dry_run: bool, progress: Progress) -> Self {
        if format == Format::Json {
            print("{\n  \"failures\": [");
        }
        Self { format, dry_run, progress, created: 0, unchanged: 0, failed: 0 }
    }

    fn line(&mut self, number: u64, outcome: Outcome) {
        let error = match outcome {
            Outcome::Created => return self.created += 1,
            Outcome::Unchanged => return self.unchanged += 1,
            Outcome::Failed(error) => error.to_string(),
        };
        if self.format == Format::Table {
            self.progress.note(&format!("line {number}: {error}"));
        } else {
            let comma = if self.failed == 0 { "" } else { "," };
            print(&format!("{comma}\n    {}", json!({ "line": number, "error": error })));
        }
        self.failed += 1;
    }

    fn end(self, lines: u64, broke_off: Option<&anyhow::Error>) {
        let Self { format, dry_run, progress, created, unchanged, failed } = self;
        drop(progress);
        let mut counts = json!({
            "dry_run": dry_run,
            "lines": lines,
            "created": created,
            "unchanged": unchanged,
            "failed": failed,
        });
        if let (Some(error), Value::Object(members)) = (broke_off, &mut counts) {
            members.insert("broke_off".to_owned(), format!("{error:#}").into());
        }
        if format == Format::Table {
            output::object(format, &counts);
            return;
        }
        let members = format!("{counts:#}");
        let inner = members.trim_start_matches('{').trim_end_matches('}').trim_end();
        let close = if failed == 0 { "]" } else { "\n  ]" };
        print(&format!("{close},{inner}\n}}\n"));
    }
}

/// Writes to standard output. An import does not end half-way because nobody reads what it says.
fn print(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// An empty database for a dry run, gone with this value.
struct Scratch {
    store: Store,
    _dir: TempDir,
}

impl Scratch {
    async fn new(patience: Duration) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("a temporary directory for the dry run")?;
        let url = sqlite_url(&dir.path().join("dry-run.db")).context("the temporary directory's path is not UTF-8")?;
        Ok(Self { store: Store::open(&url, patience).await?, _dir: dir })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<String> {
        let mut lines = Lines { input: Box::new(std::io::Cursor::new(text.to_vec())), number: 0, bytes: 0 };
        let (mut buffer, mut read) = (Vec::new(), Vec::new());
        loop {
            read.push(match lines.next(&mut buffer).expect("a line") {
                Line::Text => format!("{}:{}", lines.number, String::from_utf8_lossy(&buffer).trim_end()),
                Line::Blank => format!("{}:blank", lines.number),
                Line::TooLong => format!("{}:too long", lines.number),
                Line::End => {
                    assert_eq!(lines.bytes, text.len() as u64);
                    return read;
                }
            });
        }
    }

    #[test]
    fn lines_are_read_whole_or_passed_over() {
        assert_eq!(lines(b""), [] as [&str; 0]);
        assert_eq!(lines(b"a\r\n\n  \nb"), ["1:a", "2:blank", "3:blank", "4:b"]);
        assert_eq!(lines(b"\xef\xbb\xbfa\n\xef\xbb\xbf"), ["1:a", "2:\u{feff}"]);
        let long = "x".repeat(3 * MAX_LINE_BYTES);
        assert_eq!(lines(format!("a\n{long}\nb\n").as_bytes()), ["1:a", "2:too long", "3:b"]);
        assert_eq!(lines(long.as_bytes()), ["1:too long"]);
        let full = "x".repeat(MAX_LINE_BYTES);
        assert_eq!(lines(format!("{full}\nb").as_bytes()), [format!("1:{full}"), "2:b".to_owned()]);
    }
}

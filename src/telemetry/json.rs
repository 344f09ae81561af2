//! Log lines as JSON: one flat object a line, with `timestamp`, `level`, `target`, `message`, the fields of the event
//! and those of the spans around it, so that `request_id` stands on every line that was logged inside a request.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// The line.
pub struct JsonLine;

/// The fields of spans, written as members of an object, so that lines copy them as they are.
pub struct JsonFields;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        line.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut line)?;
        write!(line, "\",\"level\":\"{}\",\"target\":\"", metadata.level())?;
        Escaped(&mut line).write_str(metadata.target())?;
        line.write_char('"')?;
        JsonFields.format_fields(line.by_ref(), event)?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                line.write_str(fields)?;
            }
        }
        line.write_str("}\n")
    }
}

impl<'a> FormatFields<'a> for JsonFields {
    fn format_fields<R: RecordFields>(&self, line: Writer<'a>, fields: R) -> fmt::Result {
        let mut members = Members { line, outcome: Ok(()) };
        fields.record(&mut members);
        members.outcome
    }
}

struct Members<'a> {
    line: Writer<'a>,
    outcome: fmt::Result,
}

impl Members<'_> {
    /// Writes `,"name":` and what `value` writes.
    fn member(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.outcome.is_ok() {
            self.outcome = name(&mut self.line, field.name()).and_then(|()| value(&mut self.line));
        }
    }
}

fn name(line: &mut Writer<'_>, name: &str) -> fmt::Result {
    // A library's field must not pass for one of ours.
    let ours = matches!(name, "timestamp" | "level" | "target");
    line.write_str(if ours { ",\"field." } else { ",\"" })?;
    Escaped(line).write_str(name)?;
    line.write_str("\":")
}

fn text(line: &mut Writer<'_>, text: fmt::Arguments<'_>) -> fmt::Result {
    line.write_char('"')?;
    Escaped(line).write_fmt(text)?;
    line.write_char('"')
}

impl Visit for Members<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |line| text(line, format_args!("{value}")));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, |line| text(line, format_args!("{value:?}")));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has neither infinity nor NaN.
        self.member(field, |line| if value.is_finite() { write!(line, "{value}") } else { line.write_str("null") });
    }
}

/// Escapes what passes through for the inside of a JSON string (RFC 8259 §7).
struct Escaped<'w, W>(&'w mut W);

impl<W: fmt::Write> fmt::Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            if byte >= 0x20 && byte != b'"' && byte != b'\\' && byte != 0x7f {
                continue;
            }
            self.0.write_str(&text[plain..at])?;
            plain = at + 1;
            match byte {
                b'"' => self.0.write_str("\\\"")?,
                b'\\' => self.0.write_str("\\\\")?,
                b'\n' => self.0.write_str("\\n")?,
                _ => write!(self.0, "\\u{byte:04x}")?,
            }
        }
        self.0.write_str(&text[plain..])
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("a buffer").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged while `work` runs, each line parsed.
    fn logged(work: impl FnOnce()) -> Vec<Value> {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(JsonLine)
            .fmt_fields(JsonFields)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let text = String::from_utf8(kept.0.lock().expect("a buffer").clone()).expect("text");
        assert!(text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    #[test]
    fn a_line_is_one_flat_object_with_the_fields_of_the_spans_around_it() {
        let lines = logged(|| {
            let span = tracing::info_span!("request", request_id = "r-1", trace_id = tracing::field::Empty);
            span.record("trace_id", "t-1");
            let _entered = span.enter();
            tracing::warn!(count = 3_u64, less = -4, ratio = 0.5, yes = true, error = %"no", "it happened");
        });
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        for (name, expected) in [
            ("level", Value::from("WARN")),
            ("target", Value::from(module_path!())),
            ("message", Value::from("it happened")),
            ("request_id", Value::from("r-1")),
            ("trace_id", Value::from("t-1")),
            ("count", Value::from(3)),
            ("less", Value::from(-4)),
            ("ratio", Value::from(0.5)),
            ("yes", Value::from(true)),
            ("error", Value::from("no")),
        ] {
            assert_eq!(line[name], expected, "{name} in {line}");
        }
        let timestamp = line["timestamp"].as_str().expect("a time");
        assert!(timestamp.len() == 27 && timestamp.ends_with('Z'), "{timestamp}");
    }

    #[test]
    fn nothing_that_is_logged_breaks_out_of_its_string() {
        let evil = "\"}\n{\"level\":\"ERROR\",\u{1b}[31m\\ \u{7f} é \u{2028}";
        let lines = logged(|| tracing::info!(level = "forged", timestamp = 1, path = evil, shown = ?evil, "{evil}"));
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(line["path"], evil);
        assert_eq!(line["message"], evil);
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["field.level"], "forged");
        assert_eq!(line["shown"], format!("{evil:?}"));
    }

    #[test]
    fn numbers_that_json_lacks_are_null() {
        let lines = logged(|| tracing::info!(ratio = f64::NAN, "odd"));
        assert_eq!(lines[0]["ratio"], Value::Null);
    }
}

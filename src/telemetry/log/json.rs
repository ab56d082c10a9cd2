//! Log lines as JSON: one flat object a line.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::SystemTime;

use humantime::format_rfc3339_micros;
use serde_json::value::RawValue;
use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// The size of most lines, in bytes.
pub(super) const LINE_BYTES: usize = 512;

/// Writes the fields of an event and of its span at the top level. A field of the event takes precedence.
pub(super) struct FlatJson;

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, SpanEntries> for FlatJson {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, SpanEntries>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut line = String::with_capacity(LINE_BYTES);
        write!(line, "{{\"timestamp\":\"{}\"", format_rfc3339_micros(SystemTime::now()))?;
        let mut entries = Entries(&mut line);
        entries.string("level", metadata.level().as_str());
        event.record(&mut entries);
        let is_free = |name: &str| metadata.fields().field(name).is_none();
        if is_free("target") {
            entries.string("target", metadata.target());
        }
        if let Some(span) = context.event_scope().and_then(|mut scope| scope.next()) {
            entries.string("span", span.name());
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<SpanEntries>>();
            let fields = fields.map_or("", |fields| &fields.fields);
            if span.fields().iter().all(|field| is_free(field.name())) {
                line.push_str(fields);
            } else {
                entries.raw(fields, is_free)?;
            }
        }
        line.push_str("}\n");
        writer.write_str(&line)
    }
}

/// Writes the fields of a span as entries of an object, each after a comma.
pub(super) struct SpanEntries;

impl<'writer> FormatFields<'writer> for SpanEntries {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut text = String::with_capacity(LINE_BYTES / 2);
        fields.record(&mut Entries(&mut text));
        writer.write_str(&text)
    }

    fn add_fields(&self, current: &'writer mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        let mut added = String::new();
        fields.record(&mut Entries(&mut added));
        // A value that was recorded before is replaced.
        let names = parsed(&added)?;
        let mut text = String::new();
        Entries(&mut text).raw(&current.fields, |name| !names.contains_key(name))?;
        text.push_str(&added);
        current.fields = text;
        Ok(())
    }
}

/// The JSON of entries, each after a comma.
fn parsed(entries: &str) -> Result<BTreeMap<String, Box<RawValue>>, fmt::Error> {
    serde_json::from_str(&format!("{{{}}}", entries.strip_prefix(',').unwrap_or_default()))
        .map_err(|_| fmt::Error)
}

/// Entries of an object, each after a comma.
struct Entries<'a>(&'a mut String);

impl Entries<'_> {
    /// Appends those of `entries` that `is_wanted` by its name.
    fn raw(&mut self, entries: &str, is_wanted: impl Fn(&str) -> bool) -> fmt::Result {
        for (name, value) in parsed(entries)? {
            if is_wanted(&name) {
                self.name(&name);
                self.0.push_str(value.get());
            }
        }
        Ok(())
    }

    fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        self.0.push('"');
        let start = self.0.len();
        self.0.push_str(value);
        self.end_string(start);
    }

    fn scalar(&mut self, field: &Field, value: impl Into<serde_json::Value>) {
        self.name(field.name());
        // Writing to a string does not fail.
        let _ = write!(self.0, "{}", value.into());
    }

    /// Names of fields need no escapes.
    fn name(&mut self, name: &str) {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    /// Ends the string that begins at `start`, and escapes it.
    fn end_string(&mut self, start: usize) {
        let is_special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        // Without an early end, many bytes are compared at once.
        if self.0.as_bytes()[start..].iter().fold(false, |any, byte| any | is_special(*byte)) {
            let escaped = serde_json::Value::from(&self.0[start..]).to_string();
            self.0.truncate(start);
            self.0.push_str(&escaped[1..escaped.len() - 1]);
        }
        self.0.push('"');
    }
}

impl Visit for Entries<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field.name());
        self.0.push('"');
        let start = self.0.len();
        // Writing to a string does not fail, and what a value has written before it fails is kept.
        let _ = write!(self.0, "{value:?}");
        self.end_string(start);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.string(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.scalar(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.scalar(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.scalar(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.scalar(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use serde_json::Value;
    use tracing::field::Empty;
    use tracing::subscriber::with_default;
    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn strings_are_escaped_as_json_and_entries_are_left_out_by_name() {
        for text in ["", "plain", "C:\\x", "say \"no\"", "two\nlines\t\u{1}", "é \u{7f}\u{2028}"] {
            let mut line = String::new();
            Entries(&mut line).string("name", text);
            assert_eq!(line, format!(",\"name\":{}", Value::from(text)));
            let mut copied = String::new();
            Entries(&mut copied).raw(&line, |_| true).unwrap();
            assert_eq!(copied, line);
        }
        let mut left = String::new();
        Entries(&mut left).raw(",\"a\":1,\"b\":\"x\"", |name| name != "a").unwrap();
        assert_eq!(left, ",\"b\":\"x\"");
    }

    #[test]
    fn a_name_stands_once_in_a_line_with_the_value_that_was_recorded_last() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&lines);
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(SpanEntries)
            .event_format(FlatJson)
            .with_writer(move || Lines(Arc::clone(&written)));
        with_default(Registry::default().with(layer), || {
            let span = tracing::info_span!("request", a = 1, b = Empty, c = f64::NAN);
            span.record("b", "x").record("b", "y");
            span.in_scope(|| tracing::info!(a = 2, "first"));
            span.in_scope(|| tracing::info!("second"));
        });
        let text = String::from_utf8(lines.lock().clone()).unwrap();
        let (first, second) = text.split_once('\n').unwrap();
        assert!(first.contains("\"a\":2") && !first.contains("\"a\":1"), "{text}");
        assert!(second.contains("\"a\":1"), "{text}");
        for line in [first, second] {
            assert!(line.contains("\"b\":\"y\"") && !line.contains("\"b\":\"x\""), "{text}");
            assert!(line.contains("\"c\":null"), "{text}");
        }
    }

    /// What was written, by all writers.
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}

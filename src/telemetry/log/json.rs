//! Log lines as JSON: one flat object a line.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serializer as _;
use serde::ser::SerializeMap;
use serde_json::Serializer;
use serde_json::value::RawValue;
use tracing::{Event, Subscriber};
use tracing_serde::{AsSerde, SerdeMapVisitor};
use tracing_subscriber::fmt::format::{FormatEvent, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// The size of most lines, in bytes.
pub(super) const LINE_BYTES: usize = 512;

/// Writes the fields of an event and of its span at the top level. A field of the event takes precedence.
pub(super) struct FlatJson;

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, JsonFields> for FlatJson {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut line = object(context, event, &timestamp).map_err(|_| fmt::Error)?;
        line.push(b'\n');
        writer.write_str(&String::from_utf8_lossy(&line))
    }
}

fn object<S: Subscriber + for<'a> LookupSpan<'a>>(
    context: &FmtContext<'_, S, JsonFields>,
    event: &Event<'_>,
    timestamp: &str,
) -> serde_json::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(LINE_BYTES);
    let metadata = event.metadata();
    let mut serializer = Serializer::new(&mut line);
    let mut object = serializer.serialize_map(None)?;
    object.serialize_entry("timestamp", timestamp)?;
    object.serialize_entry("level", &metadata.level().as_serde())?;
    let mut visitor = SerdeMapVisitor::new(object);
    event.record(&mut visitor);
    let mut object = visitor.take_serializer()?;
    let is_free = |name: &str| metadata.fields().field(name).is_none();
    if is_free("target") {
        object.serialize_entry("target", metadata.target())?;
    }
    if let Some(span) = context.event_scope().and_then(|mut scope| scope.next()) {
        object.serialize_entry("span", span.name())?;
        let extensions = span.extensions();
        let fields = extensions.get::<FormattedFields<JsonFields>>().map_or("{}", |fields| &fields.fields);
        let fields: BTreeMap<&str, &RawValue> = serde_json::from_str(fields)?;
        for (name, value) in fields {
            if is_free(name) {
                object.serialize_entry(name, value)?;
            }
        }
    }
    object.end()?;
    Ok(line)
}

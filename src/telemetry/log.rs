//! The log on standard error. Its filter can be changed while the process runs.
//!
//! Secrets are redacted from every line: those of the configuration ([`set_redactor`]), and those of the request or
//! job of its span ([`redact_span`]). Of identical lines, one a second is written, except for the audit log.

mod json;
mod logfmt;
mod repeats;

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tracing::{Event, Level, Metadata, Span, Subscriber};
use tracing_subscriber::filter::{FilterExt, LevelFilter, ParseError, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::audit::AUDIT;
use crate::core::text::log_format::LogFormat;
use crate::core::text::redact::Redactor;
use json::{FlatJson, SpanEntries};
use repeats::Repeats;

/// The name of the span of a job.
pub(super) const JOB_SPAN: &str = "job";

/// The filter that is in force.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Redacts the secrets of the configuration.
static REDACTOR: ArcSwapOption<Redactor> = ArcSwapOption::const_empty();

/// Limits identical lines.
static REPEATS: LazyLock<Repeats> = LazyLock::new(Repeats::default);

/// The format of the lines.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Why the filter of the log was not set.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The text is not a filter.
    #[error("{0}; try info, debug or proxbox_bridge=trace")]
    Bad(#[from] ParseError),
    /// The process has a log that the bridge did not start.
    #[error("the log of this process was not started by the bridge")]
    NoHandle,
}

/// Starts the log. Without a `format`, its lines are text on a terminal, and JSON otherwise.
///
/// # Errors
///
/// [`FilterError`] if `filter` is not a filter, or if the process already has a log.
pub fn start(filter: &str, format: Option<LogFormat>) -> Result<(), FilterError> {
    let (filter, handle) = reload::Layer::new(parsed(filter)?);
    // Spans of this crate are always enabled, so that every line has its job, also if the job began under another
    // filter. So are the lines of the audit log.
    let ours = |metadata: &Metadata<'_>| {
        metadata.target() == AUDIT
            || (metadata.is_span() && metadata.target().starts_with(env!("CARGO_CRATE_NAME")))
    };
    // The hint lets tracing skip the events below it without calling the filter.
    let filter = filter.or(filter_fn(ours).with_max_level_hint(LevelFilter::INFO));
    let is_terminal = io::stderr().is_terminal();
    let is_colored = is_terminal && allows_color();
    let lines = format.unwrap_or(if is_terminal { LogFormat::Text } else { LogFormat::Json });
    let log = fmt::layer().with_writer(io::stderr).with_ansi(is_colored);
    let log = match lines {
        LogFormat::Text => {
            let format = fmt::format().with_ansi(is_colored);
            log.event_format(BridgeFormat { format, lines }).boxed()
        }
        LogFormat::Json => {
            log.fmt_fields(SpanEntries).event_format(BridgeFormat { format: FlatJson, lines }).boxed()
        }
        LogFormat::Logfmt => {
            let log = tracing_logfmt::builder().with_span_path(false).layer().with_writer(io::stderr);
            log.map_event_format(|format| BridgeFormat { format, lines }).boxed()
        }
    };
    let started = tracing_subscriber::registry().with(log.with_filter(filter)).try_init();
    started.map_err(|_: TryInitError| FilterError::NoHandle)?;
    // It is not set yet: `try_init` succeeds once.
    let _ = FILTER.set(handle);
    let _ = FORMAT.set(lines);
    Ok(())
}

/// The current filter. `None` if the bridge did not start the log.
pub fn filter() -> Option<String> {
    FILTER.get()?.with_current(ToString::to_string).ok()
}

/// Sets the filter of the log. Returns the one before.
///
/// # Errors
///
/// [`FilterError`]; the filter is unchanged then.
pub fn set(directives: &str) -> Result<String, FilterError> {
    let before = filter().ok_or(FilterError::NoHandle)?;
    let handle = FILTER.get().ok_or(FilterError::NoHandle)?;
    handle.reload(parsed(directives)?).map_err(|_| FilterError::NoHandle)?;
    Ok(before)
}

/// Writes the identical lines that are due, each as one with the number of lines that it stands for.
pub(super) fn flush_repeats() {
    write_repeats(Instant::now());
}

/// Writes the identical lines that were not written yet, before the process ends.
pub fn finish() {
    write_repeats(Instant::now() + Duration::from_secs(1));
}

fn write_repeats(now: Instant) {
    let Some(format) = FORMAT.get() else { return };
    for (count, line) in REPEATS.flush(now) {
        // Nobody reads the log if its pipe is closed.
        let _ = io::stderr().write_all(counted(*format, count, line).as_bytes());
    }
}

/// `line` with the number of lines that it stands for.
fn counted(format: LogFormat, count: u64, mut line: String) -> String {
    let ending = match format {
        LogFormat::Json => "}\n",
        LogFormat::Text | LogFormat::Logfmt => "\n",
    };
    if count > 1 && line.ends_with(ending) {
        line.truncate(line.len() - ending.len());
        let name = if format == LogFormat::Json { ",\"repeated\":" } else { " repeated=" };
        line.push_str(&format!("{name}{count}{ending}"));
    }
    line
}

/// Redacts the secrets of `redactor` from every line from now on.
pub fn set_redactor(redactor: Redactor) {
    REDACTOR.store(Some(Arc::new(redactor)));
}

/// Redacts the secrets of `redactor` from every line in `span` from now on.
pub fn redact_span(span: &Span, redactor: &Redactor) {
    if redactor.secrets().is_empty() {
        return;
    }
    span.with_subscriber(|(id, dispatch)| {
        let registry = dispatch.downcast_ref::<Registry>();
        let Some(span) = registry.and_then(|registry| registry.span(id)) else { return };
        let mut extensions = span.extensions_mut();
        let known =
            extensions.get_mut::<Redactor>().map(|known| known.with(redactor.secrets().iter().cloned()));
        extensions.replace(known.unwrap_or_else(|| redactor.clone()));
    });
}

/// The redactor of the current span.
pub(super) fn current_redactor() -> Redactor {
    let known = |(id, dispatch): (&tracing::Id, &tracing::Dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        span.extensions().get::<Redactor>().cloned()
    };
    Span::current().with_subscriber(known).flatten().unwrap_or_default()
}

/// Whether the user wants colors on a terminal: the variable `NO_COLOR` is not set or empty (<https://no-color.org>).
pub fn allows_color() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes lines as `format` does, with secrets redacted, and identical ones once a second.
struct BridgeFormat<F> {
    format: F,
    lines: LogFormat,
}

impl<F> BridgeFormat<F> {
    fn redact(&self, line: &mut String, redactor: &Redactor) {
        let redacted = match self.lines {
            LogFormat::Json => redactor.json(line),
            LogFormat::Text | LogFormat::Logfmt => redactor.text(line),
        };
        if let Cow::Owned(redacted) = redacted {
            *line = redacted;
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for BridgeFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut line = String::with_capacity(json::LINE_BYTES);
        self.format.format_event(context, Writer::new(&mut line), event)?;
        if self.lines == LogFormat::Logfmt {
            line = logfmt::with_unique_keys(&line);
        }
        if let Some(known) = &*REDACTOR.load() {
            self.redact(&mut line, known);
        }
        let mut job = None;
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            if let Some(known) = extensions.get::<Redactor>().filter(|known| known.concerns(&line)) {
                self.redact(&mut line, known);
            }
            if span.name() == JOB_SPAN {
                job = extensions.get::<FormattedFields<N>>().map(|fields| fields.fields.clone());
            }
        }
        let metadata = event.metadata();
        // Anybody can have a wrong token refused. Those lines are limited, too.
        let is_audit = metadata.target() == AUDIT && *metadata.level() != Level::WARN;
        // No two measured durations are the same.
        if is_audit || metadata.fields().field("duration_seconds").is_some() {
            return writer.write_str(&line);
        }
        match REPEATS.add(Instant::now(), event, job.as_deref(), line) {
            Some((count, line)) => writer.write_str(&counted(self.lines, count, line)),
            None => Ok(()),
        }
    }
}

fn parsed(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(filter)
}

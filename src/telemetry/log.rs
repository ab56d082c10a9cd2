//! The log on standard error: text on a terminal, JSON otherwise. Its filter can be changed while the process runs.
//!
//! Secrets are redacted from every line: those of the configuration ([`set_redactor`]), and those of the request or
//! job of its span ([`redact_span`]).

use std::borrow::Cow;
use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use tracing::{Event, Metadata, Span, Subscriber};
use tracing_subscriber::filter::{FilterExt, LevelFilter, ParseError, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::AUDIT;
use crate::core::text::redact::Redactor;

/// The filter that is in force.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Redacts the secrets of the configuration.
static REDACTOR: ArcSwapOption<Redactor> = ArcSwapOption::const_empty();

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

/// Starts the log.
///
/// # Errors
///
/// [`FilterError`] if `filter` is not a filter, or if the process already has a log.
pub fn start(filter: &str) -> Result<(), FilterError> {
    let (filter, handle) = reload::Layer::new(parsed(filter)?);
    // Spans of this crate are always enabled, so that every line has its job, also if the job began under another
    // filter. So are the lines of the audit log.
    let ours = |metadata: &Metadata<'_>| {
        metadata.target() == AUDIT
            || (metadata.is_span() && metadata.target().starts_with(env!("CARGO_CRATE_NAME")))
    };
    // The hint lets tracing skip the events below it without calling the filter.
    let filter = filter.or(filter_fn(ours).with_max_level_hint(LevelFilter::INFO));
    let log = fmt::layer().with_writer(std::io::stderr);
    let log = if std::io::stderr().is_terminal() {
        let format = fmt::format().with_ansi(true);
        log.event_format(RedactingFormat { format, lines: LineFormat::Text }).boxed()
    } else {
        log.json().map_event_format(|format| RedactingFormat { format, lines: LineFormat::Json }).boxed()
    };
    let started = tracing_subscriber::registry().with(log.with_filter(filter)).try_init();
    started.map_err(|_: TryInitError| FilterError::NoHandle)?;
    // It is not set yet: `try_init` succeeds once.
    let _ = FILTER.set(handle);
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

/// Writes lines as `format` does, with secrets redacted.
struct RedactingFormat<F> {
    format: F,
    lines: LineFormat,
}

/// The format of lines.
#[derive(Clone, Copy)]
enum LineFormat {
    Text,
    Json,
}

impl<S, N, F> FormatEvent<S, N> for RedactingFormat<F>
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
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        let mut hide = |redactor: &Redactor| {
            let hidden = match self.lines {
                LineFormat::Text => redactor.text(&line),
                LineFormat::Json => redactor.json(&line),
            };
            if let Cow::Owned(hidden) = hidden {
                line = hidden;
            }
        };
        if let Some(known) = &*REDACTOR.load() {
            hide(known);
        }
        for span in context.event_scope().into_iter().flatten() {
            if let Some(known) = span.extensions().get::<Redactor>() {
                hide(known);
            }
        }
        writer.write_str(&line)
    }
}

fn parsed(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(filter)
}

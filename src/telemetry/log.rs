//! The log: text on a terminal, JSON otherwise, on standard error, with a filter that can be changed while
//! the process runs.
//!
//! No line holds a secret that is known ([`set_redactor`]) or that the request or the job of its span knows ([`redact_span`]).

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

use super::process::LogFilterChanged;
use crate::core::text::redact::Redactor;

/// The filter that is in force.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// What no line may hold.
static REDACTOR: ArcSwapOption<Redactor> = ArcSwapOption::const_empty();

/// Why the log is not filtered as it was to be.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It is not the text of a filter.
    #[error("{0}; try info, debug or proxbox_bridge=trace")]
    Bad(#[from] ParseError),
    /// The log of this process is not the bridge's.
    #[error("the log of this process was not started by the bridge")]
    NoHandle,
}

/// Starts the log.
///
/// # Errors
///
/// [`FilterError`], if `filter` is none, or there is a log already.
pub fn start(filter: &str) -> Result<(), FilterError> {
    let (filter, handle) = reload::Layer::new(parsed(filter)?);
    // Whatever line comes through says which job it is of, also if the job began under another filter.
    let ours = |metadata: &Metadata<'_>| {
        metadata.is_span() && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    };
    // The hint spares every event below it a question.
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
    // Nobody has started it before.
    let _ = FILTER.set(handle);
    Ok(())
}

/// The filter that is in force; nothing, if the log is not the bridge's.
pub fn filter() -> Option<String> {
    FILTER.get()?.with_current(ToString::to_string).ok()
}

/// Filters the log by `wanted` from now on, and says what it was filtered by before.
///
/// # Errors
///
/// [`FilterError`]; nothing has changed then.
pub fn set(directives: &str) -> Result<String, FilterError> {
    let before = filter().ok_or(FilterError::NoHandle)?;
    let handle = FILTER.get().ok_or(FilterError::NoHandle)?;
    handle.reload(parsed(directives)?).map_err(|_| FilterError::NoHandle)?;
    LogFilterChanged { before: &before, filter: directives }.emit();
    Ok(before)
}

/// From now on no line holds the secrets that `redactor` knows.
pub fn set_redactor(redactor: Redactor) {
    REDACTOR.store(Some(Arc::new(redactor)));
}

/// From now on no line in `span` holds the secrets that `redactor` knows.
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

/// The secrets that no line in the current span holds.
pub(super) fn current_redactor() -> Redactor {
    let known = |(id, dispatch): (&tracing::Id, &tracing::Dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        span.extensions().get::<Redactor>().cloned()
    };
    Span::current().with_subscriber(known).flatten().unwrap_or_default()
}

/// Writes lines as `format` does, without secrets.
struct RedactingFormat<F> {
    format: F,
    lines: LineFormat,
}

/// What lines look like.
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

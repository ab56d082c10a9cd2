//! The log: text on a terminal, JSON otherwise, on standard error, with a filter that can be changed while
//! the process runs.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::Metadata;
use tracing_subscriber::filter::{FilterExt, LevelFilter, ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::process::LogFilterChanged;

/// The filter that is in force.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Why the log is not filtered as it was to be.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It is not the text of a filter.
    #[error("{0}; try info, debug or proxbox_bridge=trace")]
    Bad(#[from] ParseError),
    /// The log of this process is not the bridge's.
    #[error("the log of this process was not started by the bridge")]
    NotOurs,
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
    let log = if std::io::stderr().is_terminal() { log.boxed() } else { log.json().boxed() };
    let started = tracing_subscriber::registry().with(log.with_filter(filter)).try_init();
    started.map_err(|_: TryInitError| FilterError::NotOurs)?;
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
pub fn set(wanted: &str) -> Result<String, FilterError> {
    let before = filter().ok_or(FilterError::NotOurs)?;
    let handle = FILTER.get().ok_or(FilterError::NotOurs)?;
    handle.reload(parsed(wanted)?).map_err(|_| FilterError::NotOurs)?;
    LogFilterChanged { before: &before, filter: wanted }.emit();
    Ok(before)
}

fn parsed(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(filter)
}

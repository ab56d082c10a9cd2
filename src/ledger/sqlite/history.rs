//! The last successes on backends, and their capabilities.

use std::collections::BTreeMap;

use rusqlite::{CachedStatement, Connection, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::rows::{RowError, column, parse_name, parsed, read_all};
use crate::core::domain::kind::{Kind, SyncEndpoint};
use crate::core::http::url::BackendUrl;
use crate::core::run::capabilities::{Capabilities, SocketSupport};
use crate::ledger::damage::DamagedRows;
use crate::ledger::{BackendHistory, DetectedCapabilities, LastSuccess, Record, Timestamp};

/// The statement that records a success, unless the end of its job is recorded already: the record of an older job may
/// be written again after that of a newer one.
pub(super) fn upsert<'a>(transaction: &'a Transaction<'_>) -> rusqlite::Result<CachedStatement<'a>> {
    transaction.prepare_cached(
        "INSERT OR REPLACE INTO last_success (backend, kind, job, at, failed, unconfirmed)
            SELECT ?1, ?2, ?3, ?4, ?5, ?6
                WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = ?3 AND finished IS NOT NULL)",
    )
}

/// Runs [`upsert`] for `record`, if it is a success. Must precede the write of the record itself.
pub(super) fn add(upsert: &mut CachedStatement<'_>, record: &Record) -> rusqlite::Result<()> {
    let Some(LastSuccess { job, at, failed, unconfirmed }) = LastSuccess::from_record(record) else {
        return Ok(());
    };
    let [failed, unconfirmed] = [failed, unconfirmed].map(u64::cast_signed);
    let (backend, kind) = (record.backend.to_string(), record.kind.as_str());
    upsert.execute(params![backend, kind, job.to_string(), at.to_i64(), failed, unconfirmed])?;
    Ok(())
}

/// The column `capabilities`, as JSON.
#[derive(Serialize, Deserialize)]
struct CapabilitiesColumn {
    release: Option<String>,
    correlates: bool,
    socket_denied: bool,
    has_settings: Option<bool>,
    streams: BTreeMap<String, bool>,
}

/// Stores the capabilities in `history`, and the successes that are not there yet.
pub(super) fn save(connection: &mut Connection, history: &BackendHistory) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (backend, kind, LastSuccess { job, at, failed, unconfirmed }) in &history.successes {
        let [failed, unconfirmed] = [*failed, *unconfirmed].map(u64::cast_signed);
        transaction.execute(
            "INSERT INTO last_success (backend, kind, job, at, failed, unconfirmed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                ON CONFLICT DO UPDATE SET job = ?3, at = ?4, failed = ?5, unconfirmed = ?6 WHERE at < excluded.at",
            params![backend.to_string(), kind.as_str(), job.to_string(), at.to_i64(), failed, unconfirmed],
        )?;
    }
    for (backend, detected) in &history.capabilities {
        save_capabilities(&transaction, backend, detected)?;
    }
    transaction.commit()
}

fn save_capabilities(
    connection: &Connection,
    backend: &BackendUrl,
    DetectedCapabilities { at, capabilities }: &DetectedCapabilities,
) -> rusqlite::Result<()> {
    let Capabilities { release, correlates, socket, has_settings, streams } = capabilities;
    let inventory = streams.iter().filter(|(endpoint, _)| endpoint.vm.is_none());
    let column = CapabilitiesColumn {
        release: release.map(|release| release.to_string()),
        correlates: *correlates,
        socket_denied: *socket == SocketSupport::Denied,
        has_settings: *has_settings,
        streams: inventory.map(|(endpoint, exists)| (endpoint.kind.to_string(), *exists)).collect(),
    };
    let column = serde_json::to_string(&column)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let store = "INSERT OR REPLACE INTO backends (url, at, capabilities) VALUES (?1, ?2, ?3)";
    connection.execute(store, params![backend.to_string(), at.to_i64(), column])?;
    Ok(())
}

/// Reads the readable rows.
pub(super) fn read(connection: &Connection, damage: &mut DamagedRows) -> Result<BackendHistory, RowError> {
    let successes = "SELECT backend, kind, job, at, failed, unconfirmed FROM last_success";
    let capabilities = "SELECT url, at, capabilities FROM backends";
    Ok(BackendHistory {
        successes: rows(connection, successes, success, damage)?,
        capabilities: rows(connection, capabilities, detected, damage)?,
    })
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    parse: fn(&Row<'_>) -> Result<T, String>,
    damage: &mut DamagedRows,
) -> Result<Vec<T>, RowError> {
    let unreadable = |error| format!("the history of a backend cannot be read: {error}");
    read_all(connection, (sql, Vec::new()), usize::MAX, |row| damage.check(parse(row).map_err(unreadable)))
}

fn success(row: &Row<'_>) -> Result<(BackendUrl, Kind, LastSuccess), String> {
    let count = |name| column::<i64>(row, name).map(i64::cast_unsigned);
    let success = LastSuccess {
        job: parse_name(&column::<String>(row, "job")?, "job", |id| id.parse().ok())?,
        at: Timestamp::from_i64(column(row, "at")?),
        failed: count("failed")?,
        unconfirmed: count("unconfirmed")?,
    };
    let kind = parse_name(&column::<String>(row, "kind")?, "kind", Kind::from_name)?;
    Ok((url(row, "backend")?, kind, success))
}

fn detected(row: &Row<'_>) -> Result<(BackendUrl, DetectedCapabilities), String> {
    let CapabilitiesColumn { release, correlates, socket_denied, has_settings, streams } =
        parsed(row, "capabilities")?;
    let streams = streams.into_iter().filter_map(|(kind, exists)| {
        // A kind of a newer bridge.
        Some((SyncEndpoint::for_kind(Kind::from_name(&kind)?), exists))
    });
    let capabilities = Capabilities {
        release: release.and_then(|release| release.parse().ok()),
        correlates,
        socket: if socket_denied { SocketSupport::Denied } else { SocketSupport::Presumed },
        has_settings,
        streams: streams.collect(),
    };
    let at = Timestamp::from_i64(column(row, "at")?);
    Ok((url(row, "url")?, DetectedCapabilities { at, capabilities }))
}

fn url(row: &Row<'_>, name: &str) -> Result<BackendUrl, String> {
    parse_name(&column::<String>(row, name)?, "backend", |url| url.parse().ok())
}

//! The checks of the targets of notifications.

use futures::future::join_all;

use super::report::CheckLine;
use super::verdict::CheckName;
use crate::config::{Config, NotifyConfig};
use crate::notify;
use crate::tls;

/// Checks the targets without connecting to them.
pub(super) fn check_targets(config: &Config) -> Vec<CheckLine> {
    let line = |target: &NotifyConfig| {
        unusable_files(target).unwrap_or_else(|| {
            let events: Vec<&str> = target.on.iter().map(|event| event.as_str()).collect();
            CheckLine::ok(CheckName::Notify, format!("{}: {}", target.name, events.join(", ")))
        })
    };
    config.notify.iter().map(line).collect()
}

/// Sends a test notification to each target.
pub(super) async fn test_targets(config: &Config) -> Vec<CheckLine> {
    join_all(config.notify.iter().map(|target| test_target(config, target))).await
}

async fn test_target(config: &Config, target: &NotifyConfig) -> CheckLine {
    if let Some(line) = unusable_files(target) {
        return line;
    }
    let (check, name) = (CheckName::Notify, &target.name);
    match notify::test(config, target).await {
        Ok(status) => CheckLine::ok(check, format!("{name}: test notification accepted ({status})")),
        Err(problem) => {
            let line = CheckLine::failed(check, format!("{name}: test notification not sent: {problem}"));
            line.with_advice("Fix the target or its table [[notify]]: it gets no notifications until then.")
        }
    }
}

/// The line for a target whose files for TLS are not usable.
fn unusable_files(target: &NotifyConfig) -> Option<CheckLine> {
    let error = tls::client(&target.trust, None).err().filter(|_| target.url.origin().is_tls())?;
    Some(CheckLine::failed(CheckName::Notify, format!("{}: {error}", target.name)))
}

//! The checks of the bridge itself: its addresses and its files.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, open};
use rustix::io::Errno;

use super::certificate;
use super::report::CheckLine;
use super::verdict::{CheckName, CheckVerdict};
use crate::config::{self, Config, WithoutLedger};
use crate::ledger;
use crate::tls::ServerFiles;

/// Checks the bridge's own configuration. The addresses are not bound: the bridge may be running.
pub(super) fn check_bridge(config: &Config) -> Vec<CheckLine> {
    let mut lines = clients_lines(config);
    lines.push(admin_line(config));
    lines.extend(config.tls.as_ref().map(certificate_line));
    lines.push(data_dir_line(config));
    lines.push(proxies_line(config));
    lines
}

fn clients_lines(config: &Config) -> Vec<CheckLine> {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let mut reported = Vec::new();
    let mut lines = Vec::new();
    for config::BackendConfig { name, listen, hosts, .. } in &config.backends {
        let address = listen.unwrap_or(config.listen);
        let hosts = if hosts.is_empty() { String::new() } else { format!(", as {}", hosts.join(" or ")) };
        let line = CheckLine::ok(CheckName::Clients, format!("{scheme}://{address}{hosts}, for {name}"));
        let is_open = config.tls.is_none() && !address.ip().is_loopback();
        if !is_open || reported.contains(&address) {
            lines.push(line);
            continue;
        }
        reported.push(address);
        lines.push(CheckLine { verdict: CheckVerdict::Note, ..line }.with_advice(
            "Keys and answers are sent in clear text: set tls.certificate and tls.key, or allow only a proxy with TLS \
             to connect here.",
        ));
    }
    lines
}

fn admin_line(config: &Config) -> CheckLine {
    let address = config.admin_listen;
    let found = format!("http://{address}");
    if config.admin_tokens.iter().all(|token| token.is_read_only) {
        let advice = if config.admin_open_reads || !config.admin_tokens.is_empty() {
            "Starting, cancelling and reloading need a token: set admin_token_file."
        } else {
            "Only /livez and /readyz are available. The rest needs a token: set admin_token_file."
        };
        return CheckLine::note(CheckName::Operators, found).with_advice(advice);
    }
    if config.admin_open_reads && address.ip().to_canonical().is_loopback() {
        return CheckLine::note(CheckName::Operators, found).with_advice(
            "Reading needs no token on a loopback address (admin_open_reads): do not put a proxy or tunnel in front \
             of it.",
        );
    }
    if address.ip().to_canonical().is_loopback() {
        return CheckLine::ok(CheckName::Operators, found);
    }
    CheckLine::note(CheckName::Operators, found).with_advice(
        "The token and all answers are sent in clear text: allow only a proxy with TLS to connect here.",
    )
}

fn certificate_line(files: &ServerFiles) -> CheckLine {
    let mut line = certificate::file_line(CheckName::Certificate, files);
    if files.client_ca.is_some() && line.verdict != CheckVerdict::Misconfigured {
        line.found.push_str("; client certificates of tls.client_ca required");
    }
    line
}

/// The line on a file with a secret that every user of this machine can read.
pub(super) fn secret_file_line((key, path): (&'static str, &Path)) -> Option<CheckLine> {
    let mode = Mode::from_raw_mode(std::fs::metadata(path).ok()?.mode());
    let found = format!("{} ({key}) can be read by every user of this machine", path.display());
    let line = CheckLine::note(CheckName::Secrets, found)
        .with_advice("Allow only the user of the bridge to read it.");
    mode.contains(Mode::ROTH).then_some(line)
}

fn data_dir_line(config: &Config) -> CheckLine {
    let Some(directory) = config.data_dir.as_deref() else {
        let found = "none: the records of jobs are lost when the bridge stops";
        return CheckLine::note(CheckName::DataDir, found).with_advice("Set data_dir to keep them.");
    };
    let shown = directory.display();
    if let Err(error) = ledger::inspect(directory) {
        return CheckLine::misconfigured(CheckName::DataDir, &error);
    }
    match usable(directory) {
        Ok(DirectoryState::Exists) => CheckLine::ok(CheckName::DataDir, format!("{shown}")),
        Ok(DirectoryState::Missing) => {
            CheckLine::ok(CheckName::DataDir, format!("{shown}, does not exist yet"))
        }
        Err(error) => {
            let continues = config.jobs.without_ledger == Some(WithoutLedger::Continue);
            let starts = continues || ledger::has_ledger(directory);
            let verdict = if starts { CheckVerdict::Failed } else { CheckVerdict::Misconfigured };
            CheckLine::new(CheckName::DataDir, verdict, format!("{shown}: {}", reason(&error)))
                .with_advice("Set data_dir to a directory that the user of the bridge can write to.")
        }
    }
}

enum DirectoryState {
    Exists,
    Missing,
}

/// Whether the ledger can be stored in `directory`. Leaves nothing there.
fn usable(directory: &Path) -> io::Result<DirectoryState> {
    match std::fs::metadata(directory) {
        Ok(_) => {
            may_make_files_in(directory)?;
            // These may belong to another user.
            for file in ledger::FILES {
                match may(Access::WRITE_OK, &directory.join(file)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(DirectoryState::Exists)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Missing parents are created with it.
            let parents = directory.ancestors().skip(1).map(|parent| match parent.as_os_str().is_empty() {
                true => Path::new("."),
                false => parent,
            });
            let there = parents.into_iter().find(|parent| parent.exists());
            may_make_files_in(there.ok_or(error)?)?;
            Ok(DirectoryState::Missing)
        }
        Err(error) => Err(error),
    }
}

fn may_make_files_in(directory: &Path) -> io::Result<()> {
    if !std::fs::metadata(directory)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    may(Access::WRITE_OK | Access::EXEC_OK, directory)?;
    holds_files(directory)
}

/// Whether files can be created in `directory`. Permissions are not enough: in /proc, root has all of them and can
/// create nothing.
fn holds_files(directory: &Path) -> io::Result<()> {
    // An unnamed file, which the system removes when it is closed.
    let unnamed = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match open(directory, unnamed, Mode::RUSR | Mode::WUSR) {
        Ok(_) => Ok(()),
        // Not every file system supports unnamed files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
            let probe = directory.join(format!(".proxbox-bridge-check-{}", std::process::id()));
            std::fs::create_dir(&probe).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => io::Error::other("no file can be created there"),
                _ => error,
            })?;
            std::fs::remove_dir(&probe)
        }
        Err(error) => Err(error.into()),
    }
}

fn may(access: Access, path: &Path) -> io::Result<()> {
    Ok(accessat(CWD, path, access, AtFlags::EACCESS)?)
}

/// The message of the system, without the error number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    format!("{}{rest}", first.to_lowercase())
}

fn proxies_line(config: &Config) -> CheckLine {
    let proxies: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    let found = match proxies.as_slice() {
        [] => "X-Forwarded-For is ignored (trusted_proxies is empty)".to_owned(),
        proxies => format!("X-Forwarded-For is trusted from {}", proxies.join(", ")),
    };
    CheckLine::ok(CheckName::Proxies, found)
}

//! The bridge itself: where it serves whom, and the files that it needs.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, open};
use rustix::io::Errno;

use super::certificate;
use super::report::Line;
use super::verdict::{Check, Verdict};
use crate::config::{self, Config, WithoutLedger};
use crate::ledger;
use crate::tls::{self, ServerFiles};

/// What a bridge with `config` will do. Its addresses are not tried: it may be running.
pub(super) fn look(config: &Config) -> Vec<Line> {
    let mut lines = clients(config);
    lines.push(operators(config));
    lines.extend(config.tls.as_ref().map(front));
    lines.push(data_dir(config));
    lines.push(proxies(config));
    lines
}

fn clients(config: &Config) -> Vec<Line> {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let mut told = Vec::new();
    let mut lines = Vec::new();
    for config::Backend { name, listen, hosts, .. } in &config.backends {
        let address = listen.unwrap_or(config.listen);
        let hosts = if hosts.is_empty() { String::new() } else { format!(", as {}", hosts.join(" or ")) };
        let line = Line::ok(Check::Clients, format!("{scheme}://{address}{hosts}, for {name}"));
        let is_open = config.tls.is_none() && !address.ip().is_loopback();
        if !is_open || told.contains(&address) {
            lines.push(line);
            continue;
        }
        told.push(address);
        lines.push(Line { verdict: Verdict::Note, ..line }.advising(
            "Keys and answers go over the network as they are: set tls.certificate and tls.key, or let only a \
             proxy with TLS come here.",
        ));
    }
    lines
}

fn operators(config: &Config) -> Line {
    let address = config.admin_listen;
    let found = format!("http://{address}");
    if config.admin_token.is_none() {
        let advice = if config.admin_open_reads {
            "Nobody can start, cancel or reload there: that needs a token, set admin_token_file."
        } else {
            "Nobody gets more than /livez and /readyz there: the rest needs a token, set admin_token_file."
        };
        return Line::new(Check::Operators, Verdict::Note, found).advising(advice);
    }
    if config.admin_open_reads && address.ip().to_canonical().is_loopback() {
        return Line::new(Check::Operators, Verdict::Note, found).advising(
            "Reading needs no token on a loopback address (admin_open_reads): no proxy or tunnel may lead there.",
        );
    }
    if address.ip().to_canonical().is_loopback() {
        return Line::ok(Check::Operators, found);
    }
    Line::new(Check::Operators, Verdict::Note, found).advising(
        "The token and what is read go over the network as they are: let only a proxy with TLS come here.",
    )
}

fn front(files: &ServerFiles) -> Line {
    // What serve does; a certificate alone says nothing of its key.
    let certificate = tls::server(files).and_then(|_| tls::certificate_of(files));
    let asked = if files.client_ca.is_some() { "; clients must show one of tls.client_ca" } else { "" };
    match certificate {
        Ok(certificate) => {
            let line = certificate::line(Check::Certificate, &certificate, SystemTime::now());
            Line { found: format!("{}{asked}", line.found), ..line }
        }
        Err(error) => Line::new(Check::Certificate, Verdict::Misconfigured, error.to_string()),
    }
}

fn data_dir(config: &Config) -> Line {
    let Some(directory) = config.data_dir.as_deref() else {
        let found = "none: the record of jobs is lost when the bridge ends";
        return Line::new(Check::DataDir, Verdict::Note, found).advising("Set data_dir to keep it.");
    };
    let shown = directory.display();
    if let Err(error) = ledger::inspect(directory) {
        return Line::new(Check::DataDir, Verdict::Misconfigured, error.to_string());
    }
    match usable(directory) {
        Ok(Found::There) => Line::ok(Check::DataDir, format!("{shown}")),
        Ok(Found::ToBeMade) => Line::ok(Check::DataDir, format!("{shown}, to be made")),
        Err(error) => {
            let continues = config.jobs.without_ledger == Some(WithoutLedger::Continue);
            let starts = continues || ledger::has_ledger(directory);
            let verdict = if starts { Verdict::Failed } else { Verdict::Misconfigured };
            Line::new(Check::DataDir, verdict, format!("{shown}: {}", reason(&error)))
                .advising("Let data_dir be a directory that the user of the bridge can write to.")
        }
    }
}

enum Found {
    There,
    ToBeMade,
}

/// Whether the ledger can be in `directory`. Nothing is left there.
fn usable(directory: &Path) -> io::Result<Found> {
    match std::fs::metadata(directory) {
        Ok(_) => {
            may_make_files_in(directory)?;
            // SQLite's own files come and go; these two stay, and may be another user's.
            for file in ["lock", "ledger.sqlite3"] {
                match may(Access::WRITE_OK, &directory.join(file)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(Found::There)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Those above it that are missing are made with it.
            let parents = directory.ancestors().skip(1).map(|parent| match parent.as_os_str().is_empty() {
                true => Path::new("."),
                false => parent,
            });
            let there = parents.into_iter().find(|parent| parent.exists());
            may_make_files_in(there.ok_or(error)?)?;
            Ok(Found::ToBeMade)
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

/// Whether `directory` is one in which files can be made. The permissions do not say it: in /proc, root may do
/// everything, and can make nothing.
fn holds_files(directory: &Path) -> io::Result<()> {
    // A file without a name, which is gone when it is closed.
    let unnamed = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match open(directory, unnamed, Mode::RUSR | Mode::WUSR) {
        Ok(_) => Ok(()),
        // Not every file system knows such files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
            let probe = directory.join(format!(".proxbox-bridge-check-{}", std::process::id()));
            std::fs::create_dir(&probe).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => io::Error::other("nothing can be made there"),
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

/// What the system says, without its number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    format!("{}{rest}", first.to_lowercase())
}

fn proxies(config: &Config) -> Line {
    let proxies: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    let found = match proxies.as_slice() {
        [] => "the X-Forwarded-For of nobody is believed (trusted_proxies)".to_owned(),
        proxies => format!("the X-Forwarded-For of {} is believed", proxies.join(", ")),
    };
    Line::ok(Check::Proxies, found)
}

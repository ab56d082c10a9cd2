//! `proxbox-bridge jobs export`.
//!
//! A bundle is a compressed tar archive with one directory:
//!
//! | file | what it has |
//! |---|---|
//! | `job.json` | the job and its log, as the API shows them |
//! | `log.txt` | the log as text |
//! | `events.txt` | the events that clients received, of a job that has ended |
//! | `failed.ndjson` | the failed objects |
//! | `recording.ndjson` | the messages of the backend, if they were recorded |
//! | `versions.json` | the versions of this program, of the running bridge and of the backend |
//! | `configuration.toml` | the configuration in force |
//!
//! Known keys, those of the configuration, are hidden in all files, and so is whatever is named or looks like one, wherever it
//! was found. Another key in a sentence is not found.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::super::bridge::BridgeArgs;
use super::super::version::VersionInfo;
use super::super::{note, print};
use super::events::BridgeEvents;
use super::record::JobRecord;
use super::source::JobSource;
use super::{DATA_DIR, parse};
use crate::client::BridgeClient;
use crate::config::{Config, EffectiveConfig, environment};
use crate::core::text::credentials::CredentialFilter;
use crate::core::text::redact::Redactor;
use crate::recording::{Recording, START};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge jobs export 01a22f78-e567\n  \
    proxbox-bridge jobs export 01a22f78-e567 --data-dir /var/lib/proxbox-bridge --out bundle.tar.gz")]
#[command(mut_arg("data_dir", |data_dir| data_dir.hide(false).help(DATA_DIR)))]
pub(super) struct Args {
    /// Its id
    job: String,
    #[command(flatten)]
    bridge: BridgeArgs,
    /// The file to write, which must not exist [default: proxbox-bridge-job-ID.tar.gz]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The files of a bundle, without the credentials that were found in each.
struct Bundle {
    redactor: Redactor,
    /// Those, which may be elsewhere, too.
    found: Vec<SecretString>,
    files: Vec<(&'static str, Vec<u8>)>,
}

/// The file with the recordings of all legs.
const RECORDING: &str = "recording.ndjson";

/// Writes the bundle.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let source = JobSource::open(&args.bridge).await?;
    let id = source.find_id(&args.job).await?;
    let body = source.get(&format!("/jobs/{id}")).await?;
    let job: JobRecord = parse(&body)?;
    // Another bridge has its own configuration. Without a valid one, the patterns remain.
    let config = Config::load(&args.bridge.flags, environment()).ok().filter(|_| !args.bridge.is_remote());
    let redactor = Redactor::new(config.iter().flat_map(Config::secrets));
    let mut bundle = Bundle { redactor, found: Vec::new(), files: Vec::new() };
    bundle.add("job.json", &body);
    let lines = job
        .log_entries
        .iter()
        .map(|entry| format!("{} {} {}\n", entry.timestamp, entry.level, entry.message));
    bundle.add("log.txt", lines.collect::<String>().as_bytes());
    // The stream of a job that runs has no end.
    let events = job.outcome.is_some().then_some(("events.txt", "events?bridge.events=all"));
    let others = [("failed.ndjson", "failed?format=ndjson"), (RECORDING, "recording")];
    for (name, target) in events.into_iter().chain(others) {
        match source.find(&format!("/jobs/{id}/{target}")).await {
            Ok(Some(body)) if name == RECORDING => bundle.add(name, joined(&body).as_bytes()),
            Ok(body) => body.iter().for_each(|body| bundle.add(name, body)),
            Err(error) => note(&format!("{name} is left out: {error:#}")),
        }
    }
    bundle.add("versions.json", &serde_json::to_vec_pretty(&versions(&source, &job).await)?);
    if !args.bridge.is_remote() {
        let shown = EffectiveConfig::load(&args.bridge.flags, environment());
        let text = shown
            .map_or_else(|error| format!("# {error}\n").replace('\n', "\n# "), |config| config.to_string());
        bundle.add("configuration.toml", text.as_bytes());
    }
    let name = format!("proxbox-bridge-job-{id}");
    let path = args.out.unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    bundle.write(&path, &name).with_context(|| format!("cannot write {}", path.display()))?;
    note(match config {
        Some(_) => "Known keys, and what is named or looks like one, are hidden in it.",
        None => {
            "What is named or looks like a key is hidden in it. The keys of the configuration are not known."
        }
    });
    note("Names and addresses are not hidden. Look through it before you publish it.");
    print(&path.display().to_string())
}

/// The versions of this program, of the running bridge, and of the backend.
async fn versions(source: &JobSource, job: &JobRecord) -> Value {
    let bridge = match source {
        JobSource::Bridge(client) => bridge_state(client).await,
        JobSource::Ledger(_) => None,
    };
    let backends: Option<Value> = source.get("/backends").await.ok().and_then(|body| parse(&body).ok());
    let backends = backends.as_ref().and_then(|backends| backends["results"].as_array());
    let backend =
        backends.and_then(|backends| backends.iter().find(|backend| backend["url"] == job.backend.as_str()));
    json!({
        "exported": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        "program": VersionInfo::current(),
        "bridge": bridge,
        "backend": backend,
    })
}

/// The version of the running bridge and its state, which are the first of its events.
async fn bridge_state(client: &BridgeClient) -> Option<Value> {
    let mut events = BridgeEvents::open(client).await.ok()?;
    loop {
        let event = events.next().await?;
        if event.name == "bridge" {
            let state: Value = parse(event.data.as_bytes()).ok()?;
            return Some(
                json!({ "version": state["version"], "started": state["started"], "reasons": state["reasons"] }),
            );
        }
    }
}

/// Recordings without a credential that lies across two frames. What cannot be read stays as it is.
fn joined(recordings: &[u8]) -> String {
    let text = String::from_utf8_lossy(recordings);
    let starts = text.match_indices(START).map(|(at, _)| at);
    let starts: Vec<usize> = starts.filter(|at| *at == 0 || text.as_bytes()[at - 1] == b'\n').collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let one = |(start, end): (&usize, usize)| match Recording::parse(&text[*start..end]) {
        Ok(mut recording) => {
            recording.join_bodies();
            recording.to_ndjson()
        }
        Err(_) => text[*start..end].to_owned(),
    };
    starts.iter().zip(ends).map(one).collect()
}

impl Bundle {
    fn add(&mut self, name: &'static str, body: &[u8]) {
        let mut filter = CredentialFilter::new(&self.redactor);
        self.files.push((name, filter.hide(body)));
        self.found.extend(filter.into_found());
    }

    /// Writes the archive to `path`, with the files in the directory `name`.
    fn write(self, path: &Path, name: &str) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let found = Redactor::new(self.found);
        for (file, text) in self.files {
            let text = CredentialFilter::new(&found).hide(&text);
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(time);
            archive.append_data(&mut header, format!("{name}/{file}"), text.as_slice())?;
        }
        archive.into_inner()?.finish()?.flush()
    }
}

//! The files of recordings: one for each leg of a job.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use super::registry::Registry;
use crate::ledger::{Cleaning, CleaningResult, JobId};
use crate::private;
use crate::recording::{Direction, RecordedEvent, RecordedFrame, Recording, START};

/// The length of the end of a file that has the last line of a recording that has ended, in bytes.
const END: u64 = 4096;
/// The maximum length of the header and the request of a recording, in bytes.
const MAX_HEAD: u64 = 1 << 20;

/// The directory of the recordings.
pub(super) fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("recordings")
}

/// The file of a leg.
pub(super) fn file(folder: &Path, job: JobId, leg: usize) -> PathBuf {
    folder.join(format!("{job}.{leg}.ndjson"))
}

/// The recording files of `job` under `data_dir`, in the order of its legs.
pub fn recordings(data_dir: &Path, job: JobId) -> impl Iterator<Item = PathBuf> {
    let folder = directory(data_dir);
    (1..).map(move |leg| file(&folder, job, leg)).take_while(|file| file.is_file())
}

/// Restricts recordings of an earlier release to the user of the bridge.
pub(super) async fn restrict_permissions(data_dir: PathBuf) {
    let narrow = move || {
        let folder = directory(&data_dir);
        // A missing file needs nothing, and a file that cannot be restricted belongs to another user.
        let _ = private::restrict_permissions(&folder);
        for file in files(&folder) {
            let _ = private::restrict_permissions(&file);
        }
    };
    let _ = spawn_blocking(narrow).await;
}

/// Ends the recordings that an earlier process was writing when it was killed, at their last whole line.
pub(super) async fn end_unfinished(data_dir: PathBuf) {
    let end = move || {
        for file in files(&directory(&data_dir)) {
            // A file that cannot be read or written stays as it is.
            let _ = end_recording(&file);
        }
    };
    let _ = spawn_blocking(end).await;
}

/// Ends the recording in `path`, unless it has an end. A file that has only the beginning of one, without a request, is
/// removed; one that cannot be read as a recording stays as it is.
fn end_recording(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    if last_frame(&end).is_some_and(|frame| is_end(&frame)) {
        return Ok(());
    }
    file.rewind()?;
    let (mut head, mut lines) = (Vec::new(), BufReader::new(&file).take(MAX_HEAD));
    for _ in 0..2 {
        lines.read_until(b'\n', &mut head)?;
    }
    let is_beginning = START.as_bytes().starts_with(&head);
    if !is_beginning && !head.starts_with(START.as_bytes()) || lines.limit() == 0 {
        return Ok(());
    }
    head.truncate(memchr::memrchr(b'\n', &head).map_or(0, |at| at + 1));
    if head.is_empty() {
        return fs::remove_file(path);
    }
    let recording = std::str::from_utf8(&head).ok().and_then(|text| Recording::parse(text).ok());
    let Some(recording) = recording else { return Ok(()) };
    if recording.request().is_none() {
        return fs::remove_file(path);
    }
    let last = last_line(&mut file)?;
    file.seek(SeekFrom::Start(last.start))?;
    let mut line = Vec::new();
    file.take(last.end - last.start).read_to_end(&mut line)?;
    let Some(frame) = last_frame(&line) else { return Ok(()) };
    // In place: what is interrupted here is repeated at the next start.
    File::options().write(true).open(path)?.set_len(last.end)?;
    if is_end(&frame) {
        return Ok(());
    }
    let t_ms = frame.t_ms;
    let open = RecordedFrame { t_ms, direction: Direction::Ctl, event: RecordedEvent::Open };
    private::append(path)?.write_all(open.to_line().as_bytes())
}

/// The place of the last whole line of `file`, which may be too long to be held.
fn last_line(file: &mut File) -> io::Result<Range<u64>> {
    file.rewind()?;
    let mut reader = BufReader::new(file);
    let (mut last, mut at) = (0..0, 0);
    loop {
        let bytes = reader.fill_buf()?;
        let length = bytes.len();
        if length == 0 {
            return Ok(last);
        }
        for line_end in memchr::memchr_iter(b'\n', bytes) {
            last = last.end..at + line_end as u64 + 1;
        }
        at += length as u64;
        reader.consume(length);
    }
}

/// The frame in the last line of `bytes`, the end of a recording, if that line is whole.
fn last_frame(bytes: &[u8]) -> Option<RecordedFrame> {
    let lines = bytes.strip_suffix(b"\n")?;
    let last = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice(last).ok()
}

/// Whether `frame` is the last one of a recording.
fn is_end(frame: &RecordedFrame) -> bool {
    match frame.event {
        RecordedEvent::End | RecordedEvent::Cut | RecordedEvent::Open => true,
        RecordedEvent::Close { .. } => frame.direction == Direction::In,
        _ => false,
    }
}

impl Registry {
    /// Removes the recordings of the jobs in `cleaned`, and of other jobs whose logs the ledger no longer has: an
    /// interrupted cleaning may have left them. Returns the number of removed files.
    pub(super) async fn remove_recordings(
        &self,
        data_dir: &Path,
        cleaned: &CleaningResult,
        cleaning: Cleaning,
    ) -> usize {
        let folder = directory(data_dir);
        // The closure cannot panic.
        let found = spawn_blocking(move || by_job(&folder)).await.unwrap_or_default();
        let mut gone: HashSet<JobId> = cleaned.logs.iter().chain(&cleaned.jobs).copied().collect();
        let is_other = |job: &JobId| !gone.contains(job) && self.find(*job).is_none();
        let others = found.keys().copied().filter(is_other).collect();
        // If the ledger does not answer, the next cleaning repeats this.
        gone.extend(self.ledger.without_log(others, cleaning).await.unwrap_or_default());
        let files = found.into_iter().filter(move |(job, _)| gone.contains(job)).flat_map(|(_, files)| files);
        let remove = move || files.filter(|file| fs::remove_file(file).is_ok()).count();
        spawn_blocking(remove).await.unwrap_or_default()
    }
}

/// The files in `folder`, by job.
fn by_job(folder: &Path) -> BTreeMap<JobId, Vec<PathBuf>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for file in files(folder) {
        let name = file.file_name().and_then(|name| name.to_str());
        if let Some(job) = name.and_then(|name| name.split('.').next()?.parse().ok()) {
            found.entry(job).or_default().push(file);
        }
    }
    found
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "ndjson"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Protocol, RecordedKey};

    #[test]
    fn a_recording_that_was_cut_at_any_byte_ends_at_its_last_whole_line() {
        let whole = Recording::new("0.0.11.post2", Protocol::Http, RecordedKey::Sent)
            .with(0.0, Direction::Out, RecordedEvent::get("/version"))
            .with(1.5, Direction::In, RecordedEvent::Response { status: 200, headers: vec![] })
            .with(1.6, Direction::In, RecordedEvent::Body("x".repeat(20_000).into()))
            .with(1.7, Direction::In, RecordedEvent::End)
            .to_ndjson();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.1.ndjson");
        // As a file system may leave it after a loss of power.
        fs::write(&path, format!("{whole}{}", "\0".repeat(5000))).unwrap();
        end_recording(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        let is_kept = whole.match_indices('\n').nth(1).unwrap().0 + 1;
        for length in (0..whole.len()).filter(|length| length % 97 == 0).chain([is_kept, whole.len()]) {
            fs::write(&path, &whole[..length]).unwrap();
            end_recording(&path).unwrap();
            assert_eq!(path.exists(), length >= is_kept, "{length}");
            if path.exists() {
                let ended = fs::read(&path).unwrap();
                assert!(
                    Recording::problems(&ended).is_empty(),
                    "{length}: {:?}",
                    Recording::problems(&ended)
                );
                assert_eq!(length == whole.len(), ended == whole.as_bytes(), "{length}");
            }
        }
    }

    #[test]
    fn a_recording_ends_with_the_close_frame_of_the_backend_and_not_with_that_of_the_bridge() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.1.ndjson");
        for (direction, is_whole) in [(Direction::In, true), (Direction::Out, false)] {
            let close = RecordedEvent::Close { code: Some(1000), reason: String::new() };
            let text = Recording::new("0.0.2", Protocol::Websocket, RecordedKey::None)
                .with(0.0, Direction::Out, RecordedEvent::get("/ws"))
                .with(1.5, Direction::In, RecordedEvent::Response { status: 101, headers: vec![] })
                .with(1.6, direction, close)
                .to_ndjson();
            fs::write(&path, &text).unwrap();
            end_recording(&path).unwrap();
            let ended = fs::read_to_string(&path).unwrap();
            assert_eq!((ended.starts_with(&text), ended == text), (true, is_whole), "{ended}");
        }
    }

    #[test]
    fn a_file_that_is_no_recording_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.1.ndjson");
        for text in ["note", "{\"a\": 1}\n", "{\"recording\":1}\nnote\n"] {
            fs::write(&path, text).unwrap();
            end_recording(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}

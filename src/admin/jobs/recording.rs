//! `GET /jobs/{id}/recording`: the recorded exchanges of a job with its backend.

use std::path::PathBuf;

use bytes::Bytes;
use futures::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::{JobLookupError, find_record, parse_id};
use crate::app::App;
use crate::core::domain::error_code::ErrorCode;
use crate::job::recordings;
use crate::proxy::streams::with_job_header;
use crate::respond::{self, Body, BoxError};

/// The size of one read, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// The recordings of the job `id` as far as they are written: one for each leg, in order.
pub(crate) async fn answer(app: &App, id: &str) -> Response<Body> {
    let id = match parse_id(id) {
        Ok(id) => id,
        Err(missing) => return missing.answer(app),
    };
    let files = match app.state().config.data_dir.clone() {
        // The closure does not panic.
        Some(folder) => tokio::task::spawn_blocking(move || recordings(&folder, id).collect()).await,
        None => Ok(Vec::new()),
    };
    let files: Vec<PathBuf> = files.unwrap_or_default();
    if files.is_empty() {
        return match find_record(app, id).await {
            Err(missing @ JobLookupError::Unknown(_)) => missing.answer(app),
            _ => not_found(),
        };
    }
    let pieces = stream::try_unfold((files.into_iter(), None), |(mut files, file)| async move {
        let mut file: Option<File> = file;
        loop {
            let Some(open) = &mut file else {
                let Some(next) = files.next() else { return Ok::<_, BoxError>(None) };
                file = Some(File::open(next).await?);
                continue;
            };
            let mut piece = vec![0; CHUNK_BYTES];
            let read = open.read(&mut piece).await?;
            piece.truncate(read);
            if read == 0 {
                file = None;
                continue;
            }
            return Ok(Some((Frame::data(Bytes::from(piece)), (files, file))));
        }
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    with_job_header(response, id)
}

fn not_found() -> Response<Body> {
    respond::error(
        StatusCode::NOT_FOUND,
        ErrorCode::NoRecording,
        "There is no recording of this job.",
        "A recording is made for jobs that start while jobs.recording is on and data_dir is set; if it is failed, \
         that of a job that completes is deleted. It is kept as long as the log of the job (limits.log_retention).",
    )
}

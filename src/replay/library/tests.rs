use crate::recording::{Direction, Headers, RecordedEvent};
use crate::replay::library::*;

fn get(path: &str, key: RecordedKey, status: u16) -> Recording {
    Recording::new("0.0.11.post2", Protocol::Http, key)
        .with(0.0, Direction::Out, RecordedEvent::get(path))
        .with(1.0, Direction::In, RecordedEvent::Response { status, headers: Headers::new() })
        .with(2.0, Direction::In, RecordedEvent::End)
}

fn folder(recordings: &[(&str, Recording)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, recording) in recordings {
        let path = dir.path().join(format!("{name}.ndjson"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, recording.to_ndjson()).unwrap();
    }
    dir
}

fn answers(library: &Library, path: &str) -> Option<u16> {
    library.exchange(&Method::GET, path, RecordedKey::Sent)?.status()
}

#[test]
fn a_selected_recording_replaces_the_default() {
    let dir = folder(&[
        ("sse/devices", get("/a?x=1", RecordedKey::Sent, 200)),
        ("json/b", get("/b", RecordedKey::Sent, 201)),
        ("fail/a", get("/a", RecordedKey::Sent, 503)),
        ("fail/c", get("/c", RecordedKey::Sent, 504)),
    ]);
    let usual = Library::load(dir.path(), &[]).unwrap();
    assert_eq!(
        (answers(&usual, "/a"), answers(&usual, "/b"), answers(&usual, "/c")),
        (Some(200), Some(201), None)
    );
    assert_eq!(usual.version(), "0.0.11.post2");
    assert_eq!(usual.served(), ["GET /b <- json/b", "GET /a <- sse/devices"]);

    let failing = Library::load(dir.path(), &["fail/a".to_owned()]).unwrap();
    assert_eq!((answers(&failing, "/a"), answers(&failing, "/b")), (Some(503), Some(201)));
    assert_eq!(failing.served(), ["GET /a <- fail/a", "GET /b <- json/b"]);
}

#[test]
fn an_answer_about_keys_is_not_given_to_a_right_key() {
    let library = Library::from_recordings(
        "0.0.11.post2",
        vec![
            get("/a", RecordedKey::None, 401),
            get("/a", RecordedKey::Wrong, 401),
            get("/a", RecordedKey::Sent, 200),
        ],
    )
    .unwrap();
    assert_eq!(answers(&library, "/a"), Some(200));
    assert!(library.demands_keys());
}

#[test]
fn a_folder_that_cannot_be_served_says_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let one_level_up = folder(&[
        ("0.0.3/x", get("/a", RecordedKey::None, 200)),
        ("0.0.3/y", get("/a", RecordedKey::None, 200)),
    ]);
    let mixed = folder(&[
        ("ws/a", get("/a", RecordedKey::Sent, 200)),
        (
            "ws/b",
            Recording::new("0.0.3", Protocol::Http, RecordedKey::None).with(
                0.0,
                Direction::Out,
                RecordedEvent::get("/"),
            ),
        ),
    ]);
    let broken = tempfile::tempdir().unwrap();
    std::fs::write(broken.path().join("x.ndjson"), "{}\n").unwrap();
    let usual =
        folder(&[("ws/a", get("/a", RecordedKey::Sent, 200)), ("fail/b", get("/a", RecordedKey::Sent, 200))]);

    let complaint = |dir: &Path, uses: &[String]| Library::load(dir, uses).unwrap_err().to_string();
    for (complaint, wanted) in [
        (complaint(&empty.path().join("nowhere"), &[]), "name the folder of one version"),
        (complaint(empty.path(), &[]), "folders ws, sse, json or meta"),
        (complaint(one_level_up.path(), &[]), "no recordings"),
        (complaint(mixed.path(), &[]), "several backends"),
        (complaint(broken.path(), &[]), "x.ndjson"),
        (complaint(usual.path(), &["fail/nope".to_owned()]), "available: fail/b"),
    ] {
        assert!(complaint.contains(wanted), "{complaint:?} does not say {wanted:?}");
    }
}

#[test]
fn a_recording_that_began_before_the_release_was_detected_belongs_to_the_others() {
    let mut first = get("/version", RecordedKey::Sent, 200);
    first.header.backend = "unknown".to_owned();
    let dir = folder(&[("1", first), ("2", get("/a", RecordedKey::Sent, 200))]);
    let library = Library::load(dir.path(), &[]).unwrap();
    assert_eq!((library.version(), answers(&library, "/version")), ("0.0.11.post2", Some(200)));
}

#[test]
fn a_complete_recording_is_served_before_one_that_the_client_left() {
    let mut left = get("/a", RecordedKey::Sent, 201);
    left.frames.last_mut().unwrap().direction = Direction::Ctl;
    left.frames.last_mut().unwrap().event = RecordedEvent::Open;
    let recordings = vec![left.clone(), get("/a", RecordedKey::Sent, 200)];
    let library = Library::from_recordings("0.0.11.post2", recordings).unwrap();
    assert_eq!(answers(&library, "/a"), Some(200));
    let library = Library::from_recordings("0.0.11.post2", vec![left]).unwrap();
    assert_eq!(answers(&library, "/a"), Some(201));
}

#[test]
fn the_recording_with_the_same_query_answers() {
    let recordings = vec![get("/a?x=1", RecordedKey::Sent, 201), get("/a?x=2", RecordedKey::Sent, 202)];
    let library = Library::from_recordings("0.0.11.post2", recordings).unwrap();
    let answers = ["/a?x=2", "/a?x=1", "/a?x=3", "/a"].map(|target| answers(&library, target));
    assert_eq!(answers, [Some(202), Some(201), Some(201), Some(201)]);
}

#[test]
fn refusals_of_a_key_answer_where_nothing_else_was_recorded() {
    let library = Library::from_recordings("0.0.11.post2", vec![get("/a", RecordedKey::Wrong, 401)]).unwrap();
    assert_eq!(answers(&library, "/a"), Some(401));
}

//! The saved corpus of the fuzz targets (`tests/fuzz`), run once by an ordinary test.

use std::fs;
use std::path::Path;

fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/corpus").join(target);
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        check(&fs::read(entry.unwrap().path()).unwrap());
        seen += 1;
    }
    assert!(seen > 0, "{} is empty", folder.display());
}

#[test]
fn the_parser_takes_its_corpus() {
    run("sse", crate::support::session::fuzz::sse);
}

#[test]
fn the_dialects_take_their_corpus() {
    run("dialect", crate::support::session::fuzz::dialect);
}

#[test]
fn sessions_take_their_corpus() {
    run("session", crate::support::session::fuzz::session);
}

//! The live page in a browser, driven by `tests/page/page.mjs`.

use std::path::Path;
use std::process::Command;

#[test]
fn the_live_page_passes_its_browser_tests() {
    // `tests/install.sh` installs Playwright there.
    let peers = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
    assert!(peers.join("installed").exists(), "run tests/install.sh first");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/page.mjs");
    let mut command = Command::new("node");
    command.arg(page).env("PEERS", peers);
    let output = command.env("PROXBOX_BRIDGE_BINARY", env!("CARGO_BIN_EXE_proxbox-bridge")).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains("pass "), "no test ran: {report}");
}

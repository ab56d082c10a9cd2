//! The live page, in a browser: `tests/page/page.mjs` looks at it and presses its buttons.

use std::path::Path;
use std::process::Command;

#[test]
fn the_live_page_does_what_it_says() {
    // What `tests/install.sh` puts under the target directory.
    let peers = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
    assert!(peers.join("installed").exists(), "run tests/install.sh first");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/page.mjs");
    let mut command = Command::new("node");
    command.arg(page).env("PEERS", peers);
    let output = command.env("PROXBOX_BRIDGE_BINARY", env!("CARGO_BIN_EXE_proxbox-bridge")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("pass "), "it has tested something: {said}");
}

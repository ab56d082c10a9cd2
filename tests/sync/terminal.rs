//! Progress bars, in a pseudo-terminal.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::on_bridge;
use crate::support::manual::ManualBackend;

const ROWS: u16 = 24;

/// A command in a pseudo-terminal.
struct Terminal {
    child: Child,
    screen: vt100::Parser,
    /// What was written to it so far.
    written: Vec<u8>,
    output: UnboundedReceiver<Vec<u8>>,
}

impl Terminal {
    fn start(mut command: Command, columns: u16) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let path = ptsname(&controller, Vec::new()).unwrap();
        let terminal: OwnedFd =
            File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap().into();
        let size = Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).unwrap();
        let error = terminal.try_clone().unwrap();
        command.stdout(Stdio::from(terminal)).stderr(Stdio::from(error));
        let child = command.spawn().unwrap();
        // It holds the terminal, whose end is seen when the child alone has it.
        drop(command);
        let (sender, output) = unbounded_channel();
        let mut controller = File::from(controller);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error says that no process has the terminal any more.
            while let Ok(read @ 1..) = controller.read(&mut bytes) {
                let _ = sender.send(bytes[..read].to_vec());
            }
        });
        Self { child, screen: vt100::Parser::new(ROWS, columns, 0), written: Vec::new(), output }
    }

    fn lines(&self) -> Vec<String> {
        let screen = self.screen.screen();
        screen.rows(0, screen.size().1).map(|row| row.trim_end().to_owned()).collect()
    }

    fn take(&mut self, bytes: &[u8]) {
        self.screen.process(bytes);
        self.written.extend_from_slice(bytes);
    }

    /// Waits until a line of the screen matches.
    async fn wait_for(&mut self, matches: impl Fn(&str) -> bool) -> String {
        loop {
            if let Some(line) = self.lines().into_iter().find(|line| matches(line)) {
                return line;
            }
            let bytes = self.output.recv().await;
            let bytes = bytes.unwrap_or_else(|| panic!("it ended: {:#?}", self.lines()));
            self.take(&bytes);
        }
    }

    /// Waits for its end. Returns its exit code and the screen.
    async fn ended(mut self) -> (Option<i32>, Vec<String>, String) {
        while let Some(bytes) = self.output.recv().await {
            self.take(&bytes);
        }
        let code = self.child.wait().await.unwrap().code();
        (code, self.lines(), String::from_utf8(self.written.clone()).unwrap())
    }
}

/// A run of `sync devices` in which one of three devices fails.
async fn draw(columns: u16, variables: &[(&str, &str)]) -> (String, Vec<String>, String) {
    let (mut backend, bridge) = ManualBackend::bridged(&[]).await;
    let mut command = on_bridge(bridge.admin, &["devices"]);
    command.env("TERM", "xterm").envs(variables.iter().copied());
    let mut terminal = Terminal::start(command, columns);
    let mut stream = backend.next_stream().await;
    let items = ["pve1", "pve2", "pve3"].map(|name| json!({ "name": name }));
    let found = json!({ "event": "discovery", "phase": "devices", "message": "Found 3.", "count": 3, "items": items });
    stream.send_data("discovery", &found).await;
    stream.device("pve1", "completed").await;
    let running = terminal.wait_for(|line| line.starts_with("devices") && line.contains("1/3")).await;
    let failed = json!({
        "step": "device", "status": "failed", "message": "Failed device pve2", "rowid": "pve2", "error": "It is off.",
    });
    stream.send_data("step", &failed).await;
    stream.device("pve3", "completed").await;
    stream.complete().await;
    let (code, screen, written) = terminal.ended().await;
    assert_eq!(code, Some(0), "{screen:#?}");
    (running, screen, written)
}

#[tokio::test]
async fn a_stage_is_a_bar_with_its_counts_and_failed_objects_stay_above_it() {
    let (running, screen, written) = draw(100, &[]).await;
    assert!(running.contains('█') && running.contains("/s") && running.ends_with(" left"), "{running}");
    let place = |wanted: &str| {
        screen
            .iter()
            .position(|line| line.starts_with(wanted))
            .unwrap_or_else(|| panic!("{wanted}: {screen:#?}"))
    };
    let started = place("Started job ");
    let failed = place("Failed device pve2: It is off.");
    let bar = place("devices            2 completed, 1 failed in ");
    let end = place("Devices sync completed. 3 objects: 2 completed, 1 failed");
    assert!(started < failed && failed < bar && bar < end, "{screen:#?}");
    assert!(written.contains("\u{1b}[36m"), "the bar has a colour");
    assert_eq!(screen.iter().filter(|line| line.starts_with("devices")).count(), 1, "{screen:#?}");
}

#[tokio::test]
async fn no_color_is_honoured() {
    let (_, _, written) = draw(100, &[("NO_COLOR", "1")]).await;
    let colours = written
        .split("\u{1b}[")
        .skip(1)
        .filter(|code| code.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'));
    assert_eq!(colours.count(), 0, "{written:?}");
}

#[tokio::test]
async fn a_bar_on_a_narrow_terminal_stays_on_its_line() {
    let (running, screen, _) = draw(32, &[]).await;
    assert_eq!(running, "devices 1/3");
    let bars: Vec<&String> = screen.iter().filter(|line| line.starts_with("devices")).collect();
    assert_eq!(bars, ["devices 2 completed, 1 failed in"], "{screen:#?}");
}

#[tokio::test]
async fn a_dumb_terminal_has_lines() {
    let (mut backend, bridge) = ManualBackend::bridged(&[]).await;
    let mut command = on_bridge(bridge.admin, &["devices"]);
    command.env("TERM", "dumb");
    let terminal = Terminal::start(command, 100);
    backend.next_stream().await.complete().await;
    let (code, screen, written) = terminal.ended().await;
    assert_eq!(code, Some(0));
    assert!(screen.contains(&"devices: stream completed".to_owned()), "{screen:#?}");
    assert!(!written.contains('\u{1b}'), "{written:?}");
}

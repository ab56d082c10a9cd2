//! The bridge, or a replayed backend, in its own process, which can be killed.
#![allow(dead_code, reason = "not everybody uses all of it")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// A running command. It is killed with the test.
pub struct Process {
    /// Its listening address, once it is known.
    pub address: SocketAddr,
    pub admin: SocketAddr,
    /// The log lines read so far.
    pub lines: String,
    child: Child,
    log: Receiver<String>,
}

/// A bridge on `data`, in front of `backend`, with further settings as in a file.
fn command(data: &Path, backend: SocketAddr, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxbox-bridge"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--backend", &format!("http://{backend}")]).arg("--data-dir").arg(data);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    for (key, value) in settings {
        command.env(format!("PROXBOX_BRIDGE_{}", key.replace('.', "_").to_uppercase()), value);
    }
    command
}

/// Starts a bridge that is expected not to serve. Returns its exit status and its log.
pub fn refused(data: &Path, backend: SocketAddr) -> (ExitStatus, String) {
    let output = command(data, backend, &[]).output().unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

impl Process {
    /// Starts a bridge, and waits until it serves.
    pub fn start(data: &Path, backend: SocketAddr, settings: &[(&str, &str)]) -> Self {
        let mut process = Self::spawn(command(data, backend, settings));
        process.address = process.listening();
        process.admin = process.listening();
        process
    }

    /// Starts a command. A thread reads its log, because a program blocks when the pipe of its log is full.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut pipe = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = channel();
        thread::spawn(move || {
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0)
                && sender.send(String::from_utf8(std::mem::take(&mut line)).unwrap()).is_ok()
            {}
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { address: nowhere, admin: nowhere, lines: String::new(), child, log }
    }

    /// The next listening address in its log.
    pub fn listening(&mut self) -> SocketAddr {
        self.read_to("Listening.")["address"].as_str().unwrap().parse().unwrap()
    }

    /// The next line of its log.
    pub fn next_line(&mut self) -> String {
        let Ok(line) = self.log.recv() else { panic!("the log ended: {}", self.lines) };
        self.lines.push_str(&line);
        line
    }

    /// Reads its log up to the line with `message`, and gives that line.
    pub fn read_to(&mut self, message: &str) -> serde_json::Value {
        loop {
            let line: serde_json::Value = serde_json::from_str(&self.next_line()).unwrap_or_default();
            if line["message"] == message {
                return line;
            }
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), None, "it had ended by itself: {status}");
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        self.signal("HUP");
    }

    /// Suspends it with SIGSTOP, and waits until it is suspended.
    pub fn pause(&self) {
        self.signal("STOP");
        let stat = format!("/proc/{}/stat", self.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            std::thread::yield_now();
        }
    }

    /// Resumes it after [`Process::pause`].
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for its end. Returns its exit code and its log.
    pub fn ended(mut self) -> (Option<i32>, String) {
        self.lines.extend(self.log.iter());
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.lines))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

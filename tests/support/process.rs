//! The bridge, or a recorded backend, as a process of its own, which can be killed.
#![allow(dead_code, reason = "not everybody uses all of it")]

use std::io::{BufRead, BufReader, Cursor, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;

/// A command that runs. It is killed with the test.
pub struct Process {
    /// Where it listens, once that was waited for.
    pub address: SocketAddr,
    pub admin: SocketAddr,
    /// What was read of its log.
    pub lines: String,
    child: Child,
    log: BufReader<Box<dyn Read + Send>>,
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

/// Starts a bridge that is expected not to serve. Gives how it ended, and what it said.
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

    /// Starts a command, whose log can be read.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log: Box<dyn Read + Send> = Box::new(child.stderr.take().unwrap());
        let log = BufReader::new(log);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { address: nowhere, admin: nowhere, lines: String::new(), child, log }
    }

    /// The next address that it says to listen on.
    pub fn listening(&mut self) -> SocketAddr {
        self.read_to("Listening.")["fields"]["address"].as_str().unwrap().parse().unwrap()
    }

    /// Reads its log up to the line with `message`, and gives that line.
    pub fn read_to(&mut self, message: &str) -> serde_json::Value {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ended: {}", self.lines);
            self.lines.push_str(&line);
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if line["fields"]["message"] == message {
                return line;
            }
        }
    }

    /// Reads its log from now on also while nobody waits for a line: it stops where its log is not read.
    pub fn read_ahead(&mut self) {
        let (sender, receiver) = std::sync::mpsc::channel();
        let nothing: Box<dyn Read + Send> = Box::new(std::io::empty());
        let mut log = std::mem::replace(&mut self.log, BufReader::new(nothing));
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while log.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    break;
                }
            }
        });
        self.log = BufReader::new(Box::new(Lines { receiver, line: Cursor::default() }));
    }

    /// Its number in the system.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Takes its life, without a chance to do anything about it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), None, "it had ended by itself: {status}");
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Asks it to read its configuration again.
    pub fn hang_up(&self) {
        self.signal("HUP");
    }

    /// Stops it where it is. Done when it does nothing any more.
    pub fn pause(&self) {
        self.signal("STOP");
        let stat = format!("/proc/{}/stat", self.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            std::thread::yield_now();
        }
    }

    /// Lets it go on behind [`Process::pause`].
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for its end. Gives its exit code, and everything that it has logged.
    pub fn ended(mut self) -> (Option<i32>, String) {
        self.log.read_to_string(&mut self.lines).unwrap();
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.lines))
    }
}

/// The lines of a log that are read by a thread.
struct Lines {
    receiver: Receiver<Vec<u8>>,
    line: Cursor<Vec<u8>>,
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.line.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        let Ok(line) = self.receiver.recv() else { return Ok(0) };
        self.line = Cursor::new(line);
        self.line.read(buffer)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A program in a pseudo-terminal.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A running program whose output is read as it comes. It is killed with the test.
pub struct Program {
    child: Child,
    output: Receiver<Vec<u8>>,
    /// What it has written so far.
    pub text: String,
}

/// How long a test waits for a text.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Program {
    /// Starts `command` in a pseudo-terminal with this many columns and lines.
    pub fn in_terminal(mut command: Command, columns: u16, lines: u16) -> Self {
        let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&own).unwrap();
        unlockpt(&own).unwrap();
        let name = ptsname(&own, Vec::new()).unwrap().into_string().unwrap();
        let other = OpenOptions::new().read(true).write(true).open(name).unwrap();
        tcsetwinsize(&other, Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        command.stdin(other.try_clone().unwrap()).stdout(other.try_clone().unwrap()).stderr(other);
        Self::start(command, File::from(own))
    }

    /// Starts `command` with a pipe for its output and its errors.
    pub fn piped(mut command: Command) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
        Self::start(command, reader)
    }

    /// Starts `command`, whose output is read from `from`. The command has the only other end of that, and is dropped.
    fn start(mut command: Command, mut from: impl Read + Send + 'static) -> Self {
        let child = command.spawn().unwrap();
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal fails when the program has ended.
            while let Ok(read @ 1..) = from.read(&mut bytes)
                && sender.send(bytes[..read].to_vec()).is_ok()
            {}
        });
        Self { child, output, text: String::new() }
    }

    /// Reads until it has written `text`.
    pub fn read_to(&mut self, text: &str) {
        while !self.text.contains(text) {
            let Ok(bytes) = self.output.recv_timeout(TIMEOUT) else {
                panic!("no {text:?} in {:?}", self.text)
            };
            self.text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Forgets what it has written so far, for [`Program::read_to`].
    pub fn forget(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// Waits for its end. Returns its status and what it has written since.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let rest: Vec<u8> = self.output.iter().flatten().collect();
        self.text.push_str(&String::from_utf8_lossy(&rest));
        (self.child.wait().unwrap(), std::mem::take(&mut self.text))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

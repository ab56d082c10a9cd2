//! The buffer in front of standard error. A thread that runs tasks writes the lines of several together, before it waits
//! for more work.

use std::cell::Cell;
use std::io::{self, Write};

use parking_lot::Mutex;

/// The buffer is written out at this length, in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// The lines that are not written yet.
static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

thread_local! {
    /// Whether this thread calls [`flush_before_wait`].
    static FLUSHES: Cell<bool> = const { Cell::new(false) };
}

/// Standard error behind the buffer. Each write is of whole lines.
pub(super) struct BufferedStderr;

impl Write for BufferedStderr {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut buffer = LINES.lock();
        buffer.extend_from_slice(lines);
        if buffer.len() >= MAX_BYTES || !FLUSHES.get() {
            write_out(&mut buffer)?;
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        write_out(&mut LINES.lock())
    }
}

/// Writes the buffered lines, before this thread waits. It may buffer its own lines from then on.
pub fn flush_before_wait() {
    FLUSHES.set(true);
    // Nobody reads the log if its pipe is closed.
    let _ = BufferedStderr.flush();
}

fn write_out(buffer: &mut Vec<u8>) -> io::Result<()> {
    let written = if buffer.is_empty() { Ok(()) } else { io::stderr().write_all(buffer) };
    buffer.clear();
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_wait_only_on_a_thread_that_flushes_before_it_waits() {
        let buffered = || LINES.lock().len();
        BufferedStderr.write_all(b"\n").unwrap();
        assert_eq!(buffered(), 0);
        flush_before_wait();
        BufferedStderr.write_all(b"\n").unwrap();
        assert_eq!(buffered(), 1);
        flush_before_wait();
        assert_eq!(buffered(), 0);
    }
}

//! Injected faults: the count of frames, and the garbage.

use memchr::memmem;

use super::ReplayOptions;

/// A fault between two frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Drop the connection.
    Cut,
    /// Send nothing more.
    Stall,
    /// Send garbage, then continue.
    Garbage,
}

/// The number of frames of one exchange so far, and the faults that are due at certain counts.
#[derive(Clone, Debug)]
pub(super) struct FaultCounter {
    frames: u64,
    cut_after: Option<u64>,
    stall_after: Option<u64>,
    garbage_after: Option<u64>,
}

impl FaultCounter {
    pub(super) fn new(options: &ReplayOptions) -> Self {
        let ReplayOptions { cut_after, stall_after, garbage_after, .. } = *options;
        Self { frames: 0, cut_after, stall_after, garbage_after }
    }

    /// Whether a fault is still to come, so that frames have to be counted.
    pub(super) fn is_armed(&self) -> bool {
        self.cut_after.is_some() || self.stall_after.is_some() || self.garbage_after.is_some()
    }

    /// Counts a frame that was sent.
    pub(super) fn frame(&mut self) {
        self.frames += 1;
    }

    /// The fault that is due now. Garbage is sent once, before another fault at the same count.
    pub(super) fn due(&mut self) -> Option<Fault> {
        if self.garbage_after == Some(self.frames) {
            self.garbage_after = None;
            return Some(Fault::Garbage);
        }
        if self.cut_after == Some(self.frames) {
            return Some(Fault::Cut);
        }
        (self.stall_after == Some(self.frames)).then_some(Fault::Stall)
    }
}

/// The end of the first SSE event in `bytes`, with the preceding bytes of the same event in `before`. Backends end
/// lines with LF only.
pub(super) fn end_of_event(before: &[u8], bytes: &[u8]) -> Option<usize> {
    if before.ends_with(b"\n") && bytes.starts_with(b"\n") {
        return Some(1);
    }
    memmem::find(bytes, b"\n\n").map(|at| at + 2)
}

/// Lines that are not SSE, bytes that are not UTF-8, and an event whose data is not JSON.
pub(super) const SSE_GARBAGE: &[u8] =
    b"\x00\xff\xfe\xc3\x28garbage\n\xf0\x9f\x92\n:\xff\n\nevent: step\ndata: {\"step\": \"devices\", \"sta\n\n";

/// Bytes that are neither UTF-8 nor JSON.
pub(super) const JSON_GARBAGE: &[u8] = b"\x00\xff\xfe{\"garbage\": ";

/// A text that is not JSON, and JSON of a shape that no backend sends. Text frames must be UTF-8.
pub(super) const TEXT_GARBAGE: [&str; 2] =
    ["\u{0}\u{fffd}garbage {\"object\":", "{\"object\":[\"device\"],\"data\":42,\"end\":\"perhaps\"}"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_due_at_its_count() {
        let options =
            ReplayOptions { cut_after: Some(2), garbage_after: Some(1), ..ReplayOptions::default() };
        let mut count = FaultCounter::new(&options);
        assert_eq!(count.due(), None);
        count.frame();
        assert_eq!(count.due(), Some(Fault::Garbage));
        assert_eq!(count.due(), None);
        count.frame();
        assert_eq!(count.due(), Some(Fault::Cut));
    }

    #[test]
    fn the_end_of_an_event_is_found_across_a_boundary() {
        assert_eq!(end_of_event(b"", b"data: 1\n\ndata: 2\n\n"), Some(9));
        assert_eq!(end_of_event(b"data: 1\n", b"\ndata: 2\n\n"), Some(1));
        assert_eq!(end_of_event(b"data: 1", b"\ndata: 2"), None);
    }
}

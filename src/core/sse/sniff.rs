//! A stream of events that is not announced as one.

/// The fields that an event may begin with.
const FIELDS: [&[u8]; 4] = [b"event:", b"data:", b"id:", b"retry:"];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How much of a body is looked at, in bytes.
pub const SNIFFED: usize = 4096;

/// Whether a body that starts with `start` can be nothing but a stream of events; `None` while that needs more of it.
/// Behind empty lines and comments, its first line has a field of events, and neither JSON, HTML nor the text of an
/// error begins like that.
pub fn is_event_stream(start: &[u8]) -> Option<bool> {
    let mut rest = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start);
    loop {
        rest = &rest[rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()..];
        if !rest.starts_with(b":") {
            break;
        }
        let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else { return needs_more(start) };
        rest = &rest[end..];
    }
    if FIELDS.iter().any(|field| rest.starts_with(field)) {
        return Some(true);
    }
    let may_become_one =
        FIELDS.iter().any(|field| field.starts_with(rest)) || BYTE_ORDER_MARK.starts_with(start);
    if may_become_one { needs_more(start) } else { Some(false) }
}

fn needs_more(start: &[u8]) -> Option<bool> {
    (start.len() >= SNIFFED).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_known_by_its_first_field_and_nothing_else_is_taken_for_one() {
        for stream in [
            "event: step\ndata: {}\n\n",
            "data:{}\n\n",
            "\u{feff}event: step\n",
            "\r\n\n: keepalive\n\n:\r\nid: 7\n",
            "retry: 3000\n",
        ] {
            assert_eq!(is_event_stream(stream.as_bytes()), Some(true), "{stream:?}");
            let known = (0..stream.len()).find(|end| is_event_stream(&stream.as_bytes()[..*end]).is_some());
            assert!(
                known.is_none_or(|end| is_event_stream(&stream.as_bytes()[..end]) == Some(true)),
                "{stream:?}"
            );
        }
        for other in [
            "{\"detail\": \"event: step\"}",
            "<html>",
            "events: 3",
            " event: step",
            "Internal Server Error",
            "null",
            "\x1f\u{8b}",
        ] {
            assert_eq!(is_event_stream(other.as_bytes()), Some(false), "{other:?}");
        }
        for begun in ["", "\n\n", "eve", "data", ": a comment that goes on", ": keepalive\n\n"] {
            assert_eq!(is_event_stream(begun.as_bytes()), None, "{begun:?}");
        }
        assert_eq!(is_event_stream(&b"\xef\xbb"[..]), None);
        assert_eq!(
            is_event_stream(": keepalive\n\n".repeat(400).as_bytes()),
            Some(false),
            "it is not waited for ever"
        );
    }
}

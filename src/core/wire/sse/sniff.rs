//! Detects event streams without the proper content type.

/// Prefixes that only event streams have: a comment or an event name.
const CERTAIN: [&[u8]; 2] = [b":", b"event:"];
/// Prefixes that other documents, such as YAML, may have as well.
const LIKELY: [&[u8]; 3] = [b"data:", b"id:", b"retry:"];
/// Content types for which [`LIKELY`] prefixes do not count.
const DOCUMENTS: [&str; 4] = ["json", "html", "xml", "yaml"];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The number of bytes of a body that are inspected.
pub const SNIFFED: usize = 4096;

/// Whether a body of `content_type` that begins with `start` is an event stream. `None` if more bytes are needed.
/// After empty lines, an event stream begins with a comment or an event field. JSON, HTML and error texts do not.
pub fn is_event_stream(start: &[u8], content_type: Option<&str>) -> Option<bool> {
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start);
    let text = &text[text.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()..];
    let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
    let is_document = DOCUMENTS.iter().any(|name| content_type.contains(name));
    let mut beginnings = CERTAIN.iter().chain(LIKELY.iter().filter(|_| !is_document));
    if beginnings.clone().any(|beginning| text.starts_with(beginning)) {
        return Some(true);
    }
    let may_become_one =
        beginnings.any(|beginning| beginning.starts_with(text)) || BYTE_ORDER_MARK.starts_with(start);
    if may_become_one && start.len() < SNIFFED { None } else { Some(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_known_by_its_first_line_and_nothing_else_is_taken_for_one() {
        for stream in [
            "event: step\ndata: {}\n\n", "data:{}\n\n", "\u{feff}event: step\n",
            "\u{feff}\r\n\n: keepalive\n\n", ":", "retry: 3000\n",
        ] {
            assert_eq!(is_event_stream(stream.as_bytes(), None), Some(true), "{stream:?}");
            let first = (0..stream.len()).find_map(|end| is_event_stream(&stream.as_bytes()[..end], None));
            assert_ne!(first, Some(false), "{stream:?}");
        }
        for other in [
            "{\"detail\": \"event: step\"}", "<html>", "events: 3", " event: step", "Internal Server Error",
            "null", "\x1f\u{8b}",
        ] {
            assert_eq!(is_event_stream(other.as_bytes(), None), Some(false), "{other:?}");
        }
        for begun in ["", "\n\n", "eve", "data"] {
            assert_eq!(is_event_stream(begun.as_bytes(), None), None, "{begun:?}");
        }
        assert_eq!(is_event_stream(b"\xef\xbb", None), None);
        assert_eq!(is_event_stream(&[b'\n'; SNIFFED], None), Some(false), "it is not waited for ever");
        for (content_type, start, expected) in [
            ("application/yaml", "id: 7\n", false),
            ("application/json", "data: 1", false),
            ("Text/HTML; charset=utf-8", "retry: later", false),
            ("text/html", ": keepalive\n\n", true),
            ("application/json", "event: step\n", true),
            ("text/plain", "data: {}", true),
        ] {
            let is_stream = is_event_stream(start.as_bytes(), Some(content_type));
            assert_eq!(is_stream, Some(expected), "{content_type} {start}");
        }
    }
}

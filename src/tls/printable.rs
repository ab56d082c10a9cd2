//! Text from certificates, escaped for logs.

/// The first `limit` characters of `text`, with unprintable ones escaped: control characters, and those that change
/// the direction of text.
pub(super) fn printable(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    for c in text.chars().take(limit) {
        match c {
            '"' | '\'' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    if text.chars().nth(limit).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prints_is_not_touched() {
        for text in ["", "CN=pve1.example.org, O=Bücher \"&\" Söhne's"] {
            assert_eq!(printable(text, 100), text);
        }
    }

    #[test]
    fn what_does_not_print_is_escaped() {
        assert_eq!(printable("a\n\u{1b}[2Jb\u{202e}c\\", 100), "a\\n\\u{1b}[2Jb\\u{202e}c\\\\");
    }

    #[test]
    fn what_is_too_long_is_cut() {
        assert_eq!(printable("aaaa", 4), "aaaa");
        assert_eq!(printable("aaaaa", 4), "aaaa...");
    }
}

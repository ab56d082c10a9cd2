//! Comma-separated values, by RFC 4180.

/// A text as a field of CSV. A text that a spreadsheet would run as a formula is preceded by an apostrophe.
pub fn csv_field(text: &str) -> String {
    let mark = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if text.contains(['"', ',', '\r', '\n']) {
        format!("\"{mark}{}\"", text.replace('"', "\"\""))
    } else {
        format!("{mark}{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_csv_is_quoted_where_it_must_be_and_is_no_formula() {
        for (text, field) in [
            ("boom", "boom"),
            ("a, \"b\"", "\"a, \"\"b\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("=1+1", "'=1+1"),
            ("-a,b", "\"'-a,b\""),
            ("", ""),
        ] {
            assert_eq!(csv_field(text), field, "{text}");
        }
    }
}

//! Log lines in logfmt.

use std::collections::HashSet;

/// `line` with the first field of each key. The fields of an event precede those of its spans, and so take precedence.
pub(super) fn with_unique_keys(line: &str) -> String {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let fields = line.trim_end().split(|char: char| {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        char == ' ' && !is_quoted
    });
    let mut keys = HashSet::new();
    let unique = fields.filter(|field| keys.insert(field.split_once('=').map_or(*field, |(key, _)| key)));
    let mut unique = unique.collect::<Vec<_>>().join(" ");
    unique.push('\n');
    unique
}

#[cfg(test)]
mod tests {
    use super::with_unique_keys;

    #[test]
    fn the_first_field_of_each_key_stays_whatever_its_value_contains() {
        for (line, unique) in [
            ("level=info backend=lab job=1 backend=old\n", "level=info backend=lab job=1\n"),
            ("error=\"a b=1 \\\" b=2 \\\\\" b=3 error=c b=4\n", "error=\"a b=1 \\\" b=2 \\\\\" b=3\n"),
            ("path=C:\\ b=1 b=2\n", "path=C:\\ b=1\n"),
        ] {
            assert_eq!(with_unique_keys(line), unique, "{line}");
        }
    }
}

//! What a misspelt name may have meant.

/// The candidate that `name` most likely stands for, if one is near enough.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .filter_map(|candidate| {
            // `api_key` for `api_key_file` is far away by letters and near by sense.
            let distance =
                if name.len() > 2 && candidate.starts_with(name) { 1 } else { edits(name, candidate) };
            (distance * 2 <= name.len()).then_some((distance, candidate))
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// The Levenshtein distance in bytes.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.bytes().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let known = || ["url", "channel", "api_key_file", "idle", "total"].into_iter();
        assert_eq!(nearest("chanel", known()), Some("channel"));
        assert_eq!(nearest("idel", known()), Some("idle"));
        assert_eq!(nearest("uri", known()), Some("url"));
        assert_eq!(nearest("api_key", known()), Some("api_key_file"));
        assert_eq!(nearest("colour", known()), None);
        assert_eq!(nearest("", known()), None);
    }

    #[test]
    fn edits_are_counted() {
        for (from, to, distance) in [("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("a", "a", 0)]
        {
            assert_eq!(edits(from, to), distance, "{from} {to}");
        }
    }
}

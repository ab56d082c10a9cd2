//! What a misspelt name may stand for.

use strsim::levenshtein;

/// The candidate that `name` most likely stands for, if one is near enough.
pub(super) fn suggest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &str| {
        // `api_key` for `api_key_file` differs in many letters and means the same.
        let is_start = name.len() > 2 && candidate.starts_with(name);
        if is_start { 1 } else { levenshtein(name, candidate) }
    };
    let near = candidates.map(|candidate| (distance(candidate), candidate));
    near.filter(|(distance, _)| distance * 2 <= name.len()).min_by_key(|near| near.0).map(|near| near.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let known = || ["url", "channel", "api_key_file", "idle", "total"].into_iter();
        assert_eq!(suggest("chanel", known()), Some("channel"));
        assert_eq!(suggest("idel", known()), Some("idle"));
        assert_eq!(suggest("uri", known()), Some("url"));
        assert_eq!(suggest("api_key", known()), Some("api_key_file"));
        assert_eq!(suggest("colour", known()), None);
        assert_eq!(suggest("", known()), None);
    }
}

//! Searches eight bytes at once. The texts of events are short: the call of a wider search takes longer than the search.

const ONES: u64 = u64::from_ne_bytes([1; 8]);

/// Eight bytes, the first one lowest. What is found in them has the high bit of each byte found, and may have those of
/// bytes after it, and of bytes that are not ASCII.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Eight(u64);

impl Eight {
    /// Finds `byte`, which is ASCII.
    pub(crate) const fn equal(self, byte: u8) -> u64 {
        Self(self.0 ^ (ONES * byte as u64)).below(1)
    }

    /// Finds the bytes below `limit`, which is ASCII.
    pub(crate) const fn below(self, limit: u8) -> u64 {
        self.0.wrapping_sub(ONES * limit as u64)
    }

    /// Finds what ends or escapes a string of JSON: quotes, backslashes and control characters.
    pub(crate) const fn special_in_json(self) -> u64 {
        self.below(b' ') | self.equal(b'"') | self.equal(b'\\')
    }

    /// What was found, without bytes that are not ASCII.
    const fn ascii(self, found: u64) -> u64 {
        found & !self.0 & (ONES << 7)
    }
}

/// The position of the first byte of ASCII that `search` finds, or the length of `bytes`.
#[inline]
pub(crate) fn find_ascii(bytes: &[u8], search: impl Fn(Eight) -> u64) -> usize {
    // Half of the searches end here.
    match bytes.split_first_chunk() {
        Some((first, rest)) => find_in(first, &search).unwrap_or_else(|| 8 + find_further(rest, search)),
        None => find_further(bytes, search),
    }
}

fn find_in(eight: &[u8; 8], search: impl Fn(Eight) -> u64) -> Option<usize> {
    let eight = Eight(u64::from_le_bytes(*eight));
    let found = eight.ascii(search(eight));
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}

#[inline(never)]
fn find_further(bytes: &[u8], search: impl Fn(Eight) -> u64) -> usize {
    let (eights, rest) = bytes.as_chunks::<8>();
    let found = eights.iter().enumerate().find_map(|(at, eight)| Some(at * 8 + find_in(eight, &search)?));
    let is_found = |byte: &u8| find_in(&[*byte; 8], &search).is_some();
    found.or_else(|| Some(eights.len() * 8 + rest.iter().position(is_found)?)).unwrap_or(bytes.len())
}

/// Whether all of `bytes` are ASCII that `search` does not find.
#[inline]
pub(crate) fn is_ascii_without(bytes: &[u8], search: impl Fn(Eight) -> u64) -> bool {
    let is_without = |eight: u64| (search(Eight(eight)) | eight) & (ONES << 7) == 0;
    let (eights, rest) = bytes.as_chunks::<8>();
    eights.iter().all(|eight| is_without(u64::from_le_bytes(*eight)))
        && match bytes.last_chunk::<8>() {
            Some(last) => is_without(u64::from_le_bytes(*last)),
            None => rest.iter().all(|byte| is_without(ONES * u64::from(*byte))),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_finds_what_a_search_of_single_bytes_finds() {
        let search = Eight::special_in_json;
        let is_found = |byte: &u8| matches!(byte, 0..=0x1f | b'"' | b'\\');
        for (length, filler) in
            (0..20).flat_map(|length| [b'x', b'#', b' ', 0xff].map(|filler| (length, filler)))
        {
            let mut bytes = vec![filler; length];
            for (at, byte) in (0..length).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
                bytes[at] = byte;
                for after in [filler, b'"', 0x80] {
                    let next = (at + 1).min(length - 1);
                    let before = std::mem::replace(&mut bytes[next], after);
                    let found = bytes.iter().position(is_found).unwrap_or(length);
                    assert_eq!(find_ascii(&bytes, search), found, "{bytes:?}");
                    let is_without = bytes.is_ascii() && found == length;
                    assert_eq!(is_ascii_without(&bytes, search), is_without, "{bytes:?}");
                    bytes[next] = before;
                }
                bytes[at] = filler;
            }
            assert_eq!(find_ascii(&bytes, search), length);
        }
    }
}

//! Credentials in text that is not JSON: lines of a log, `repr` of Python, URLs, HTML, and a part of a JSON text.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memmem, memrchr};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};
use serde::de::IgnoredAny;

use super::json::{Container, is_json};
use super::value::{
    End, Name, PREFIXES, is_labelled, is_scheme, is_word, name_before, trimmed, value_of, word,
};
use super::{
    Credential, CredentialFilter, Edit, HIDDEN, MAX_NAME, edited, is_credential_field, is_credential_name,
};

/// How often the search for JSON may read a text, before it gives up.
const MAX_READS: usize = 64;
/// The minimum length of a credential behind `Bearer`, and behind the other schemes, without a name before them.
const MIN_BARE: [usize; 2] = [4, 8];
/// The minimum length of a user in a URL that is taken for a token, in bytes.
const MIN_USER: usize = 12;
/// How far a user and a password may reach in a URL, in bytes.
const MAX_USER: usize = 2 << 10;
/// Beginnings of tokens and of tickets.
const BEGINNINGS: [&[u8]; 8] =
    [b"eyJ", b"nbt_", b"ghp_", b"github_pat_", b"glpat-", b"whsec_", b"PVE:", b"PBS:"];
/// The minimum length of such a token, in bytes.
const MIN_TOKEN: usize = 12;
const UUID: usize = 36;
const PRIVATE_KEY: (&[u8], &[u8], &[u8]) = (b"-----BEGIN ", b"PRIVATE KEY-----", b"-----END ");
/// What is percent-encoded in a text that was decoded.
const ENCODED: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'%').add(b'&').add(b'<').add(b'>').add(b'#').add(b'+').add(b'?');

/// How a text was encoded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    None,
    Percent,
}

impl CredentialFilter<'_> {
    /// The edits of `text`, in which JSON may stand.
    pub(super) fn in_text(&mut self, text: &[u8], depth: usize) -> Vec<Edit> {
        let pieces = json_pieces(text);
        let mut found = credentials(text, &pieces, Coding::None);
        let piece_of = |it: &Credential| {
            let piece = pieces.get(pieces.partition_point(|piece| piece.end <= it.range.start));
            piece.filter(|piece| piece.contains(&it.range.start))
        };
        // Of a list or an object that a name belongs to, with its brackets or without.
        let is_whole = |it: &Credential| piece_of(it).filter(|piece| it.range.start <= piece.start + 1);
        let named: Vec<usize> = found.iter().filter_map(is_whole).map(|piece| piece.start).collect();
        found.extend(self.known_in(text));
        found.retain(|it| piece_of(it).is_none());
        let mut edits = self.replaced(text, found);
        let hidden: Vec<Range<usize>> = edits.iter().map(|(range, _)| range.clone()).collect();
        for piece in &pieces {
            let outer = named.binary_search(&piece.start).ok().map(|_| Container::named());
            let inside = self.in_json(&text[piece.clone()], depth, outer);
            let moved = |(range, new): Edit| (range.start + piece.start..range.end + piece.start, new);
            edits.extend(inside.into_iter().map(moved));
        }
        let parts = encoded_parts(text).into_iter().flat_map(|part| free(&pieces, part));
        for range in parts.flat_map(|part| free(&hidden, part)) {
            let hidden = self.encoded(&text[range.clone()], depth);
            edits.extend(hidden.map(|hidden| (range, hidden)));
        }
        edits
    }

    /// `text`, which is nested too deeply to be read as what it is.
    pub(super) fn flat(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let edits = self.in_flat(text);
        edited(text, edits)
    }

    /// The edits of such a text.
    pub(super) fn in_flat(&mut self, text: &[u8]) -> Vec<Edit> {
        let mut found = credentials(text, &[], Coding::None);
        found.extend(self.known_in(text));
        self.replaced(text, found)
    }

    /// The secrets in `text` that were known before.
    fn known_in(&self, text: &[u8]) -> Vec<Credential> {
        let known = self.known.places(text).map(|range| Credential { range, is_certain: true });
        known.chain(self.words_in(text)).collect()
    }

    /// The replacements of `found`, without overlaps.
    fn replaced(&mut self, text: &[u8], mut found: Vec<Credential>) -> Vec<Edit> {
        found.sort_by_key(|it| it.range.start);
        let mut edits: Vec<Edit> = Vec::new();
        for Credential { range, is_certain } in found {
            let value = &text[range.clone()];
            if is_certain {
                self.keep(value)
            } else {
                self.keep_unlike_words(value)
            }
            match edits.last_mut() {
                Some((last, _)) if range.start < last.end => last.end = last.end.max(range.end),
                _ => edits.push((range, HIDDEN.into())),
            }
        }
        edits
    }

    /// Percent-encoded text without credentials, if it has any.
    fn encoded(&mut self, text: &[u8], depth: usize) -> Option<Vec<u8>> {
        let decoded: Vec<u8> = percent_decode(text).collect();
        if decoded == text {
            return None;
        }
        let mut found = Vec::new();
        if !is_json(&decoded) {
            found = credentials(&decoded, &[], Coding::Percent);
            found.extend(self.known_in(&decoded));
        }
        let edits = self.replaced(&decoded, found);
        let hidden = match edited(&decoded, edits) {
            Some(hidden) => hidden,
            None => self.document(&decoded, depth + 1)?,
        };
        Some(percent_encode(&hidden, ENCODED).to_string().into_bytes())
    }
}

/// The credentials in `text`, without those in `pieces` that have no name before them. In text that was percent-encoded,
/// white space does not end a value.
fn credentials(text: &[u8], pieces: &[Range<usize>], coding: Coding) -> Vec<Credential> {
    let (mut found, mut without_token) = (Vec::new(), [0; 2]);
    let (mut at, mut pieces) = (0, pieces.iter().peekable());
    while let Some(byte) = text.get(at) {
        if let Some(piece) = pieces.next_if(|piece| piece.start <= at) {
            at = if piece.start == at { piece.end } else { at };
            continue;
        }
        let one = match byte {
            b':' | b'=' => in_url(text, at).or_else(|| named(text, at, coding)),
            b',' => in_pair(text, at),
            b'>' => in_element(text, at),
            b' ' => option(text, at).or_else(|| behind_scheme(text, at)),
            b'-' => private_key(text, at),
            byte if byte.is_ascii_alphanumeric() && (at == 0 || !is_word(&text[at - 1])) => {
                token(text, at, &mut without_token).or_else(|| token_id(text, at))
            }
            _ => None,
        };
        at = one.as_ref().map_or(at + 1, |one| one.range.end.max(at + 1));
        found.extend(one);
    }
    found
}

/// The parts of `range` that are in none of `taken`, which are in order and do not overlap.
fn free(taken: &[Range<usize>], range: Range<usize>) -> Vec<Range<usize>> {
    let (mut parts, mut start) = (Vec::new(), range.start);
    for it in &taken[taken.partition_point(|it| it.end <= range.start)..] {
        if it.start >= range.end {
            break;
        }
        parts.push(start..it.start.max(start));
        start = it.end;
    }
    parts.push(start..range.end.max(start));
    parts.retain(|part| !part.is_empty());
    parts
}

/// The objects and lists of JSON in `text`.
fn json_pieces(text: &[u8]) -> Vec<Range<usize>> {
    let (mut pieces, mut at, mut left) = (Vec::new(), 0, MAX_READS * text.len());
    while let Some(open) = memchr::memchr2(b'{', b'[', &text[at..]) {
        let start = at + open;
        let mut values = serde_json::Deserializer::from_slice(&text[start..]).into_iter::<IgnoredAny>();
        let cost = match values.next() {
            Some(Err(error)) => {
                let line_end = |before| memchr_iter(b'\n', &text[start..]).nth(before);
                let line = error.line().checked_sub(2).and_then(line_end).map_or(0, |end| end + 1);
                line + error.column()
            }
            _ => {
                at = start + values.byte_offset();
                pieces.push(start..at);
                continue;
            }
        };
        at = start + 1;
        match left.checked_sub(cost) {
            Some(rest) => left = rest,
            None => break,
        }
    }
    pieces
}

/// The parts of `text` that may be percent-encoded.
fn encoded_parts(text: &[u8]) -> Vec<Range<usize>> {
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"\"'&?<>\\".contains(byte);
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some(percent) = memchr(b'%', &text[at..]) {
        let percent = at + percent;
        let start = at + text[at..percent].iter().rposition(ends).map_or(0, |end| end + 1);
        at = text[percent..].iter().position(ends).map_or(text.len(), |end| percent + end);
        parts.push(start..at);
    }
    parts
}

/// The value of the name before the `:` or `=` at `at`.
fn named(text: &[u8], at: usize, coding: Coding) -> Option<Credential> {
    let head = &text[..at];
    let mut name = name_before(head)?;
    let mut is_named = is_credential_name(name.text);
    if !is_named && [&b"key"[..], b"keys"].iter().any(|it| name.text.eq_ignore_ascii_case(it)) {
        // The name may have two words.
        let long = name_before(head[..name.start].strip_suffix(b" ").unwrap_or_default());
        let long =
            long.filter(|long| !long.is_quoted).map(|long| &head[long.start..name.start + name.text.len()]);
        if let Some(long) = long.filter(|long| is_credential_field(long)) {
            (is_named, name.text, name.start) = (true, long, name.start + name.text.len() - long.len());
        }
    }
    if !is_named && !is_labelled(head, name) {
        return None;
    }
    let is_colon = text[at] == b':';
    let before = head[..name.start].iter().rev().find(|byte| !b" \t\r-".contains(byte));
    let begins_line = before.is_none_or(|byte| *byte == b'\n');
    let lower = name.text.to_ascii_lowercase();
    let is_header = [&b"authorization"[..], b"cookie"].iter().any(|it| memmem::find(&lower, it).is_some());
    let end = match is_colon {
        _ if coding == Coding::Percent => End::Text,
        true if begins_line || is_header => End::Line,
        true => End::Word,
        false => End::Parameter,
    };
    value_of(text, at + 1, name, end)
}

/// The second of a pair of strings, of which the first is the name of a credential: `('Authorization', 'Bearer …')`.
fn in_pair(text: &[u8], at: usize) -> Option<Credential> {
    let head = &text[..at];
    let name = name_before(head).filter(|name| name.is_quoted && is_credential_name(name.text))?;
    let before = head[..name.start].strip_suffix(b"'").or(head[..name.start].strip_suffix(b"\""))?;
    let before = before.strip_suffix(b"b").or(before.strip_suffix(b"u")).unwrap_or(before);
    before.last().filter(|byte| matches!(byte, b'(' | b'['))?;
    // Otherwise it is a list of names.
    let value = text[at + 1..].iter().find(|byte| !byte.is_ascii_whitespace() && !PREFIXES.contains(byte))?;
    if b"'\"".contains(value) { value_of(text, at + 1, name, End::Word) } else { None }
}

/// The text of the element of XML or HTML whose tag ends at `at`.
fn in_element(text: &[u8], at: usize) -> Option<Credential> {
    let near = &text[at.saturating_sub(2 * MAX_NAME)..at];
    let tag = &near[memrchr(b'<', near)? + 1..];
    let name = &tag[..tag.iter().position(|byte| !is_word(byte) && *byte != b'-').unwrap_or(tag.len())];
    let end = at + 1 + memchr(b'<', &text[at + 1..])?;
    let is_empty = text[at + 1..end].trim_ascii().is_empty();
    (is_credential_name(name) && !is_empty).then_some(Credential { range: at + 1..end, is_certain: true })
}

/// The argument of an option such as `--password`.
fn option(text: &[u8], at: usize) -> Option<Credential> {
    let start = text[..at].iter().rposition(|byte| !is_word(byte) && *byte != b'-').map_or(0, |end| end + 1);
    let name = text[start..at].strip_prefix(b"--").filter(|name| is_credential_name(name))?;
    value_of(text, at + 1, Name { text: name, start, is_quoted: false }, End::Word)
}

/// The word behind a scheme of `Authorization`, with which the text before `at` ends.
fn behind_scheme(text: &[u8], at: usize) -> Option<Credential> {
    let start = text[..at].iter().rposition(|byte| !byte.is_ascii_alphabetic()).map_or(0, |end| end + 1);
    let scheme = &text[start..at];
    if !is_scheme(scheme) {
        return None;
    }
    let quote = usize::from(text.get(at + 1).is_some_and(|byte| b"'\"".contains(byte)));
    let start = at + 1 + quote;
    let range = trimmed(text, start..start + word(&text[start.min(text.len())..]));
    let found = &text[range.clone()];
    let has_digit = found.iter().any(u8::is_ascii_digit);
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer");
    let is_credential = match is_bearer {
        true => found.len() >= MIN_BARE[0] && !found.to_ascii_lowercase().starts_with(b"auth"),
        false => found.len() >= MIN_BARE[1] && has_digit,
    };
    let is_other = found.starts_with(HIDDEN.as_bytes()) || is_credential_name(found);
    (is_credential && !is_other).then_some(Credential { range, is_certain: has_digit })
}

/// The password in the URL whose scheme ends at `at`, or its user if that looks like a token.
fn in_url(text: &[u8], at: usize) -> Option<Credential> {
    let slashes = [&b"//"[..], b"\\/\\/"].into_iter().find(|it| text[at + 1..].starts_with(it))?;
    let start = at + 1 + slashes.len();
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"\"'<>`".contains(byte);
    let near = &text[start..text.len().min(start + MAX_USER)];
    let near = &near[..=memrchr(b'@', near)?];
    let whole = &near[..near.iter().position(ends).unwrap_or(near.len())];
    let authority = whole.iter().position(|byte| b"/?#\\".contains(byte)).unwrap_or(whole.len());
    let port = whole[..authority].rsplit(|byte| *byte == b':').next().unwrap_or_default();
    let has_colon = port.len() < authority;
    // A password may have a slash that is not encoded.
    let is_port = port.iter().all(u8::is_ascii_digit);
    let until = if is_port || !has_colon { authority } else { whole.len() };
    let user_end = memrchr(b'@', &whole[..authority]).or(memrchr(b'@', &whole[..until]))?;
    let user = &whole[..user_end];
    let (name, password) = match memchr(b':', user) {
        Some(colon) => (&user[..colon], &user[colon + 1..]),
        None => (user, &[][..]),
    };
    let is_token = name.len() >= MIN_USER && name.iter().any(u8::is_ascii_digit) && !name.contains(&b'@');
    let from = if is_token { 0 } else { name.len() + 1 };
    let is_hidden = [name, password].contains(&HIDDEN.as_bytes());
    (is_token || !password.is_empty() && !is_hidden)
        .then_some(Credential { range: start + from..start + user_end, is_certain: true })
}

/// A private key that begins at `at`, up to its end or that of the text.
fn private_key(text: &[u8], at: usize) -> Option<Credential> {
    let (begin, kind, end) = PRIVATE_KEY;
    let head = text[at..].strip_prefix(begin)?;
    let kind_at = memmem::find(&head[..head.len().min(MAX_NAME)], kind)?;
    let start = at + begin.len() + kind_at + kind.len();
    let end = memmem::find(&text[start..], end).map_or(text.len(), |end| start + end);
    (start < end).then_some(Credential { range: start..end, is_certain: false })
}

/// A token or a ticket that begins at `at`. `none_before` is the end of the last word without a token, and without a ticket: each
/// word is read once.
fn token(text: &[u8], at: usize, none_before: &mut [usize; 2]) -> Option<Credential> {
    let rest = &text[at..];
    let beginning = BEGINNINGS.iter().find(|beginning| rest.starts_with(beginning))?;
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.=+/".contains(byte);
    let is_ticket = beginning.ends_with(b":");
    let is_sought = is_ticket || beginning.starts_with(b"eyJ");
    let none_before = &mut none_before[usize::from(is_ticket)];
    if is_sought && at < *none_before {
        return None;
    }
    let length = rest.iter().take_while(|byte| is_part(byte) || is_ticket && b":@!".contains(byte)).count();
    let found = &rest[..length];
    let is_token = match beginning {
        _ if is_ticket => memmem::find(found, b"::").is_some(),
        [b'e', ..] => found.iter().filter(|byte| **byte == b'.').count() >= 2,
        _ => length >= MIN_TOKEN,
    };
    if is_sought && !is_token {
        *none_before = at + length;
    }
    is_token.then_some(Credential { range: at..at + length, is_certain: true })
}

/// The UUID at `at`, if a word for a credential or a token of Proxmox is shortly before it.
fn token_id(text: &[u8], at: usize) -> Option<Credential> {
    let found = text.get(at..at + UUID)?;
    let is_uuid = found.iter().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    if !is_uuid || text.get(at + UUID).is_some_and(is_word) {
        return None;
    }
    let near = &text[at.saturating_sub(MAX_NAME)..at];
    let near = &near[memrchr(b'\n', near).map_or(0, |end| end + 1)..];
    let has_name = near.split(|byte| !byte.is_ascii_alphanumeric()).any(is_credential_name);
    (has_name || near.contains(&b'!')).then_some(Credential { range: at..at + UUID, is_certain: true })
}

//! Replaces names, addresses and users in recordings.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::mem;
use std::net::IpAddr;
use std::path::Path;

use aho_corasick::{AhoCorasick, Anchored, Input, MatchKind, StartKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::names::Names;
use super::pseudonyms::{NameKind, Pseudonyms};
use crate::core::text::redact::{escaped, escaped_ascii, string_end};
use crate::private;
use crate::recording::{RecordedEvent, Recording, RecordingError};

/// The maximum nesting depth of JSON in JSON.
const MAX_NESTING: usize = 4;
/// Headers that name a host.
const HOST_HEADERS: [&str; 2] = ["host", "x-forwarded-host"];
/// The numbers of octets in a MAC address, and in fingerprints.
const OCTETS: [usize; 3] = [6, 20, 32];
/// The beginning of a fingerprint in base64, and its length behind that.
const SHA256: &str = "SHA256:";
const SHA256_BASE64: usize = 43;
/// The beginning of the id of a task.
const UPID: &str = "UPID:";
/// The header with the user of the client.
const USER_HEADER: &str = "x-proxbox-actor";

/// Writes the recordings in `from` to `to`, with a pseudonym for each name of an object, host or user, each IP address and
/// each MAC address or fingerprint. The same original has the same pseudonym in all of them. Bodies that are not text are left out.
///
/// # Errors
/// A recording could not be read or written.
pub fn anonymise(from: &Path, to: &Path) -> io::Result<()> {
    let mut recordings = Vec::new();
    for entry in from.read_dir()? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(number) =
            name.strip_suffix(".ndjson").and_then(|name| name.split('-').next()?.parse::<usize>().ok())
        {
            recordings.push((number, path));
        }
    }
    recordings.sort();
    let invalid = |error: RecordingError| io::Error::other(error);
    let mut names = Names::default();
    for (_, path) in &recordings {
        find_names(&Recording::read(path).map_err(invalid)?, &mut names);
    }
    let mut anonymiser = Anonymiser::new(&names)?;
    for (number, path) in &recordings {
        let recording = anonymiser.recording(Recording::read(path).map_err(invalid)?);
        private::replace(&to.join(recording.file_name(*number)), recording.to_ndjson().as_bytes())?;
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Adds the names in a recording.
fn find_names(recording: &Recording, names: &mut Names) {
    let mut body = Vec::new();
    for frame in &recording.frames {
        match &frame.event {
            RecordedEvent::Request { target, headers, .. } => {
                names.find_in(target);
                for (name, value) in headers {
                    match name.to_ascii_lowercase().as_str() {
                        name if HOST_HEADERS.contains(&name) => names.add_host(value),
                        USER_HEADER => names.add(value, NameKind::User),
                        _ => names.find_in(value),
                    }
                }
            }
            RecordedEvent::Response { headers, .. } => {
                headers.iter().for_each(|(_, value)| names.find_in(value))
            }
            RecordedEvent::Body(bytes) => body.extend_from_slice(bytes),
            RecordedEvent::Text(text) => names.find_in(text),
            RecordedEvent::Binary(bytes) => names.find_in(&String::from_utf8_lossy(bytes)),
            RecordedEvent::Close { reason, .. } => names.find_in(reason),
            _ => {}
        }
    }
    names.find_in(&String::from_utf8_lossy(&body));
}

/// Replaces what identifies somebody.
struct Anonymiser {
    search: Option<AhoCorasick>,
    /// The pseudonym of each pattern of the search.
    replacements: Vec<String>,
    pseudonyms: Pseudonyms,
}

impl Anonymiser {
    fn new(names: &Names) -> io::Result<Self> {
        let (mut patterns, mut replacements) = (Vec::new(), Vec::new());
        let mut pseudonyms = Pseudonyms::default();
        for (name, kind) in names.iter() {
            let pseudonym = pseudonyms.name(name, kind);
            for spelling in [name].into_iter().chain(names.spellings(name).map(String::as_str)) {
                let percent = utf8_percent_encode(spelling, NON_ALPHANUMERIC).to_string();
                let percent = percent.replace("%2D", "-").replace("%2E", ".").replace("%5F", "_");
                for form in [spelling.to_owned(), percent] {
                    if patterns.last() != Some(&form) {
                        patterns.push(form);
                        replacements.push(pseudonym.clone());
                    }
                }
            }
        }
        let mut builder = AhoCorasick::builder();
        builder
            .match_kind(MatchKind::LeftmostLongest)
            .ascii_case_insensitive(true)
            .start_kind(StartKind::Both);
        let search = builder.build(&patterns).map_err(io::Error::other)?;
        let search = Some(search).filter(|_| !patterns.is_empty());
        Ok(Self { search, replacements, pseudonyms })
    }

    fn recording(&mut self, mut recording: Recording) -> Recording {
        // A name may lie across two frames, but not across two lines of a stream.
        recording.join_bodies();
        for frame in &mut recording.frames {
            let event = mem::replace(&mut frame.event, RecordedEvent::End);
            frame.event = self.event(event);
        }
        recording
            .frames
            .retain(|frame| !matches!(&frame.event, RecordedEvent::Body(bytes) if bytes.is_empty()));
        recording.correct_content_length();
        recording
    }

    fn event(&mut self, event: RecordedEvent) -> RecordedEvent {
        let mut all = |headers: Vec<(String, String)>| {
            headers.into_iter().map(|(name, value)| (name, self.text(&value))).collect()
        };
        match event {
            RecordedEvent::Request { method, target, headers } => {
                let headers = all(headers);
                RecordedEvent::Request { method, target: self.target(&target), headers }
            }
            RecordedEvent::Response { status, headers } => {
                RecordedEvent::Response { status, headers: all(headers) }
            }
            RecordedEvent::Text(text) => RecordedEvent::Text(self.text(&text)),
            RecordedEvent::Body(bytes) => RecordedEvent::Body(self.bytes(bytes)),
            RecordedEvent::Binary(bytes) => RecordedEvent::Binary(self.bytes(bytes)),
            RecordedEvent::Close { code, reason } => {
                RecordedEvent::Close { code, reason: self.text(&reason) }
            }
            event => event,
        }
    }

    /// Bytes that are not text are left out.
    fn bytes(&mut self, bytes: Bytes) -> Bytes {
        let text = String::from_utf8(bytes.into()).unwrap_or_default();
        self.text(&text).into()
    }

    /// A target, whose parts may be percent-encoded.
    fn target(&mut self, target: &str) -> String {
        let mut out = String::new();
        for part in target.split_inclusive(['/', '?', '&', '=']) {
            let (part, delimiter) = match part.char_indices().last() {
                Some((at, '/' | '?' | '&' | '=')) => part.split_at(at),
                _ => (part, ""),
            };
            let decoded = percent_decode_str(part).decode_utf8_lossy();
            let replaced = self.text(&decoded);
            if replaced == decoded {
                out.push_str(part);
            } else {
                out.extend(utf8_percent_encode(&replaced, NON_ALPHANUMERIC));
            }
            out.push_str(delimiter);
        }
        out
    }

    fn text(&mut self, text: &str) -> String {
        self.nested(text, 0)
    }

    /// Replaces in `text`, and in the JSON strings in it.
    fn nested(&mut self, text: &str, depth: usize) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while depth < MAX_NESTING
            && let Some(open) = rest.find('"')
        {
            let (before, string) = rest.split_at(open + 1);
            let inside = &string[..string_end(string)];
            out.push_str(&self.plain(before));
            match serde_json::from_str::<String>(&format!("\"{inside}\"")) {
                Ok(decoded) => {
                    let replaced = self.nested(&decoded, depth + 1);
                    match inside.is_ascii() {
                        _ if replaced == decoded => out.push_str(inside),
                        true => out.push_str(&escaped_ascii(&replaced)),
                        false => out.push_str(&escaped(&replaced)),
                    }
                }
                Err(_) => out.push_str(&self.plain(inside)),
            }
            rest = &string[inside.len()..];
            if let Some(after) = rest.strip_prefix('"') {
                out.push('"');
                rest = after;
            }
        }
        out.push_str(&self.plain(rest));
        out
    }

    /// Replaces names, fingerprints and then addresses.
    fn plain(&mut self, text: &str) -> String {
        let text = self.without_names(text);
        let mut out = String::with_capacity(text.len());
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-');
        let mut rest = &*text;
        while !rest.is_empty() {
            if let Some((replaced, length)) = self.base64_fingerprint(rest) {
                out.push_str(&replaced);
                rest = &rest[length..];
            }
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            out.push_str(&self.address(&rest[..end]));
            rest = &rest[end..];
            let end = rest.find(is_part).unwrap_or(rest.len());
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        out
    }

    /// The pseudonym of the fingerprint in base64 that `text` begins with, as OpenSSH writes it, and its length.
    fn base64_fingerprint(&mut self, text: &str) -> Option<(String, usize)> {
        let encoded = text.strip_prefix(SHA256)?.get(..SHA256_BASE64)?;
        let octets = STANDARD_NO_PAD.decode(encoded).ok()?;
        let replaced = hex_octets(&self.pseudonyms.octets(&octets_of(&to_hex(&octets)), ':'))?;
        Some((format!("{SHA256}{}", STANDARD_NO_PAD.encode(replaced)), SHA256.len() + encoded.len()))
    }

    fn without_names<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(search) = &self.search else { return Cow::Borrowed(text) };
        let (mut out, mut copied, mut from) = (String::new(), 0, 0);
        let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        while let Some(longest) = search.find(Input::new(text).range(from..)) {
            let start = longest.start();
            let mut found = Some(longest).filter(|_| !is_word(text[..start].chars().next_back()));
            // The longest name may be a part of a word where a shorter one is not: `pve-1` and `pve` in `pve-10`.
            while let Some(part) = found.filter(|found| is_word(text[found.end()..].chars().next())) {
                let shorter = Input::new(text).range(start..part.end() - 1).anchored(Anchored::Yes);
                found = search.find(shorter);
            }
            let Some(found) = found else {
                from = start + text[start..].chars().next().map_or(1, char::len_utf8);
                continue;
            };
            let end = found.end();
            out.push_str(&text[copied..start]);
            out.push_str(&self.replacements[found.pattern().as_usize()]);
            (copied, from) = (end, end);
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(&text[copied..]);
        Cow::Owned(out)
    }

    /// `word` with its pseudonym if it is an address, with or without a port, a fingerprint or the id of a task.
    fn address(&mut self, word: &str) -> String {
        let trimmed = word.trim_end_matches(['.', ':', '-']);
        let end = &word[trimmed.len()..];
        if let Some(task) = word.strip_prefix(UPID) {
            return format!("{UPID}{}", self.task(task));
        }
        let replaced = match trimmed.rsplit_once(':') {
            _ if is_octets(trimmed, ':') => Some(self.pseudonyms.octets(trimmed, ':')),
            _ if is_octets(trimmed, '-') => Some(self.pseudonyms.octets(trimmed, '-')),
            _ if is_fingerprint(trimmed) => {
                Some(self.pseudonyms.octets(&octets_of(trimmed), ':').replace(':', ""))
            }
            Some((address, port)) if address.parse::<std::net::Ipv4Addr>().is_ok() => {
                Some(format!("{}:{port}", self.address(address)))
            }
            _ => match trimmed.split_once(':') {
                // The name of its hash.
                Some((hash, octets)) if is_octets(octets, ':') || is_fingerprint(octets) => {
                    Some(format!("{hash}:{}", self.address(octets)))
                }
                _ => trimmed.parse::<IpAddr>().ok().map(|address| self.pseudonyms.address(address)),
            },
        };
        replaced.map_or_else(|| word.to_owned(), |replaced| format!("{replaced}{end}"))
    }

    /// The rest of the id of a task, `NODE:PID:PSTART:STARTTIME:TYPE:ID:USER:`, with pseudonyms for its numbers. Its names have
    /// theirs.
    fn task(&mut self, task: &str) -> String {
        let is_number = |part: &str| part.len() >= 8 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let part = |(at, part): (usize, &str)| match at {
            1..=3 if is_number(part) => self.pseudonyms.number(part),
            _ => part.to_owned(),
        };
        task.split(':').enumerate().map(part).collect::<Vec<_>>().join(":")
    }
}

/// Whether `text` is a MAC address, or the SHA-1 or SHA-256 fingerprint of a certificate.
fn is_octets(text: &str, separator: char) -> bool {
    let is_octet = |octet: &str| octet.len() == 2 && octet.bytes().all(|byte| byte.is_ascii_hexdigit());
    OCTETS.contains(&text.split(separator).count()) && text.split(separator).all(is_octet)
}

/// Whether `text` is a fingerprint without separators.
fn is_fingerprint(text: &str) -> bool {
    OCTETS[1..].contains(&(text.len() / 2))
        && text.len().is_multiple_of(2)
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Hexadecimal digits, in pairs with colons between them.
fn octets_of(digits: &str) -> String {
    digits.as_bytes().chunks(2).map(String::from_utf8_lossy).collect::<Vec<_>>().join(":")
}

fn to_hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The bytes of hexadecimal pairs with colons between them.
fn hex_octets(text: &str) -> Option<Vec<u8>> {
    text.split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_replaced_in_every_form_and_no_part_of_a_word_is() {
        let mut names = Names::default();
        for name in ["pve1", "pve", "pve-1", "café", "Österreich", "lab cluster"] {
            names.add(name, NameKind::Node);
        }
        let mut anonymiser = Anonymiser::new(&names).unwrap();
        let (pve, pve1) = (anonymiser.text("pve"), anonymiser.text("pve1"));
        for (text, replaced) in [
            ("on pve1, PVE1: pve1-x", format!("on {pve1}, {pve1}: {pve1}-x")),
            ("pve10 xpve1", "pve10 xpve1".to_owned()),
            ("pve-10", format!("{pve}-10")),
            (r#"{"m":"\npve1\u00e9 pve1"}"#, format!(r#"{{"m":"\npve1\u00e9 {pve1}"}}"#)),
            (r#"{"m":"{\"n\":\"pve1\"}"}"#, format!(r#"{{"m":"{{\"n\":\"{pve1}\"}}"}}"#)),
        ] {
            assert_eq!(anonymiser.text(text), replaced);
        }
        let accented = anonymiser.text("café");
        assert_eq!(anonymiser.text(r#""caf\u00e9""#), format!("\"{accented}\""));
        assert_eq!(anonymiser.text("caf%C3%A9"), accented);
        let capital = anonymiser.text("Österreich");
        assert!(capital.starts_with("node-") && capital == anonymiser.text("österreich"));
        assert_eq!(anonymiser.text("%C3%96sterreich"), capital);
        assert!(!anonymiser.target("/x?name=lab%20cluster&y=1").contains("lab"));
    }

    #[test]
    fn addresses_are_replaced_and_what_looks_like_one_is_not() {
        let mut anonymiser = Anonymiser::new(&Names::default()).unwrap();
        let address = anonymiser.text("10.0.0.1");
        assert_eq!(
            anonymiser.text("https://10.0.0.1:8006/ 10.0.0.1/24."),
            format!("https://{address}:8006/ {address}/24.")
        );
        assert!(!anonymiser.text("[fe80::1]:80").contains("fe80"));
        assert!(!anonymiser.text("BC:24:11:00:68:00").contains("BC:24"));
        let fingerprint = ["AB:CD:EF:01"; 8].join(":");
        let replaced = anonymiser.text(&fingerprint);
        assert!(!replaced.contains("AB:CD") && replaced.len() == fingerprint.len(), "{replaced}");
        let colons = anonymiser.text(&fingerprint);
        let bare = fingerprint.replace(':', "");
        assert_eq!(anonymiser.text(&bare), colons.replace(':', ""));
        assert_eq!(
            anonymiser.text(&format!("sha256:{bare}.")),
            format!("sha256:{}.", colons.replace(':', ""))
        );
        assert_eq!(anonymiser.text(&format!("SHA256:{fingerprint}")), format!("SHA256:{colons}"));
        let base64 = |text: &str| format!("SHA256:{}", STANDARD_NO_PAD.encode(hex_octets(text).unwrap()));
        let both = format!("a {} ({})", base64(&fingerprint), base64(&fingerprint));
        assert_eq!(anonymiser.text(&both), format!("a {0} ({0})", base64(&colons)));
        for text in ["0.0.11.post2", "9.0.10", "12:34:56", "127.0.0.1:80", "255.255.255.0", "..."] {
            assert_eq!(anonymiser.text(text), text);
        }
    }

    #[test]
    fn the_id_of_a_task_has_pseudonyms_in_all_its_parts() {
        let task = "UPID:pve01:0003A1B2:0A1B2C3D:65F1A2B3:imgcopy:web01:alice@acme!ci:";
        let mut names = Names::default();
        names.find_in(task);
        let mut anonymiser = Anonymiser::new(&names).unwrap();
        let replaced = anonymiser.text(task);
        for part in ["pve01", "0003A1B2", "0A1B2C3D", "65F1A2B3", "web01", "alice", "acme", "!ci:"] {
            assert!(!replaced.contains(part), "{part} in {replaced}");
        }
        let parts = |text: &str| text.split(':').map(str::len).collect::<Vec<_>>();
        assert_eq!(parts(&replaced)[2..5], parts(task)[2..5], "{replaced}");
        assert!(replaced.starts_with("UPID:node-") && replaced.contains(":imgcopy:"), "{replaced}");
        assert_eq!(anonymiser.text(&format!("is {task} done")), format!("is {replaced} done"));
    }

    #[test]
    fn exchanges_with_numbers_of_six_digits_stay_apart() {
        use crate::recording::{Direction, Protocol, RecordedKey};
        let [from, to] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let recording = Recording::new("0.0.11.post2", Protocol::Http, RecordedKey::Sent).with(
            0.0,
            Direction::Out,
            RecordedEvent::get("/a"),
        );
        let names = ["00007-get-a.ndjson", "100000-get-a.ndjson", "100001-get-a.ndjson"];
        for name in names {
            fs::write(from.path().join(name), recording.to_ndjson()).unwrap();
        }
        anonymise(from.path(), to.path()).unwrap();
        for name in names {
            assert!(to.path().join(name).exists(), "{name}");
        }
        assert_eq!(from.path().read_dir().unwrap().count(), 0);
    }
}

//! Reads the JSON of events field by field.
//!
//! Backends write events of one form: strings without escapes, few levels, and more fields than are needed. That form is
//! read here, straight into the fields of a structure. Single values of another form are left to `serde_json`, and a text
//! that cannot be read is left to it as a whole. So every text has the result that `serde_json` gives it, errors included.
//!
//! The functions take the text that is left, and return what is left behind a value: `None` leaves all to `serde_json`.

use std::borrow::Cow;

use serde::de::{Deserialize, IgnoredAny};
use serde_json::value::RawValue;

use super::lenient::{LenientBool, LenientCount, LenientMap, LenientText};
use crate::core::domain::figures::Figures;
use crate::core::text::eight::{Eight, find_ascii};

/// The maximum nesting depth that is read.
const MAX_DEPTH: u8 = 32;

/// Reads the object `text`, as [`serde_json::from_str`] does.
///
/// # Errors
///
/// That of `serde_json`.
pub(super) fn from_str<'a, T: ReadFields<'a> + Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    read(text).map_or_else(|| serde_json::from_str(text), Ok)
}

fn read<'a, T: ReadFields<'a>>(text: &'a str) -> Option<T> {
    let mut value = T::default();
    let text = trimmed(text);
    if !text.starts_with('{') {
        return None;
    }
    let rest = fields(&mut value, text, MAX_DEPTH)?;
    trimmed(rest).is_empty().then_some(value)
}

/// The type of a field.
pub(super) trait ReadValue<'a> {
    /// Reads the value at the start of `text`, which may contain `depth` levels.
    fn read(&mut self, text: &'a str, depth: u8) -> Option<&'a str>;
}

/// A structure that is read field by field. Unknown fields are skipped, as by its `Deserialize`.
pub(super) trait ReadFields<'a>: Default {
    /// Reads the value of the field `name`. `seen` has a bit for each field that was read.
    fn read_field(&mut self, name: &str, seen: &mut u32, text: &'a str, depth: u8) -> Option<&'a str>;
}

/// Implements [`ReadFields`] for a structure with these fields.
macro_rules! read_fields {
    ($type:ident $(, $parameter:ident)? { $($field:ident),+ }) => {
        impl<'a $(, $parameter: Default + $crate::core::upstream::event_json::ReadValue<'a>)?>
            $crate::core::upstream::event_json::ReadFields<'a> for $type<'a $(, $parameter)?>
        {
            fn read_field(&mut self, name: &str, seen: &mut u32, text: &'a str, depth: u8) -> Option<&'a str> {
                let Self { $($field),+ } = self;
                let mut bit = 1;
                $(
                    if name == stringify!($field) {
                        let is_first = *seen & bit == 0;
                        *seen |= bit;
                        // A field that stands twice is an error.
                        return if is_first {
                            $crate::core::upstream::event_json::ReadValue::read($field, text, depth)
                        } else {
                            None
                        };
                    }
                    bit <<= 1;
                )+
                let _ = bit;
                $crate::core::upstream::event_json::skip(text, depth)
            }
        }
    };
}

pub(super) use read_fields;

impl<'a, T: ReadFields<'a>> ReadFields<'a> for Box<T> {
    fn read_field(&mut self, name: &str, seen: &mut u32, text: &'a str, depth: u8) -> Option<&'a str> {
        T::read_field(self, name, seen, text, depth)
    }
}

/// `text` without white space at its start.
#[inline]
fn trimmed(mut text: &str) -> &str {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.as_bytes().first() {
        text = &text[1..];
    }
    text
}

/// Reads the object at the start of `text`.
fn fields<'a, T: ReadFields<'a>>(value: &mut T, text: &'a str, depth: u8) -> Option<&'a str> {
    let mut seen = 0;
    items(text, '}', depth, |text, depth| {
        let (name, text) = name(text)?;
        value.read_field(name, &mut seen, text, depth)
    })
}

/// Reads the list or the object at the start of `text`, up to `close`.
#[inline]
fn items<'a>(
    text: &'a str,
    close: char,
    depth: u8,
    mut read_item: impl FnMut(&'a str, u8) -> Option<&'a str>,
) -> Option<&'a str> {
    let depth = depth.checked_sub(1)?;
    let mut text = trimmed(&text[1..]);
    if let Some(rest) = text.strip_prefix(close) {
        return Some(rest);
    }
    loop {
        text = read_item(text, depth)?;
        // As Python writes it.
        if let Some(next) = text.strip_prefix(", ") {
            text = trimmed(next);
            continue;
        }
        text = trimmed(text);
        if let Some(rest) = text.strip_prefix(close) {
            return Some(rest);
        }
        text = trimmed(text.strip_prefix(',')?);
    }
}

/// The name of a field at the start of `text`, and the text from its value on.
#[inline(always)]
fn name(text: &str) -> Option<(&str, &str)> {
    let (name, text) = verbatim(text.strip_prefix('"')?)?;
    // As Python writes it.
    let value = text.strip_prefix(": ").or_else(|| trimmed(text).strip_prefix(':'))?;
    Some((name, trimmed(value)))
}

/// The string without escapes whose opening quote is before `text`, and the text behind it.
#[inline]
fn verbatim(text: &str) -> Option<(&str, &str)> {
    let (string, rest) = text.split_at_checked(verbatim_len(text))?;
    Some((string, rest.strip_prefix('"')?))
}

/// The number of bytes before the first quote, backslash or control character.
#[inline]
fn verbatim_len(text: &str) -> usize {
    find_ascii(text.as_bytes(), Eight::special_in_json)
}

/// Skips the value at the start of `text`.
pub(super) fn skip(text: &str, depth: u8) -> Option<&str> {
    match text.as_bytes().first()? {
        b'"' => match verbatim(&text[1..]) {
            Some((_, rest)) => Some(rest),
            None => skip_escaped(text),
        },
        b'{' => items(text, '}', depth, |text, depth| skip(name(text)?.1, depth)),
        b'[' => items(text, ']', depth, skip),
        b't' => text.strip_prefix("true"),
        b'f' => text.strip_prefix("false"),
        b'n' => text.strip_prefix("null"),
        _ => skip_number(text),
    }
}

/// Skips the string with escapes at the start of `text`.
fn skip_escaped(text: &str) -> Option<&str> {
    let mut rest = &text[1..];
    loop {
        rest = &rest[verbatim_len(rest)..];
        match rest.as_bytes().first()? {
            b'"' => break,
            b'\\' => rest = rest.get(2..)?,
            _ => return None,
        }
    }
    parsed::<IgnoredAny>(text, &rest[1..])?;
    Some(&rest[1..])
}

/// Skips the number at the start of `text`.
fn skip_number(text: &str) -> Option<&str> {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let length = text.bytes().take_while(is_part).count();
    let (number, rest) = text.split_at(length);
    match number.as_bytes() {
        [b'0'..=b'9'] => {}
        [b'1'..=b'9', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {}
        _ => drop(parsed::<IgnoredAny>(text, rest)?),
    }
    Some(rest)
}

/// The value in `text` before `rest`, by `serde_json`.
fn parsed<'a, T: Deserialize<'a>>(text: &'a str, rest: &str) -> Option<T> {
    serde_json::from_str(before(text, rest)).ok()
}

/// `text` without `rest` at its end.
fn before<'a>(text: &'a str, rest: &str) -> &'a str {
    &text[..text.len() - rest.len()]
}

/// Reads the value at the start of `text` with `serde_json`.
fn parse<'a, T: Deserialize<'a>>(value: &mut T, text: &'a str, depth: u8) -> Option<&'a str> {
    let rest = skip(text, depth)?;
    *value = parsed(text, rest)?;
    Some(rest)
}

/// Skips a value of another type than that of the field. Numbers, and strings with escapes, are left to `serde_json`: a
/// number is a text of [`LenientText`].
fn skip_unfit<'a, T: Deserialize<'a>>(value: &mut T, text: &'a str, depth: u8) -> Option<&'a str> {
    match text.as_bytes().first()? {
        b'{' | b'[' | b't' | b'f' | b'n' => skip(text, depth),
        b'"' if verbatim(&text[1..]).is_some() => skip(text, depth),
        // `serde_json` refuses some of these in a field, though not where they are skipped.
        _ => parse(value, text, depth),
    }
}

impl<'a> ReadValue<'a> for LenientText<'a> {
    fn read(&mut self, text: &'a str, depth: u8) -> Option<&'a str> {
        let (value, rest) = match text.as_bytes().first()? {
            b'"' => match verbatim(&text[1..]) {
                Some(read) => read,
                None => return parse(self, text, depth),
            },
            b't' => ("true", text.strip_prefix("true")?),
            b'f' => ("false", text.strip_prefix("false")?),
            _ => return skip_unfit(self, text, depth),
        };
        self.0 = Some(Cow::Borrowed(value));
        Some(rest)
    }
}

impl<'a> ReadValue<'a> for LenientBool {
    fn read(&mut self, text: &'a str, depth: u8) -> Option<&'a str> {
        let (value, literal) = match text.as_bytes().first()? {
            b't' => (true, "true"),
            b'f' => (false, "false"),
            _ => return skip_unfit(self, text, depth),
        };
        self.0 = Some(value);
        text.strip_prefix(literal)
    }
}

impl<'a> ReadValue<'a> for LenientCount {
    fn read(&mut self, text: &'a str, depth: u8) -> Option<&'a str> {
        if !text.starts_with(|first: char| first.is_ascii_digit()) {
            return skip_unfit(self, text, depth);
        }
        let rest = skip_number(text)?;
        *self = match before(text, rest).parse() {
            Ok(count) => Self::new(count),
            Err(_) => parsed(text, rest)?,
        };
        Some(rest)
    }
}

/// Present, whatever its value.
impl<'a, T: Default + ReadValue<'a>> ReadValue<'a> for Option<T> {
    fn read(&mut self, text: &'a str, depth: u8) -> Option<&'a str> {
        self.insert(T::default()).read(text, depth)
    }
}

impl<'a> ReadValue<'a> for Option<&'a RawValue> {
    fn read(&mut self, text: &'a str, depth: u8) -> Option<&'a str> {
        parse(self, text, depth)
    }
}

impl<'a, T: ReadFields<'a> + Deserialize<'a>> ReadValue<'a> for LenientMap<T> {
    fn read(&mut self, text: &'a str, depth: u8) -> Option<&'a str> {
        if text.starts_with('{') {
            fields(self.0.insert(T::default()), text, depth)
        } else {
            skip_unfit(self, text, depth)
        }
    }
}

impl<'a> ReadValue<'a> for LenientMap<Box<Figures>> {
    fn read(&mut self, text: &'a str, depth: u8) -> Option<&'a str> {
        parse(self, text, depth)
    }
}

#[cfg(test)]
mod tests;

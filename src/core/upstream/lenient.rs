//! Field types that accept any JSON type and keep the usable values.
//!
//! Releases disagree on the type of nearly every field. `detail` is a string, an object or null; `netbox_id` is a
//! number or the string `"undefined"`. A field of the wrong type must not invalidate its event.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::core::text::is_blank;

/// A text. Numbers and booleans become their text; other types become none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LenientText<'a>(pub Option<Cow<'a, str>>);

impl LenientText<'_> {
    /// The text, if it is present and not empty.
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_deref().filter(|text| !is_blank(text))
    }

    /// The text, or the empty string.
    pub fn or_empty(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

/// A boolean. Other types become none: `"true"`, `1` and null do not report success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LenientBool(pub Option<bool>);

/// A count. Values other than non-negative integers become none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LenientCount(pub Option<u64>);

impl LenientCount {
    /// The maximum count that is accepted: the largest integer that every JSON parser distinguishes from its
    /// successor.
    pub const MAX: u64 = 1 << 53;

    /// A count of `number`, or of [`Self::MAX`] if that is less.
    pub(super) fn new(number: u64) -> Self {
        Self(Some(number.min(Self::MAX)))
    }
}

/// An object that is parsed as a `T`. Other types become none.
#[derive(Clone, Debug)]
pub struct LenientMap<T>(pub Option<T>);

impl<T> Default for LenientMap<T> {
    fn default() -> Self {
        Self(None)
    }
}

macro_rules! nothing_of {
    ($value:expr; $($name:ident: $type:ty),*) => {$(
        fn $name<E>(self, _: $type) -> Result<Self::Value, E> {
            Ok($value)
        }
    )*};
}

macro_rules! nothing_of_compounds {
    ($value:expr) => {
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($value)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok($value)
        }
    };
}

macro_rules! nothing_of_maps {
    ($value:expr) => {
        fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            while items.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok($value)
        }
    };
}

impl<'de: 'a, 'a> Deserialize<'de> for LenientText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Seen<'a> {
            type Value = LenientText<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(LenientText(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(LenientText(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(LenientText(Some(Cow::Borrowed(if value { "true" } else { "false" }))))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(LenientText(Some(Cow::Owned(value.to_string()))))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(LenientText(Some(Cow::Owned(value.to_string()))))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
                Ok(LenientText(Some(Cow::Owned(value.to_string()))))
            }

            nothing_of_compounds!(LenientText(None));
            nothing_of_maps!(LenientText(None));
        }

        deserializer.deserialize_any(Seen(PhantomData))
    }
}

impl<'de> Deserialize<'de> for LenientBool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;

        impl<'de> Visitor<'de> for Seen {
            type Value = LenientBool;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(LenientBool(Some(value)))
            }

            nothing_of!(LenientBool(None); visit_str: &str, visit_u64: u64, visit_i64: i64, visit_f64: f64);
            nothing_of_compounds!(LenientBool(None));
            nothing_of_maps!(LenientBool(None));
        }

        deserializer.deserialize_any(Seen)
    }
}

impl<'de> Deserialize<'de> for LenientCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;

        impl<'de> Visitor<'de> for Seen {
            type Value = LenientCount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(LenientCount::new(value))
            }

            nothing_of!(LenientCount(None); visit_str: &str, visit_bool: bool, visit_i64: i64, visit_f64: f64);
            nothing_of_compounds!(LenientCount(None));
            nothing_of_maps!(LenientCount(None));
        }

        deserializer.deserialize_any(Seen)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for LenientMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Seen<T> {
            type Value = LenientMap<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|value| LenientMap(Some(value)))
            }

            nothing_of!(
                LenientMap(None);
                visit_str: &str, visit_bool: bool, visit_u64: u64, visit_i64: i64, visit_f64: f64
            );
            nothing_of_compounds!(LenientMap(None));
        }

        deserializer.deserialize_any(Seen(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, bound(deserialize = "'de: 'a"))]
    struct All<'a> {
        text: LenientText<'a>,
        flag: LenientBool,
        number: LenientCount,
        map: LenientMap<Inner<'a>>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, bound(deserialize = "'de: 'a"))]
    struct Inner<'a> {
        text: LenientText<'a>,
    }

    #[test]
    fn a_field_of_any_type_costs_only_itself() {
        for value in
            ["null", "true", "3", "-3", "3.5", "\"x\"", "\"\\u0041\"", "[1,[2]]", "{\"text\":{\"a\":[]}}"]
        {
            let json = format!(
                "{{\"text\":{value},\"flag\":{value},\"number\":{value},\"map\":{value},\"unknown\":{value}}}"
            );
            let all: All<'_> = serde_json::from_str(&json).unwrap();
            assert_eq!(all.flag.0, (value == "true").then_some(true));
            assert_eq!(all.number.0, (value == "3").then_some(3));
            assert_eq!(all.map.0.is_some(), value.starts_with('{'));
            assert_eq!(all.text.0.is_some(), !value.starts_with(['[', '{', 'n']), "{value}");
        }
    }

    #[test]
    fn a_text_without_escapes_is_borrowed() {
        let inner: Inner<'_> = serde_json::from_str("{\"text\":\"pve1\"}").unwrap();
        assert!(matches!(inner.text.0, Some(Cow::Borrowed("pve1"))));
    }
}

//! Enums whose variants have fixed names in configuration, logs, metrics and records.

/// The text is not the name of a variant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of: {}", .0.join(", "))]
pub struct UnknownVariant(pub &'static [&'static str]);

/// Defines an enum with a name for each variant: `string_enum! { pub enum Fruit { Apple = "apple", Pear = "pear" } }`.
macro_rules! string_enum {
    ($(#[$meta:meta])* $vis:vis enum $type:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $name:expr),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $type { $($(#[$variant_meta])* $variant),+ }

        $crate::core::text::string_enum::variant_names!($vis $type { $($variant => $name),+ });
    };
}

/// Implements the conversions between the variants of an enum and their names.
macro_rules! variant_names {
    ($vis:vis $type:ident { $($variant:ident $(($inner:path))? => $name:expr),+ $(,)? }) => {
        impl $type {
            /// All variants.
            $vis const ALL: [Self; Self::NAMES.len()] = [$(Self::$variant $(($inner))?),+];
            /// The names of all variants, in the order of [`Self::ALL`].
            $vis const NAMES: [&'static str; [$($name),+].len()] = [$($name),+];

            /// The name of the variant.
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant $(($inner))? => $name),+
                }
            }

            /// The variant with this name.
            $vis fn from_name(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|variant| variant.as_str() == name)
            }
        }

        impl ::std::str::FromStr for $type {
            type Err = $crate::core::text::string_enum::UnknownVariant;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::from_name(text).ok_or($crate::core::text::string_enum::UnknownVariant(&Self::NAMES))
            }
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

pub(crate) use {string_enum, variant_names};

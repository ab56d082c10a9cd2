//! Enums with a fixed name per variant in configuration.

/// Implements the conversions between an enum's variants and their names, and an error type for other texts:
/// `words!(Fruit or NotAFruit { Apple => "apple", Pear => "pear" })`.
macro_rules! words {
    ($type:ident or $error:ident $(($known:expr))? {
        $($name:ident $(($inner:path))? => $word:expr),+ $(,)?
    }) => {
        impl $type {
            /// All variants.
            pub const ALL: [Self; Self::WORDS.len()] = [$(Self::$name $(($inner))?),+];
            /// The names of all variants, in the order of [`Self::ALL`].
            pub const WORDS: [&'static str; [$($word),+].len()] = [$($word),+];

            /// The name of the variant in configuration.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name $(($inner))? => $word),+
                }
            }
        }

        impl ::std::str::FromStr for $type {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                Self::ALL.into_iter().find(|value| value.as_str() == text).ok_or($error $(($known))?)
            }
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use words;

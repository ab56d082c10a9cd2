//! Enums that are words in configuration.

/// Gives an enum the word for each of its values, both ways, and the error for any other text:
/// `words!(Fruit or NotAFruit { Apple => "apple", Pear => "pear" })`.
macro_rules! words {
    ($type:ident or $error:ident $(($known:expr))? {
        $($name:ident $(($inner:path))? => $word:expr),+ $(,)?
    }) => {
        impl $type {
            /// Every value.
            pub const ALL: [Self; Self::WORDS.len()] = [$(Self::$name $(($inner))?),+];
            /// The word for every value, in the order of [`Self::ALL`].
            pub const WORDS: [&'static str; [$($word),+].len()] = [$($word),+];

            /// The word for this value in configuration.
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

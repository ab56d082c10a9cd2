//! One entry for each configuration key.

use super::value::ValueError;

/// A configuration key.
#[derive(Debug)]
pub struct ConfigKey {
    /// The name with its table: `limits.idle`.
    pub name: &'static str,
    /// The description, as Markdown in one paragraph.
    pub doc: &'static str,
    /// The flag that sets it, if there is one: `--backend`.
    pub flag: Option<&'static str>,
    /// Whether a change needs a restart. A reload applies a change of any other key.
    pub needs_restart: bool,
    /// Whether a backend can have its own value, although the key is not one of the table `[backend]`.
    pub(super) per_backend: bool,
    /// Whether the file takes an array; other sources take parts with commas between them.
    pub(super) is_list: bool,
    pub(super) default: fn() -> Option<String>,
    pub(super) allowed: fn() -> String,
}

/// What the name of every environment variable of the bridge begins with.
pub(super) const PREFIX: &str = "PROXBOX_BRIDGE_";

impl ConfigKey {
    /// The default as a variable would set it; `None` if there is none.
    pub fn default(&self) -> Option<String> {
        (self.default)()
    }

    /// The allowed values, as an error message states them after "must be".
    pub fn allowed(&self) -> String {
        (self.allowed)()
    }

    /// Whether each backend can have its own value.
    pub fn is_per_backend(&self) -> bool {
        self.per_backend || self.path().0 == "backend"
    }

    /// The environment variable that sets it: `PROXBOX_BRIDGE_LIMITS_IDLE`.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// The table in the file, empty for the top level, and the name within it.
    pub(super) fn path(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
    }
}

/// The values of one table of keys, made by [`keys!`].
pub(super) trait Table {
    /// Sets the key of this name, unless it is one of another table. A refused text changes nothing.
    fn set(&mut self, name: &str, text: &str) -> Option<Result<(), ValueError>>;

    /// The value of the key of this name, as a variable would set it; `None` if it is not set or not of this table.
    fn get(&self, name: &str) -> Option<String>;
}

/// Defines configuration keys, each in one entry:
///
/// ```text
/// keys! {
///     pub struct Limits in "limits." {
///         /// Time to establish a TCP connection to the backend.
///         connect: Duration = secs(10), within POSITIVE, per backend;
///     }
/// }
/// ```
///
/// An entry has, in this order: the description, which is also the documentation of the field; `pub` (see below); name;
/// type; default; and, where they apply, `within` the allowed range, `flag` with the flag that sets the key,
/// `per backend`, and `needs restart`. The result is a struct with a field for each key, whose `Default` are the
/// defaults, and the constant `KEYS`.
///
/// Some tables have keys that are of use only together, or only after a file is read. A second struct then has what is
/// made of them, with the expression for each field, and the keys that are marked `pub` as they are:
///
/// ```text
///     pub struct BackendConfig from keys: pub(super) fn new(keys: BackendKeys, limits: Limits) {
///         /// The name in logs and metrics.
///         name: String = keys.name.unwrap_or_else(|| "none".to_owned());
///     }
/// ```
macro_rules! keys {
    (
        $(#[$attribute:meta])*
        $vis:vis struct $Keys:ident in $prefix:literal {
            $(
                $(#[doc = $doc:literal])+
                $field_vis:vis $field:ident: $type:ty = $default:expr
                $(, within $bounds:expr)? $(, flag $flag:literal)? $(, per $per:ident)? $(, needs $restart:ident)?;
            )+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $Keys {
            $( $(#[doc = $doc])+ $vis $field: $type, )+
        }

        impl $Keys {
            /// The keys of this table.
            pub(super) const KEYS: &[$crate::config::ConfigKey] = &[$(
                $crate::config::ConfigKey {
                    name: concat!($prefix, stringify!($field)),
                    doc: concat!($($doc),+).trim_ascii(),
                    flag: keys!(@option $($flag)?),
                    per_backend: keys!(@flag $($per)?),
                    needs_restart: keys!(@flag $($restart)?),
                    is_list: <$type as $crate::config::value::Value>::IS_LIST,
                    default: || {
                        let default: $type = $default;
                        $crate::config::value::Value::text(&default)
                    },
                    allowed: || {
                        <$type as $crate::config::value::Value>::allowed(&keys!(@bounds $($bounds)?))
                    },
                },
            )+];
        }

        impl Default for $Keys {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $crate::config::key::Table for $Keys {
            fn set(&mut self, name: &str, text: &str) -> Option<Result<(), $crate::config::value::ValueError>> {
                match name {
                    $( concat!($prefix, stringify!($field)) => {
                        let value = $crate::config::value::Value::read(text, &keys!(@bounds $($bounds)?));
                        Some(value.map(|value| self.$field = value))
                    } )+
                    _ => None,
                }
            }

            fn get(&self, name: &str) -> Option<String> {
                match name {
                    $( concat!($prefix, stringify!($field)) => {
                        $crate::config::value::Value::text(&self.$field)
                    } )+
                    _ => None,
                }
            }
        }
    };
    (
        struct $Keys:ident in $prefix:literal { $($entry:tt)+ }

        $(#[$attribute:meta])*
        pub struct $Made:ident from $($from:ident).+: $new_vis:vis fn $new:ident($($argument:ident: $argument_type:ty),+) {
            $( $(#[doc = $doc:literal])+ $field:ident: $type:ty = $value:expr; )+
        }
    ) => {
        keys! {
            #[doc = concat!("The keys `", $prefix, "*`.")]
            pub(super) struct $Keys in $prefix { $($entry)+ }
        }
        keys! {
            @made
            {
                [$(#[$attribute])* pub struct $Made]
                [$($from).+]
                [$new_vis fn $new($($argument: $argument_type),+)]
                [$( [$(#[doc = $doc])+ $field: $type = $value] )+]
            }
            []
            $($entry)+
        }
    };
    // Collects the keys that are marked `pub`.
    (
        @made $made:tt [$($kept:tt)*]
        $(#[doc = $doc:literal])+
        pub $field:ident: $type:ty = $default:expr
        $(, within $bounds:expr)? $(, flag $flag:literal)? $(, per $per:ident)? $(, needs $restart:ident)?;
        $($entry:tt)*
    ) => {
        keys! { @made $made [$($kept)* [$(#[doc = $doc])+ $field: $type]] $($entry)* }
    };
    (
        @made $made:tt $kept:tt
        $(#[doc = $doc:literal])+
        $field:ident: $type:ty = $default:expr
        $(, within $bounds:expr)? $(, flag $flag:literal)? $(, per $per:ident)? $(, needs $restart:ident)?;
        $($entry:tt)*
    ) => {
        keys! { @made $made $kept $($entry)* }
    };
    (
        @made
        {
            [$(#[$attribute:meta])* pub struct $Made:ident]
            $from:tt
            [$new_vis:vis fn $new:ident($($argument:ident: $argument_type:ty),+)]
            [$( [$(#[doc = $doc:literal])+ $field:ident: $type:ty = $value:expr] )+]
        }
        [$( [$(#[doc = $kept_doc:literal])+ $kept:ident: $kept_type:ty] )*]
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $Made {
            $( $(#[doc = $doc])+ pub $field: $type, )+
            $( $(#[doc = $kept_doc])+ pub $kept: $kept_type, )*
        }

        impl $Made {
            $new_vis fn $new($($argument: $argument_type),+) -> Self {
                $( let $field: $type = $value; )+
                Self { $( $field, )+ $( $kept: keys!(@field $from $kept), )* }
            }
        }
    };
    (@field [$($from:ident).+] $field:ident) => { $($from).+.$field };
    (@bounds) => { () };
    (@bounds $bounds:expr) => { $bounds };
    (@option) => { None };
    (@option $value:literal) => { Some($value) };
    (@flag) => { false };
    (@flag $flag:ident) => { true };
}

pub(super) use keys;

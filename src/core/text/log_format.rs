//! The formats of the log.

use crate::core::text::string_enum::string_enum;

string_enum! {
    /// The format of log lines.
    pub enum LogFormat {
        /// Text for people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
        /// `key=value` pairs (<https://brandur.org/logfmt>).
        Logfmt = "logfmt",
    }
}

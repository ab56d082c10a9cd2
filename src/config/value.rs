//! The types of keys: how a value is read, and which values are allowed.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::base_path::BasePath;
use crate::core::domain::channel::ChannelChoice;
use crate::core::domain::kind::Kind;
use crate::core::domain::notification::{NotificationEvent, NotificationForm};
use crate::core::http::url::{BackendUrl, HttpUrl, InvalidBackendUrl};
use crate::core::run::policy::{EndpointIds, FailurePolicies, UnsupportedPolicy};
use crate::core::text::log_format::LogFormat;
use crate::tls::Fingerprint;

/// A type that a key can have.
pub(super) trait Value: Sized {
    /// What restricts the values beside the type: the range of a number, or nothing.
    type Bounds;
    /// Whether the file takes an array.
    const IS_LIST: bool = false;

    /// Reads a value as a variable sets it.
    fn read(text: &str, bounds: &Self::Bounds) -> Result<Self, ValueError>;

    /// The value as a variable would set it, `None` for one that is not set.
    fn text(&self) -> Option<String>;

    /// The allowed values, as an error message states them after "must be".
    fn allowed(bounds: &Self::Bounds) -> String;
}

/// Why a text is not a value of its key.
#[derive(Debug)]
pub(super) enum ValueError {
    /// It is not what [`Value::allowed`] states.
    NotAllowed,
    /// It is not a URL that the bridge can use.
    Url(InvalidBackendUrl),
}

/// A value that need not be set.
impl<T: Value> Value for Option<T> {
    type Bounds = T::Bounds;

    fn read(text: &str, bounds: &Self::Bounds) -> Result<Self, ValueError> {
        T::read(text, bounds).map(Some)
    }

    fn text(&self) -> Option<String> {
        self.as_ref().and_then(T::text)
    }

    fn allowed(bounds: &Self::Bounds) -> String {
        T::allowed(bounds)
    }
}

/// Makes a type a [`Value`], with the function that reads it, the one that writes it, and what it allows.
macro_rules! value {
    ($type:ty, $read:expr, $text:expr, $allowed:expr $(, is_list: $is_list:literal)?) => {
        impl $crate::config::value::Value for $type {
            type Bounds = ();
            $( const IS_LIST: bool = $is_list; )?

            fn read(text: &str, (): &()) -> Result<Self, $crate::config::value::ValueError> {
                let read: fn(&str) -> Option<Self> = $read;
                read(text).ok_or($crate::config::value::ValueError::NotAllowed)
            }

            fn text(&self) -> Option<String> {
                let text: fn(&Self) -> String = $text;
                Some(text(self)).filter(|text| !text.is_empty())
            }

            fn allowed((): &()) -> String {
                $allowed.to_owned()
            }
        }
    };
    // An enum with its words.
    ($type:ident) => {
        $crate::config::value::value!(
            $type,
            |text| text.parse().ok(),
            |value| value.to_string(),
            $crate::config::value::one_of(&$type::NAMES)
        );
    };
}

pub(super) use value;

value!(ChannelChoice);
value!(UnsupportedPolicy);
value!(EndpointIds);
value!(NotificationForm);
value!(LogFormat);
value!(
    SocketAddr,
    |text| text.parse().ok(),
    SocketAddr::to_string,
    "an IP address with a port, such as 127.0.0.1:8800 or [::1]:8800"
);
value!(
    Vec<IpNet>,
    |text| parts(text).map(network).collect(),
    |networks| joined(networks),
    "a list of addresses and networks, such as 127.0.0.1 or 10.0.0.0/8",
    is_list: true
);
// Names of hosts.
value!(
    Vec<String>,
    |text| parts(text).map(host).collect(),
    |hosts| joined(hosts),
    "a list of host names, without ports",
    is_list: true
);
// Origins of pages.
value!(
    Vec<BackendUrl>,
    |text| parts(text).map(|origin| origin.parse().ok()).collect(),
    |origins| joined(origins),
    "a list of origins, such as https://netbox.example or http://10.0.0.5:8080",
    is_list: true
);
value!(
    BasePath,
    |text| text.parse().ok(),
    |path| path.as_str().to_owned(),
    "a path such as /proxbox-bridge/, of letters, digits, dots, dashes, underscores and tildes"
);
value!(
    Vec<Kind>,
    |text| parts(text).map(Kind::from_name).collect(),
    |kinds| joined(kinds),
    format!("a list of {}", one_of(&Kind::NAMES)),
    is_list: true
);
value!(
    Vec<NotificationEvent>,
    |text| {
        let events: Option<Vec<_>> = parts(text).map(NotificationEvent::from_name).collect();
        events.filter(|events| !events.is_empty() && !events.contains(&NotificationEvent::Test))
    },
    |events| joined(events),
    "a list of failed, objects_failed, interrupted, recovered or stale",
    is_list: true
);
/// Names of backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names(pub(super) Vec<String>);

value!(
    Names,
    |text| parts(text).map(|name| is_name(name).then(|| name.to_owned())).collect::<Option<_>>().map(Names),
    |names| joined(&names.0),
    "a list of names of backends",
    is_list: true
);
// The name of a backend.
value!(
    String,
    |text| is_name(text).then(|| text.to_owned()),
    String::clone,
    "1 to 64 letters, digits, dots, dashes, colons and underscores"
);
value!(
    Fingerprint,
    |text| text.parse().ok(),
    Fingerprint::to_string,
    "a SHA-256 in hexadecimal digits, with or without colons"
);
value!(
    PathBuf,
    |text| is_path(text).then(|| PathBuf::from(text)),
    |path| path.display().to_string(),
    "a path"
);
value!(
    FailurePolicies,
    |text| text.parse().ok(),
    FailurePolicies::to_string,
    "all, any or never, with another word for single kinds behind it, as in \"all, backup-routines=any\""
);
value!(
    bool,
    |text| match text {
        "on" | "true" => Some(true),
        "off" | "false" => Some(false),
        _ => None,
    },
    |is_on| if *is_on { "on" } else { "off" }.to_owned(),
    "off or on"
);

impl Value for HttpUrl {
    type Bounds = ();

    fn read(text: &str, (): &()) -> Result<Self, ValueError> {
        text.parse().map_err(ValueError::Url)
    }

    fn text(&self) -> Option<String> {
        Some(self.expose())
    }

    fn allowed((): &()) -> String {
        "a URL of the form https://HOST[:PORT][/PATH] or http://HOST[:PORT][/PATH]".to_owned()
    }
}

impl Value for BackendUrl {
    type Bounds = ();

    fn read(text: &str, (): &()) -> Result<Self, ValueError> {
        text.parse().map_err(ValueError::Url)
    }

    fn text(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn allowed((): &()) -> String {
        "a URL of the form http://HOST[:PORT] or https://HOST[:PORT]".to_owned()
    }
}

/// The allowed numbers.
pub(super) struct Numbers {
    kind: &'static str,
    least: usize,
    most: usize,
}

/// Counts from `least` to `most`.
pub(super) const fn count(least: usize, most: usize) -> Numbers {
    Numbers { kind: "whole number", least, most }
}

/// Sizes in bytes from `least` to `most`.
pub(super) const fn bytes(least: usize, most: usize) -> Numbers {
    Numbers { kind: "number of bytes", least, most }
}

impl Value for usize {
    type Bounds = Numbers;

    fn read(text: &str, Numbers { least, most, .. }: &Numbers) -> Result<Self, ValueError> {
        let number = text.parse().ok().filter(|number| (least..=most).contains(&number));
        number.ok_or(ValueError::NotAllowed)
    }

    fn text(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn allowed(Numbers { kind, least, most }: &Numbers) -> String {
        format!("a {kind} from {least} to {most}")
    }
}

/// The allowed durations.
pub(super) struct Durations {
    pub(super) least: Duration,
    pub(super) most: Duration,
    /// Whether it must be whole seconds.
    pub(super) is_whole: bool,
}

impl Value for Duration {
    type Bounds = Durations;

    fn read(text: &str, Durations { least, most, is_whole }: &Durations) -> Result<Self, ValueError> {
        let duration = humantime::parse_duration(text).map_err(|_| ValueError::NotAllowed)?;
        let is_allowed = (least..=most).contains(&&duration) && !(*is_whole && duration.subsec_nanos() > 0);
        is_allowed.then_some(duration).ok_or(ValueError::NotAllowed)
    }

    fn text(&self) -> Option<String> {
        Some(written(*self))
    }

    fn allowed(Durations { least, most, is_whole }: &Durations) -> String {
        let whole = if *is_whole { " in whole seconds" } else { "" };
        let (least, most) = (written(*least), written(*most));
        format!("a duration from {least} to {most}{whole}, with its unit as in \"15s\"")
    }
}

/// This many seconds.
pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// This many minutes.
pub(super) const fn mins(minutes: u64) -> Duration {
    secs(minutes * 60)
}

/// This many hours.
pub(super) const fn hours(hours: u64) -> Duration {
    mins(hours * 60)
}

/// This many days of 24 hours.
pub(super) const fn days(days: u64) -> Duration {
    hours(days * 24)
}

/// A duration as it would be set. Many days stay days: humantime writes 90 days as "2months 29days 2h 52m 48s".
pub fn written(duration: Duration) -> String {
    let whole = duration.as_secs() / days(1).as_secs();
    if whole > 1 && duration == days(whole) {
        return format!("{whole}days");
    }
    humantime::format_duration(duration).to_string()
}

/// Words with commas between them, and "or" before the last.
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => words.concat(),
    }
}

/// The parts of a list; an empty text is an empty list.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn joined<T: Display>(parts: &[T]) -> String {
    parts.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// The length of the prefix of IPv4-mapped addresses, `::ffff:0:0/96`.
const MAPPED: u8 = 96;

/// A network, or the network of one address. IPv4-mapped addresses are read as those of IPv4, as the addresses of
/// clients are.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    let IpNet::V6(mapped) = network else { return Some(network) };
    let prefix = mapped.prefix_len().checked_sub(MAPPED);
    let canonical = prefix.zip(mapped.addr().to_ipv4_mapped());
    canonical.map_or(Some(network), |(prefix, address)| Some(Ipv4Net::new(address, prefix).ok()?.into()))
}

/// The name of a host, in lower case and without a port, as it is compared with the `Host` header.
fn host(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let url: BackendUrl = format!("http://{text}").parse().ok()?;
    (url.port() == 80 && !text.contains('/') && !text.ends_with(":80")).then(|| url.host().to_owned())
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

/// No path contains NUL, and the replacement character stands for bytes of a variable that were not Unicode: both would
/// name another file than the intended one.
fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains(['\0', char::REPLACEMENT_CHARACTER])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_written_as_it_can_be_set() {
        for text in ["0s", "1ms", "15s", "1m 30s", "1day", "7days", "1day 1h", "90days", "3650days"] {
            let duration = humantime::parse_duration(text).unwrap();
            assert_eq!(written(duration), text);
        }
    }
}

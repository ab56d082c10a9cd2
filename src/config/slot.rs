//! What a key takes, and which field it fills.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::draft::Draft;
use super::url::{BackendUrl, NotABackend};
use crate::core::run::policy::Policies;
use crate::tls::Fingerprint;

/// The length of the prefix of IPv4-mapped addresses, `::ffff:0:0/96`.
const MAPPED: u8 = 96;

type Field<T> = fn(&mut Draft) -> &mut T;

/// The type of a key, with the field that its value goes to.
///
/// The bounds that are checked and the bounds that are told (`Display`) are the same data.
#[derive(Debug)]
pub(super) enum Slot {
    /// An address with a port.
    Address(Field<SocketAddr>),
    /// An address with a port that need not be given.
    OwnAddress(Field<Option<SocketAddr>>),
    /// Addresses and networks, with commas between them.
    Networks(Field<Vec<IpNet>>),
    /// Names of hosts, with commas between them.
    Hosts(Field<Vec<String>>),
    /// A name for logs and metrics.
    Name(Field<Option<String>>),
    /// The fingerprint of a certificate.
    Pin(Field<Option<Fingerprint>>),
    /// A path that need not exist yet.
    Path(Field<Option<PathBuf>>),
    /// The address of the backend.
    Url(Field<Option<BackendUrl>>),
    /// One of these words; the function says whether it took it.
    Word(&'static [&'static str], fn(&mut Draft, &str) -> bool),
    /// When failed objects fail a run, for all kinds and for single ones.
    Policies(Field<Policies>),
    /// `on` or `off`; `true` and `false` are the same.
    Switch(Field<bool>),
    /// A length of time.
    Time(Field<Duration>, Range),
    /// A size in bytes, from the first to the second number.
    Bytes(Field<usize>, usize, usize),
    /// How many, from the first to the second number.
    Count(Field<usize>, usize, usize),
}

/// The shortest and the longest time that a key takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) least: Duration,
    pub(super) most: Duration,
    /// Whether it must be whole seconds.
    pub(super) whole: bool,
}

/// Why a slot did not take a text.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not what [`Slot`]'s `Display` asks for.
    NotAllowed,
    /// It is no address of a backend.
    Url(NotABackend),
}

impl Slot {
    /// Reads `text` into the field. A text that is refused leaves the field as it is.
    pub(super) fn set(&self, draft: &mut Draft, text: &str) -> Result<(), Refusal> {
        match self {
            Self::Address(field) => *field(draft) = text.parse().map_err(|_| Refusal::NotAllowed)?,
            Self::OwnAddress(field) => {
                *field(draft) = Some(text.parse().map_err(|_| Refusal::NotAllowed)?);
            }
            Self::Networks(field) => {
                *field(draft) = parts(text).map(network).collect::<Option<_>>().ok_or(Refusal::NotAllowed)?;
            }
            Self::Hosts(field) => {
                *field(draft) = parts(text).map(host).collect::<Option<_>>().ok_or(Refusal::NotAllowed)?;
            }
            Self::Name(field) if is_name(text) => *field(draft) = Some(text.to_owned()),
            Self::Pin(field) => *field(draft) = Some(text.parse().map_err(|_| Refusal::NotAllowed)?),
            Self::Path(field) if is_path(text) => *field(draft) = Some(PathBuf::from(text)),
            Self::Policies(field) => *field(draft) = text.parse().map_err(|_| Refusal::NotAllowed)?,
            Self::Url(field) => *field(draft) = Some(text.parse().map_err(Refusal::Url)?),
            Self::Word(_, take) if take(draft, text) => {}
            Self::Time(field, range) => *field(draft) = range.read(text).ok_or(Refusal::NotAllowed)?,
            Self::Bytes(field, least, most) | Self::Count(field, least, most) => {
                let number = text.parse().ok().filter(|number| (least..=most).contains(&number));
                *field(draft) = number.ok_or(Refusal::NotAllowed)?;
            }
            Self::Switch(field) if matches!(text, "off" | "on" | "false" | "true") => {
                *field(draft) = matches!(text, "on" | "true");
            }
            Self::Name(_) | Self::Path(_) | Self::Word(..) | Self::Switch(_) => {
                return Err(Refusal::NotAllowed);
            }
        }
        Ok(())
    }
}

/// The parts of a list; an empty text is an empty list.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// A network, or the network of one address. IPv4-mapped addresses are those of IPv4, as the addresses of clients are.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    let IpNet::V6(mapped) = network else { return Some(network) };
    let prefix = mapped.prefix_len().checked_sub(MAPPED);
    let canonical = prefix.zip(mapped.addr().to_ipv4_mapped());
    canonical.map_or(Some(network), |(prefix, address)| Some(Ipv4Net::new(address, prefix).ok()?.into()))
}

/// The name of a host, in lower case and without a port, as it is compared with what clients send.
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

/// No path of the system holds a NUL, and the replacement character is what is left of a variable that
/// was not Unicode: either would name another file than the one that was meant.
fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains(['\0', char::REPLACEMENT_CHARACTER])
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(_) => {
                f.write_str("an IP address with a port, such as 127.0.0.1:8800 or [::1]:8800")
            }
            Self::OwnAddress(_) => f.write_str("an IP address with a port"),
            Self::Networks(_) => {
                f.write_str("a list of addresses and networks, such as 127.0.0.1 or 10.0.0.0/8")
            }
            Self::Hosts(_) => f.write_str("a list of host names, without ports"),
            Self::Name(_) => f.write_str("1 to 64 letters, digits, dots, dashes, colons and underscores"),
            Self::Pin(_) => f.write_str("a SHA-256 in hexadecimal digits, with or without colons"),
            Self::Path(_) => f.write_str("a path"),
            Self::Url(_) => f.write_str("a URL of the form http://HOST[:PORT] or https://HOST[:PORT]"),
            Self::Word(words, _) => match words {
                [first @ .., last] if !first.is_empty() => write!(f, "{} or {last}", first.join(", ")),
                _ => f.write_str(&words.concat()),
            },
            Self::Policies(_) => f.write_str(
                "all, any or never, with another word for single kinds behind it, as in \"all, backup-routines=any\"",
            ),
            Self::Time(_, range) => range.fmt(f),
            Self::Switch(_) => f.write_str("off or on"),
            Self::Bytes(_, least, most) => write!(f, "a number of bytes from {least} to {most}"),
            Self::Count(_, least, most) => write!(f, "a whole number from {least} to {most}"),
        }
    }
}

impl Range {
    fn read(&self, text: &str) -> Option<Duration> {
        let time = humantime::parse_duration(text).ok()?;
        let fits = (self.least..=self.most).contains(&time) && !(self.whole && time.subsec_nanos() > 0);
        fits.then_some(time)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, most, whole } = *self;
        let whole = if whole { " in whole seconds" } else { "" };
        let (least, most) = (written(least), written(most));
        write!(f, "a duration from {least} to {most}{whole}, with its unit as in \"15s\"")
    }
}

/// A time as it would be set. Many days stay days: humantime makes them months and years of its own, and
/// 90 days "2months 29days 2h 52m 48s".
pub(super) fn written(time: Duration) -> String {
    let days = time.as_secs() / DAY;
    if days > 1 && time == Duration::from_secs(days * DAY) {
        return format!("{days}days");
    }
    humantime::format_duration(time).to_string()
}

/// The seconds of a day.
const DAY: u64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_it_can_be_set() {
        for text in ["0s", "1ms", "15s", "1m 30s", "1day", "7days", "1day 1h", "90days", "3650days"] {
            let time = humantime::parse_duration(text).unwrap();
            assert_eq!(written(time), text);
        }
    }
}

//! The releases of `proxbox-api`, in order.

use std::fmt;
use std::str::FromStr;

/// A release of the backend, as reported by its `/version`: `0.0.11.post2`.
///
/// A pre-release (`0.0.11rc8`) counts as its final release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    major: u16,
    minor: u16,
    patch: u16,
    post: u16,
}

impl Release {
    /// The release `major.minor.patch`.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch, post: 0 }
    }

    /// The post-release `self.postN`.
    pub const fn post(self, post: u16) -> Self {
        Self { post, ..self }
    }

    /// Whether this release is in the `major.minor.patch` of `last` or older, post-releases included.
    pub fn is_up_to(self, last: Self) -> bool {
        self <= last.post(u16::MAX)
    }
}

/// The text is not a release of the backend.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a release of the form MAJOR.MINOR.PATCH[.postN]")]
pub struct InvalidRelease;

impl FromStr for Release {
    type Err = InvalidRelease;

    /// Parses `0.0.11`, `0.0.11.post2` and `0.0.11rc8`. `0.0.0` is the version of an uninstalled checkout. It does not
    /// date the backend and is rejected.
    fn from_str(text: &str) -> Result<Self, InvalidRelease> {
        let mut parts = text.trim().splitn(4, '.');
        let digits = |text: &str| {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            text[..digits].parse::<u16>().ok()
        };
        let mut number = || parts.next().and_then(digits).ok_or(InvalidRelease);
        let (major, minor, patch) = (number()?, number()?, number()?);
        if (major, minor, patch) == (0, 0, 0) {
            return Err(InvalidRelease);
        }
        let post = parts.next().and_then(|rest| digits(rest.strip_prefix("post")?)).unwrap_or(0);
        Ok(Self { major, minor, patch, post })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        if self.post > 0 {
            write!(f, ".post{}", self.post)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_and_ordered() {
        let order = ["0.0.2", "0.0.2.post1", "0.0.3", "0.0.11rc8", "0.0.11.post2", "0.0.30.post2", "0.1.0"];
        let read: Vec<Release> = order.iter().map(|text| text.parse().unwrap()).collect();
        assert!(read.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(read[4].to_string(), "0.0.11.post2");
        assert_eq!(read[2].to_string(), "0.0.3");
        assert_eq!("0.0.27.post3+local".parse::<Release>().unwrap().to_string(), "0.0.27.post3");
    }

    #[test]
    fn a_checkout_that_was_never_installed_has_no_age() {
        for text in ["0.0.0", "", "unknown", "1", "0.0"] {
            assert_eq!(text.parse::<Release>(), Err(InvalidRelease), "{text}");
        }
    }

    #[test]
    fn a_post_release_belongs_to_its_release() {
        let last = Release::new(0, 0, 6);
        assert!(Release::new(0, 0, 6).post(4).is_up_to(last));
        assert!(!Release::new(0, 0, 7).is_up_to(last));
    }

    #[test]
    fn the_larger_part_of_a_release_decides_its_age() {
        let age = |release: &str, last: &str| -> bool {
            release.parse::<Release>().unwrap().is_up_to(last.parse().unwrap())
        };
        for (older, newer) in [("0.0.5", "0.0.6"), ("0.0.9", "0.1.0"), ("0.9.9", "1.0.0"), ("1.9.0", "2.0.5")]
        {
            assert!(age(older, newer), "{older} is up to {newer}");
            assert!(!age(newer, older), "{newer} is not up to {older}");
            assert!(age(newer, newer));
        }
    }
}

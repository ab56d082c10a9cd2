//! The path under which a proxy serves the admin listener.

use std::str::FromStr;

/// A path that begins and ends with a slash; `/` if the proxy serves nothing else under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasePath(String);

impl Default for BasePath {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl FromStr for BasePath {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "/" {
            return Ok(Self::default());
        }
        let inner = text.strip_prefix('/').ok_or(())?;
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain);
        inner.split('/').all(is_segment).then(|| Self(format!("/{inner}/"))).ok_or(())
    }
}

impl BasePath {
    /// The path, with both slashes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The base path without the slash at its end.
    fn prefix(&self) -> &str {
        self.0.strip_suffix('/').unwrap_or_default()
    }

    /// `path`, which begins with a slash, below the base path.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.prefix())
    }

    /// `path` without the base path, or `path` itself: a proxy may have removed the base path.
    pub fn strip<'a>(&self, path: &'a str) -> &'a str {
        path.strip_prefix(self.prefix()).filter(|rest| rest.starts_with('/')).unwrap_or(path)
    }

    /// Whether `path` is the base path without the slash at its end, to which links of a page would not be relative.
    pub fn lacks_slash(&self, path: &str) -> bool {
        !path.is_empty() && path == self.prefix()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_is_removed_where_a_proxy_has_left_it() {
        let base: BasePath = "/tools/bridge".parse().unwrap();
        assert_eq!((base.as_str(), base.join("/jobs").as_str()), ("/tools/bridge/", "/tools/bridge/jobs"));
        for (path, rest) in [
            ("/tools/bridge/", "/"),
            ("/tools/bridge/jobs/1", "/jobs/1"),
            ("/jobs/1", "/jobs/1"),
            ("/tools/bridges/", "/tools/bridges/"),
            ("/tools/bridge", "/tools/bridge"),
        ] {
            assert_eq!(base.strip(path), rest, "{path}");
            assert_eq!(base.lacks_slash(path), path == "/tools/bridge", "{path}");
        }
        let none = BasePath::default();
        assert_eq!(
            (none.strip("/jobs"), none.join("/jobs").as_str(), none.lacks_slash("/")),
            ("/jobs", "/jobs", false)
        );
        assert_eq!("/".parse(), Ok(none));
        for text in ["", "bridge", "//", "/a//b", "/../a", "/a b", "/a;b", "/a?b", "http://a/"] {
            assert_eq!(text.parse::<BasePath>(), Err(()), "{text}");
        }
    }
}

//! Listeners that were opened before the process began, by systemd's socket activation or the like.

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;

/// The listeners that the process was started with.
#[derive(Debug, Default)]
pub struct InheritedListeners {
    listen: Option<TcpListener>,
    admin: Option<TcpListener>,
}

/// Why they cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// One is not a TCP listener.
    #[error("a socket that the bridge was started with cannot be used: {0}")]
    Socket(#[from] io::Error),
    /// One has a name that says nothing.
    #[error(
        "the bridge was started with a socket called {0:?}: FileDescriptorName must be listen or admin, and \
         each may be there once"
    )]
    Name(String),
}

impl InheritedListeners {
    /// Takes them over. `names` are theirs, with colons between them, as `LISTEN_FDNAMES` has them; without
    /// names, the first is for clients and the second for operators.
    ///
    /// # Errors
    ///
    /// [`InheritError`] says which one is no use.
    pub fn take(names: Option<&str>) -> Result<Self, InheritError> {
        let mut sockets = ListenFd::from_env();
        let mut inherited = Self::default();
        let names: Vec<&str> = names.map(|names| names.split(':').collect()).unwrap_or_default();
        for index in 0..sockets.len() {
            let Some(listener) = sockets.take_tcp_listener(index)? else { continue };
            listener.set_nonblocking(true)?;
            let name = match names.get(index) {
                None | Some(&("" | "unknown")) => ["listen", "admin"].get(index).copied().unwrap_or_default(),
                Some(name) => name,
            };
            let place = match name {
                "listen" => &mut inherited.listen,
                "admin" => &mut inherited.admin,
                other => return Err(InheritError::Name(other.to_owned())),
            };
            if place.replace(listener).is_some() {
                return Err(InheritError::Name(name.to_owned()));
            }
        }
        Ok(inherited)
    }

    /// The name of one that nobody has taken.
    pub(super) fn unused_key(&self) -> Option<&'static str> {
        let rest = [("listen", &self.listen), ("admin", &self.admin)];
        rest.into_iter().find(|(_, socket)| socket.is_some()).map(|(name, _)| name)
    }

    /// The one for `key`, if there is one.
    pub(super) fn take_for(&mut self, key: &str) -> Option<TcpListener> {
        match key {
            "listen" => self.listen.take(),
            "admin_listen" => self.admin.take(),
            _ => None,
        }
    }
}

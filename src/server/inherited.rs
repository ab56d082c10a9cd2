//! Listeners inherited from the parent, as with systemd's socket activation.

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;

/// The inherited listeners.
#[derive(Debug, Default)]
pub struct InheritedListeners {
    listen: Option<TcpListener>,
    admin: Option<TcpListener>,
}

/// Why the inherited listeners cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// A socket is not a TCP listener.
    #[error("a socket that the bridge was started with cannot be used: {0}")]
    Socket(#[from] io::Error),
    /// A socket has an unknown name.
    #[error(
        "the bridge was started with a socket called {0:?}: FileDescriptorName must be listen or admin, and \
         each may be there once"
    )]
    Name(String),
}

impl InheritedListeners {
    /// Takes the inherited listeners. `names` are their names, separated by colons as in `LISTEN_FDNAMES`. Without
    /// names, the first is for clients and the second for operators.
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
            let slot = match name {
                "listen" => &mut inherited.listen,
                "admin" => &mut inherited.admin,
                other => return Err(InheritError::Name(other.to_owned())),
            };
            if slot.replace(listener).is_some() {
                return Err(InheritError::Name(name.to_owned()));
            }
        }
        Ok(inherited)
    }

    /// The name of a listener that was not taken.
    pub(super) fn unused_key(&self) -> Option<&'static str> {
        let clients = self.listen.as_ref().map(|_| "listen");
        clients.or_else(|| self.admin.as_ref().map(|_| "admin"))
    }

    /// Takes the listener for `key`, if there is one.
    pub(super) fn take_for(&mut self, key: &str) -> Option<TcpListener> {
        match key {
            "listen" => self.listen.take(),
            "admin_listen" => self.admin.take(),
            _ => None,
        }
    }
}

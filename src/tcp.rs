//! Options of TCP sockets, for accepted and for outgoing connections.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::config::Limits;

/// The longest interval between two keep-alive probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// How many unanswered probes close a connection, if `limits.tcp_user_timeout` does not limit that.
const PROBES: u32 = 3;

/// How the kernel detects that a peer has vanished.
///
/// Without these options, a peer that loses power or its network leaves an idle connection open forever, and one
/// whose writes fit into the send buffer for about 15 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// The idle time before the first probe; zero for no probes.
    keepalive: Duration,
    /// How long data and probes may stay unacknowledged; zero for the default of the system.
    user_timeout: Duration,
}

impl TcpOptions {
    /// The options from `limits`.
    pub fn new(limits: &Limits) -> Self {
        Self { keepalive: limits.tcp_keepalive, user_timeout: limits.tcp_user_timeout }
    }

    /// Sets the options on `stream`, and disables Nagle's algorithm, which would delay frames.
    ///
    /// Errors are ignored: the connection is closed then, which the next read or write reports.
    pub fn apply(self, stream: &TcpStream) {
        let _ = stream.set_nodelay(true);
        let socket = SockRef::from(stream);
        if !self.keepalive.is_zero() {
            let keepalive = TcpKeepalive::new()
                .with_time(self.keepalive)
                .with_interval(self.keepalive.min(PROBE_INTERVAL))
                .with_retries(PROBES);
            let _ = socket.set_tcp_keepalive(&keepalive);
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if !self.user_timeout.is_zero() {
            let _ = socket.set_tcp_user_timeout(Some(self.user_timeout));
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")] // Elsewhere there is no TCP_USER_TIMEOUT.
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Both ends of a connection.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (dialled.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn the_kernel_probes_a_silent_connection_and_gives_up_one_that_acknowledges_nothing() {
        let (stream, _other) = connection().await;
        let limits = Limits { tcp_keepalive: Duration::from_secs(20), ..Limits::default() };
        TcpOptions::new(&limits).apply(&stream);
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(20));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(120)));
    }

    #[tokio::test]
    async fn a_limit_of_zero_leaves_a_socket_as_the_system_has_it() {
        let (stream, _other) = connection().await;
        let zero = Duration::ZERO;
        let limits = Limits { tcp_keepalive: zero, tcp_user_timeout: zero, ..Limits::default() };
        TcpOptions::new(&limits).apply(&stream);
        let socket = SockRef::from(&stream);
        assert!(!socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }
}

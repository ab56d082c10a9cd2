use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::app::AppState;
use crate::config::{Config, Flags};
use crate::server::Server;
use crate::server::connection::*;

const WANTED: &str = "127.0.0.1:0";

/// A configuration with a NetBox listener for the backend at `address`.
fn config(address: &str) -> Config {
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[backend]\nurl = \"http://127.0.0.1:1\"\n\
         netbox_listen = \"{WANTED}\"\nnetbox_allow = [\"{address}\"]\n"
    );
    let flags = Flags { config: Some("bridge.toml".to_owned()), ..Flags::default() };
    Config::parse(&flags, [], |_| Ok(text.clone().into_bytes())).unwrap()
}

async fn request(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /api/status/ HTTP/1.1\r\nHost: netbox\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") && stream.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {}
    String::from_utf8(answer).unwrap()
}

/// A connection from `address` to `role`, and its client.
async fn connection(
    server: &Server,
    (role, address): (ListenerRole, &str),
    closing: &watch::Receiver<bool>,
) -> (TcpStream, TcpStream, ConnectionContext) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let connection = ConnectionContext {
        address: address.parse().unwrap(),
        role,
        listen_address: None,
        proxy: Arc::clone(&server.proxy),
        config: Arc::clone(&server.proxy.app.state().config),
        closing: closing.clone(),
    };
    (client, stream, connection)
}

#[tokio::test]
async fn a_connection_to_a_netbox_listener_gets_nothing_once_its_address_is_not_allowed_any_more() {
    let _backends = crate::telemetry::BACKENDS_IN_TEST.lock().await;
    let server = Server::bind(config("192.0.2.7")).await.unwrap();
    let wanted: SocketAddr = WANTED.parse().unwrap();
    let (close, closing) = watch::channel(false);
    let connected = async |address: &str| {
        let (client, stream, connection) =
            connection(&server, (ListenerRole::Netbox(wanted), address), &closing).await;
        (client, tokio::spawn(serve(stream, None, connection)))
    };
    let (mut stranger, served) = connected("192.0.2.7").await;
    let (mut own, _own_served) = connected("127.0.0.1").await;
    for client in [&mut stranger, &mut own] {
        assert!(request(client).await.starts_with("HTTP/1.1 503 "), "where NetBox is is not known");
    }
    server.proxy.replace(AppState::new(config("192.0.2.8"), None).unwrap());
    assert_eq!(request(&mut stranger).await, "");
    served.await.unwrap();
    assert!(request(&mut own).await.starts_with("HTTP/1.1 503 "));
    drop(close);
}

#[tokio::test]
async fn a_connection_keeps_little_memory_beside_what_it_serves() {
    let _backends = crate::telemetry::BACKENDS_IN_TEST.lock().await;
    let server = Server::bind(config("192.0.2.7")).await.unwrap();
    let (_close, closing) = watch::channel(false);
    let role = ListenerRole::Clients(ClientListener::Shared);
    let (_client, stream, connection) = connection(&server, (role, "127.0.0.1"), &closing).await;
    let size = size_of_val(&serve(stream, None, connection));
    assert!(size <= 1_400, "{size} bytes");
}

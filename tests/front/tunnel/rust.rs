//! A WebSocket peer on tokio-tungstenite, with the protocol that `tests/peers/peer.py` documents.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::HeaderValue;
use http::header::{ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

use super::frames::Frames;
use super::noise;

type Socket = WebSocketStream<TcpStream>;

const TEXT: &str = "zażółć gęślą jaźń, 日本, 🦀";
const CODES: [u16; 15] =
    [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4001, 4999];
const MIB: usize = 1 << 20;

// --- the backend -----------------------------------------------------------------------------------

/// How connections ended, by their `id`.
type Ends = watch::Sender<HashMap<String, (u16, String)>>;

/// A backend. It ends with the test.
pub(super) struct RustServer {
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl RustServer {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut served, ends) = (JoinSet::new(), Ends::default());
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                served.spawn(serve(stream, ends.clone()));
            }
        });
        Self { address, task }
    }
}

impl Drop for RustServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[allow(clippy::result_large_err, reason = "it is the library's own")]
async fn serve(stream: TcpStream, ends: Ends) {
    let (mut told, mut asked) = (Value::Null, HashMap::new());
    let agree = |request: &Request, mut response: Response| {
        let header = |name| request.headers().get(name).map(|value: &HeaderValue| value.to_str().unwrap());
        let (target, offered) = (request.uri().to_string(), header(SEC_WEBSOCKET_PROTOCOL));
        told = json!({ "language": "rust", "target": target, "origin": header(ORIGIN), "offered": offered });
        asked = query(&target);
        if offered.is_some_and(|offered| offered.split(',').any(|one| one.trim() == "binary")) {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("binary"));
        }
        Ok::<_, ErrorResponse>(response)
    };
    let mut socket = accept_hdr_async(stream, agree).await.unwrap();
    let end = match asked["do"].as_str() {
        "request" => {
            socket.send(Message::text(told.to_string())).await.unwrap();
            return rest(socket).await;
        }
        "echo" => {
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() || message.is_binary() {
                    socket.send(message).await.unwrap();
                }
            }
            return;
        }
        "fragments" => {
            socket.next().await.unwrap().unwrap();
            in_pieces(&mut socket, Data::Text, &bytewise()).await;
            pong(&mut socket).await;
            socket.send(Message::text("the pong was received")).await.unwrap();
            return rest(socket).await;
        }
        "close_status" => {
            let mut ends = ends.subscribe();
            let end = ends.wait_for(|ends| ends.contains_key(&asked["id"])).await;
            let end = end.map(|ends| json!(ends[&asked["id"]]).to_string()).unwrap();
            socket.send(Message::text(end)).await.unwrap();
            return rest(socket).await;
        }
        "wait" => Frames::of_backend(socket.into_inner()).end().await,
        "close" => {
            let mut frames = Frames::of_backend(socket.into_inner());
            frames.next().await;
            let code = asked.get("code").map(|code| code.parse().unwrap());
            frames.close(code, asked.get("reason").map_or("", String::as_str)).await;
            frames.end().await
        }
        "drop" => {
            let mut frames = Frames::of_backend(socket.into_inner());
            frames.next().await;
            return frames.reset();
        }
        other => panic!("nobody does {other}"),
    };
    ends.send_modify(|ends| drop(ends.insert(asked["id"].clone(), end)));
}

/// Answers pings and the close.
async fn rest(mut socket: Socket) {
    while let Some(Ok(_)) = socket.next().await {}
}

/// The query of `target`.
fn query(target: &str) -> HashMap<String, String> {
    let (_, query) = target.split_once('?').unwrap();
    let pairs = query.split('&').filter_map(|setup| setup.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect()
}

fn decoded(value: &str) -> String {
    let mut parts = value.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

// --- both ------------------------------------------------------------------------------------------

fn bytewise() -> Vec<Bytes> {
    TEXT.bytes().map(|byte| Bytes::from(vec![byte])).collect()
}

/// Sends a message in fragments, with a ping in its middle.
async fn in_pieces(socket: &mut Socket, kind: Data, pieces: &[Bytes]) {
    for (at, piece) in pieces.iter().enumerate() {
        if at == pieces.len() / 2 {
            socket.send(Message::Ping(Bytes::from_static(b"inside"))).await.unwrap();
        }
        let kind = if at == 0 { kind } else { Data::Continue };
        let frame = Frame::message(piece.clone(), OpCode::Data(kind), at + 1 == pieces.len());
        socket.send(Message::Frame(frame)).await.unwrap();
    }
}

/// Waits for the answer to the ping.
async fn pong(socket: &mut Socket) {
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"inside")));
}

// --- the client ------------------------------------------------------------------------------------

/// Makes all exchanges with the backend behind `front`.
pub(super) async fn run_client(front: SocketAddr) {
    let mut client = TunnelClient { front, ids: 0 };
    timeout(Duration::from_secs(60), client.make_all_exchanges()).await.expect("an end in time");
}

struct TunnelClient {
    front: SocketAddr,
    ids: usize,
}

impl TunnelClient {
    async fn make_all_exchanges(&mut self) {
        self.forwards_the_handshake().await;
        self.echoes(Message::text(TEXT)).await;
        self.echoes(Message::binary((0..=255).collect::<Vec<u8>>())).await;
        self.echoes(Message::text("")).await;
        self.echoes(Message::binary(Vec::new())).await;
        self.echoes(Message::text("0123456789abcdef".repeat(MIB / 16))).await;
        self.echoes(Message::binary(noise(MIB, 1))).await;
        self.echoes_fragments(Data::Text, &bytewise(), Message::text(TEXT)).await;
        let many = noise(30_000, 2);
        let pieces: Vec<Bytes> = many.chunks(100).map(Bytes::copy_from_slice).collect();
        self.echoes_fragments(Data::Binary, &pieces, Message::binary(many)).await;
        self.hears_fragments().await;
        for code in CODES {
            let reason = format!("za {code} 🦀");
            self.closes(Some(code), &reason).await;
            self.is_closed(Some(code), &reason).await;
        }
        self.closes(None, "").await;
        self.is_closed(None, "").await;
        self.drops().await;
        self.is_dropped().await;
    }

    async fn open(&self, query: &str) -> Socket {
        let stream = TcpStream::connect(self.front).await.unwrap();
        let url = format!("ws://{}/ssh/sessions/1/ws?{query}", self.front);
        client_async(url, stream).await.unwrap().0
    }

    /// As `open`, for single frames. The backend sends nothing before it receives something.
    async fn open_frames(&self, query: &str) -> Frames {
        Frames::of_client(self.open(query).await.into_inner())
    }

    fn new_id(&mut self) -> String {
        self.ids += 1;
        format!("rust-{}", self.ids)
    }

    async fn seen(&self, id: &str) -> (u16, String) {
        let mut socket = self.open(&format!("do=close_status&id={id}")).await;
        let seen = serde_json::from_str(&text(&mut socket).await).unwrap();
        self.leave(socket).await;
        seen
    }

    /// Closes in good order.
    async fn leave(&self, mut socket: Socket) {
        socket.close(None).await.unwrap();
        loop {
            match socket.next().await {
                Some(Ok(message)) => assert!(message.is_close(), "{message:?}"),
                Some(Err(error)) => panic!("{error}"),
                None => return,
            }
        }
    }

    async fn forwards_the_handshake(&self) {
        let target = "/ssh/sessions/1/ws?do=request&a=%2F%3a;b&&c=+%20%F0%9F%A6%80&d";
        let mut request = format!("ws://{}{target}", self.front).into_client_request().unwrap();
        let origin = "https://netbox.example:8443";
        request.headers_mut().insert(ORIGIN, HeaderValue::from_static(origin));
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("plain, binary"));
        let stream = TcpStream::connect(self.front).await.unwrap();
        let (mut socket, response) = client_async(request, stream).await.unwrap();
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "binary");
        let told: Value = serde_json::from_str(&text(&mut socket).await).unwrap();
        assert_eq!((&told["target"], &told["origin"]), (&json!(target), &json!(origin)));
        assert_eq!(told["offered"], "plain, binary");
        self.leave(socket).await;
    }

    async fn echoes(&self, message: Message) {
        let mut socket = self.open("do=echo").await;
        socket.send(message.clone()).await.unwrap();
        assert!(socket.next().await.unwrap().unwrap() == message, "{} bytes", message.len());
        self.leave(socket).await;
    }

    async fn echoes_fragments(&self, kind: Data, pieces: &[Bytes], message: Message) {
        let mut socket = self.open("do=echo").await;
        in_pieces(&mut socket, kind, pieces).await;
        pong(&mut socket).await;
        assert!(socket.next().await.unwrap().unwrap() == message, "{} bytes", message.len());
        self.leave(socket).await;
    }

    async fn hears_fragments(&self) {
        let mut socket = self.open("do=fragments").await;
        socket.send(Message::text("now")).await.unwrap();
        let ping = socket.next().await.unwrap().unwrap();
        assert_eq!(ping, Message::Ping(Bytes::from_static(b"inside")));
        assert_eq!(text(&mut socket).await, TEXT);
        assert_eq!(text(&mut socket).await, "the pong was received");
        self.leave(socket).await;
    }

    async fn closes(&mut self, code: Option<u16>, reason: &str) {
        let id = self.new_id();
        let mut frames = self.open_frames(&format!("do=wait&id={id}")).await;
        frames.close(code, reason).await;
        let wanted = (code.unwrap_or(1005), reason.to_owned());
        assert_eq!(frames.end().await, wanted, "the answer to its close");
        assert_eq!(self.seen(&id).await, wanted, "its close");
    }

    async fn is_closed(&mut self, code: Option<u16>, reason: &str) {
        let id = self.new_id();
        let encoded: String = reason.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let said = code.map(|code| format!("&code={code}&reason={encoded}")).unwrap_or_default();
        let mut frames = self.open_frames(&format!("do=close&id={id}{said}")).await;
        frames.send_text("now").await;
        let wanted = (code.unwrap_or(1005), reason.to_owned());
        assert_eq!(frames.end().await, wanted, "the backend's close");
        assert_eq!(self.seen(&id).await, wanted, "the answer to the backend's close");
    }

    async fn drops(&mut self) {
        let id = self.new_id();
        self.open_frames(&format!("do=wait&id={id}")).await.reset();
        assert_eq!(self.seen(&id).await.0, 1006);
    }

    async fn is_dropped(&self) {
        let mut socket = self.open("do=drop").await;
        socket.send(Message::text("now")).await.unwrap();
        let end = socket.next().await.unwrap().unwrap_err();
        assert!(matches!(end, Error::Protocol(_) | Error::Io(_)), "{end}");
    }
}

async fn text(socket: &mut Socket) -> String {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

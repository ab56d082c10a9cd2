//! An HTTP/2 client with prior knowledge.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Uri};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::calls::{Call, HOST, RequestBody};
use super::headers;
use super::http1::ReceivedResponse;

pub(super) struct Http2 {
    address: SocketAddr,
    sender: Option<SendRequest<Bytes>>,
    connection: JoinSet<()>,
}

impl Http2 {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, sender: None, connection: JoinSet::new() }
    }

    pub(super) async fn request(&mut self, call: &Call) -> ReceivedResponse {
        let mut sender = match self.sender.take() {
            Some(sender) => sender,
            None => self.connect().await,
        };
        sender = sender.ready().await.unwrap();
        let pieces: Vec<&Vec<u8>> = match &call.body {
            RequestBody::Nothing => Vec::new(),
            RequestBody::Whole(body) if body.is_empty() => Vec::new(),
            RequestBody::Whole(body) => vec![body],
            RequestBody::Pieces(pieces) => pieces.iter().collect(),
        };
        let is_bodiless =
            matches!(&call.body, RequestBody::Nothing | RequestBody::Whole(_)) && pieces.is_empty();
        let (response, mut stream) = sender.send_request(written(call), is_bodiless).unwrap();
        if !is_bodiless {
            for piece in pieces {
                stream.send_data(Bytes::copy_from_slice(piece), false).unwrap();
            }
            stream.send_data(Bytes::new(), true).unwrap();
        }
        let response = response.await.unwrap_or_else(|error| panic!("{error} in answer to {call}"));
        self.sender = Some(sender);
        let (head, mut body) = response.into_parts();
        let mut reply = ReceivedResponse { status: head.status.as_u16(), ..ReceivedResponse::default() };
        for (name, value) in &head.headers {
            headers::add(&mut reply.headers, name.as_str(), value.as_bytes());
        }
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap_or_else(|error| panic!("{error} in answer to {call}"));
            body.flow_control().release_capacity(piece.len()).unwrap();
            reply.body.extend(piece);
        }
        for (name, value) in &body.trailers().await.unwrap().unwrap_or_default() {
            headers::add(&mut reply.trailers, name.as_str(), value.as_bytes());
        }
        reply
    }

    async fn connect(&mut self) -> SendRequest<Bytes> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        self.connection.spawn(async {
            let _ = connection.await;
        });
        sender
    }
}

/// `call` without what HTTP/2 has none of, and with a cookie in crumbs.
fn written(call: &Call) -> Request<()> {
    let target = Uri::builder().scheme("http").authority(HOST).path_and_query(call.target.as_str());
    let mut request = Request::builder().method(call.method.as_str()).uri(target.build().unwrap());
    for (name, value) in &call.headers {
        let crumbs: Vec<&[u8]> = match name.to_ascii_lowercase().as_str() {
            "connection" | "keep-alive" | "proxy-connection" => continue,
            "te" => vec![b"trailers"],
            "cookie" => value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).collect(),
            _ => vec![value],
        };
        for value in crumbs {
            request = request.header(name.as_str(), value);
        }
    }
    if let RequestBody::Whole(body) = &call.body {
        request = request.header("content-length", body.len());
    }
    request.body(()).unwrap()
}

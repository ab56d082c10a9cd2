//! A backend whose responses a test computes from the requests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::bridge::{TestBridge, config};

pub type Body = BoxBody<Bytes, std::io::Error>;

/// A request that a backend received.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
}

impl ReceivedRequest {
    /// The value of a header that occurs at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        single_header(&self.headers, name)
    }
}

/// A backend. It ends with the test.
pub struct Backend {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<ReceivedRequest>>>,
    connections: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Backend {
    /// A backend that answers with `answer`.
    pub async fn start<A, F>(answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received: Arc<Mutex<Vec<ReceivedRequest>>> = Arc::default();
        let connections: Arc<Mutex<usize>> = Arc::default();
        let (noted, counted) = (Arc::clone(&received), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            let mut served = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                *counted.lock().unwrap() += 1;
                let (answer, noted) = (answer.clone(), Arc::clone(&noted));
                let service = service_fn(move |request: Request<Incoming>| {
                    noted.lock().unwrap().push(ReceivedRequest {
                        method: request.method().to_string(),
                        target: request.uri().to_string(),
                        headers: texts(request.headers()),
                    });
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                served.spawn(async move {
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    let _ = connection.with_upgrades().await;
                });
            }
        });
        Self { address, received, connections, task }
    }

    /// The requests that it received, in order.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.received.lock().unwrap().clone()
    }

    /// The last request that it received.
    pub fn last(&self) -> ReceivedRequest {
        self.requests().pop().unwrap()
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A backend that answers with `answer`, behind a bridge with `settings`.
pub async fn bridged<A, F>(settings: &[(&str, &str)], answer: A) -> (Backend, TestBridge)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let backend = Backend::start(answer).await;
    let front = TestBridge::start(config(backend.address, settings)).await;
    (backend, front)
}

/// The headers as text, names in lower case.
pub fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// The value of a header that occurs at most once.
pub fn single_header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter(|(known, _)| known == name);
    let value = found.next().map(|(_, value)| value.as_str());
    assert!(found.next().is_none(), "{name} is there twice: {headers:?}");
    value
}

/// A body of known length.
pub fn full_body(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

/// An answer with `status`, `headers` and `text`.
pub fn answer(status: u16, headers: &[(&str, &str)], text: &str) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(full_body(text.to_owned())).unwrap()
}

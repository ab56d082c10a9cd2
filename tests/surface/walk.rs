//! Sends each request to the backend and to the bridge, and reports the differences.

use std::time::Duration;

use tokio::time::timeout;

use super::calls::{Call, HOST};
use super::headers::{self, Headers, differences, end_to_end, short};
use super::http1::{Http1, ReceivedResponse};
use super::http2::Http2;
use super::own::BridgePaths;
use super::scripted::{EchoBackend, SeenRequest};
use crate::support::bridge::without_pseudonym;

/// How many differences are reported before the walk ends.
const TOLD: usize = 20;
/// How long an answer may take, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(10);
/// The `Via` that the bridge adds to every forwarded response: its backends speak HTTP/1.1.
const VIA: &[u8] = b"1.1 proxbox-bridge";
const REQUEST_ID: &str = "x-request-id";
/// The forwarding headers that it sends to the backend.
const FORWARDED: [(&str, &str); 3] =
    [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "http"), ("x-forwarded-host", HOST)];

/// The protocol of the requests to the bridge.
pub(super) enum Protocol {
    Http1(Http1),
    Http2(Http2),
}

impl Protocol {
    async fn request(&mut self, call: &Call) -> ReceivedResponse {
        match self {
            Self::Http1(client) => client.request(call).await,
            Self::Http2(client) => client.request(call).await,
        }
    }
}

impl Protocol {
    /// The `Via` that the bridge adds to a request over this protocol.
    fn via(&self) -> &'static [u8] {
        match self {
            Self::Http1(_) => VIA,
            Self::Http2(_) => b"2.0 proxbox-bridge",
        }
    }
}

pub(super) struct Walk {
    pub(super) direct: Http1,
    pub(super) through: Protocol,
    /// The backend, if it keeps its requests.
    pub(super) scripted: Option<EchoBackend>,
    pub(super) own: BridgePaths,
}

impl Walk {
    pub(super) async fn all(&mut self, calls: &[Call]) {
        let mut wrong = Vec::new();
        for call in calls {
            let found = self.one(call).await;
            wrong.extend(found.into_iter().map(|found| format!("{call}\n    {found}")));
            assert!(wrong.len() < TOLD, "there may be more:\n{}", wrong.join("\n"));
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
        self.own.check();
    }

    async fn one(&mut self, call: &Call) -> Vec<String> {
        let direct = self.direct.request(call).await;
        let asked_directly = self.seen();
        let Ok(through) = timeout(PATIENCE, self.through.request(call)).await else {
            panic!("the bridge does not answer {call}");
        };
        let asked_through = self.seen();
        let mut wrong = match (self.own.answers(call, &direct), through.headers.contains_key("via")) {
            (true, false) => Vec::new(),
            (true, true) => vec!["is passed on, and is the bridge's own".to_owned()],
            (false, false) => {
                return vec![format!(
                    "is answered by the bridge: {} {}",
                    through.status,
                    short(&through.body)
                )];
            }
            (false, true) => answers(&direct, &through),
        };
        let (Some(directly), Some(through)) = (asked_directly, asked_through) else { return wrong };
        let times = self.own.times(call, &direct);
        if !times.contains(&through.len()) {
            wrong.push(format!("reaches the backend {} times, and not {times:?}", through.len()));
        }
        let via = self.through.via();
        wrong.extend(through.iter().flat_map(|through| questions(&directly[0], through, via)));
        wrong
    }

    fn seen(&self) -> Option<Vec<SeenRequest>> {
        self.scripted.as_ref().map(EchoBackend::seen)
    }
}

/// The differences between the responses.
fn answers(direct: &ReceivedResponse, through: &ReceivedResponse) -> Vec<String> {
    let mut wrong = Vec::new();
    let status = |reply: &ReceivedResponse| (reply.status, reply.reason.clone());
    let mut expected = status(direct);
    if through.reason.is_none() {
        // HTTP/2 has none.
        expected.1 = None;
    }
    if expected != status(through) {
        wrong.push(format!("status: directly {expected:?}, through {:?}", status(through)));
    }
    let (mut directly, mut through_bridge) = (end_to_end(&direct.headers), end_to_end(&through.headers));
    headers::add(&mut directly, "via", VIA);
    if headers::one(&through_bridge, REQUEST_ID).is_none() {
        wrong.push("has no name of its own".to_owned());
    }
    for name in [REQUEST_ID, "date"] {
        directly.remove(name);
        through_bridge.remove(name);
    }
    wrong.extend(differences(&directly, &through_bridge));
    wrong.extend(differences(&direct.trailers, &through.trailers));
    wrong.extend(bodies("body", &direct.body, &through.body));
    wrong
}

/// The differences between the requests that the backend received.
fn questions(direct: &SeenRequest, through: &SeenRequest, via: &[u8]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (what, direct, through) in
        [("method", &direct.method, &through.method), ("target", &direct.target, &through.target)]
    {
        if direct != through {
            wrong.push(format!("{what} that the backend sees: directly {direct}, through {through}"));
        }
    }
    let (mut directly, mut through_bridge) = (end_to_end(&direct.headers), end_to_end(&through.headers));
    headers::add(&mut directly, "via", via);
    if let Some(last) = through_bridge.get_mut("via").and_then(|values| values.last_mut()) {
        *last = without_pseudonym(std::str::from_utf8(last).unwrap()).into();
    }
    for (name, value) in FORWARDED {
        headers::add(&mut directly, name, value.as_bytes());
    }
    given_or_made_up(&mut directly, &mut through_bridge);
    wrong
        .extend(differences(&directly, &through_bridge).into_iter().map(|said| format!("asked with {said}")));
    wrong.extend(bodies("body that the backend sees", &direct.body, &through.body));
    wrong
}

/// Takes out the names of the request that the client has not given and the bridge has.
fn given_or_made_up(direct: &mut Headers, through: &mut Headers) {
    for name in [REQUEST_ID, "traceparent"] {
        if !direct.contains_key(name) && headers::one(through, name).is_some() {
            through.remove(name);
        }
    }
}

fn bodies(what: &str, direct: &[u8], through: &[u8]) -> Option<String> {
    let told = || format!("{what}: directly {:?}, through {:?}", short(direct), short(through));
    (direct != through).then(told)
}

//! Recorded requests of old backends to NetBox, sent to the NetBox listener (see `fixtures/README.md`).

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::netbox_between::{LAST_UPDATED, NetboxHarness, PASSWORD, TOKEN_VALUE, received};
use crate::support::bridge::{Answer, Client, without_pseudonym};
use crate::support::netbox::{PROXMOX_ENDPOINTS, Received, SYNC_PROCESSES, V1, V2, authorization};

const RELEASES: [&str; 5] = ["0.0.1", "0.0.2.post1", "0.0.3", "0.0.6.post4", "0.0.7.post1"];
const CUSTOM_FIELDS: &str = "/api/extras/custom-fields/";
/// The placeholder of the token in the recordings.
const TOKEN: &str = "<netbox-token>";

/// A request of a backend.
#[derive(Clone, Debug)]
struct RecordedRequest {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl RecordedRequest {
    /// What a backend of `release` sends, with `token` in the form in which that release sends it.
    fn all(release: &str, token: &str) -> Vec<Self> {
        let file = format!("fixtures/netbox/{release}/requests.ndjson");
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        // Before 0.0.3 every token is sent as `Token`.
        let is_old = ["0.0.1", "0.0.2.post1"].contains(&release);
        let sent = if is_old { format!("Token {token}") } else { authorization(token) };
        let read = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let headers = line["headers"].as_array().unwrap().iter();
            let headers = headers.map(|header| {
                let value = text(&header[1]);
                let value = if value.contains(TOKEN) { sent.clone() } else { value };
                (text(&header[0]), value)
            });
            Self {
                method: text(&line["method"]),
                target: text(&line["target"]),
                headers: headers.collect(),
                body: text(&line["body"]),
            }
        };
        text.lines().map(read).collect()
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    /// Sends it to the listener, byte for byte.
    async fn send(&self, between: &NetboxHarness) -> Answer {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, between.listener);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let bytes = format!("{head}\r\n{}", self.body);
        received(Client::raw(between.listener, bytes.as_bytes()).await, &self.method).await
    }

    /// The headers with which it is to reach NetBox, in the order of their names.
    fn forwarded_headers(&self, between: &NetboxHarness, token: &str) -> Vec<(String, String)> {
        let kept = self.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
        let changed = ["connection", "accept-encoding", "authorization"];
        let mut headers: Vec<_> = kept.filter(|(name, _)| !changed.contains(&name.as_str())).collect();
        headers.extend(
            [
                ("host", between.netbox.address.to_string()),
                ("accept-encoding", "identity".to_owned()),
                ("authorization", authorization(token)),
                ("via", "1.1 proxbox-bridge".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        headers.sort();
        headers
    }

    /// Whether it writes the custom field that 0.0.6 and 0.0.7 narrow.
    fn narrows(&self) -> bool {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let is_new = self.path() == CUSTOM_FIELDS && body["name"] == "proxmox_last_updated";
        is_new || self.path() == LAST_UPDATED && body["object_types"].is_array()
    }
}

fn sorted(received: &Received) -> Vec<(String, String)> {
    let mut headers = received.headers.clone();
    // The bridge gives ids to requests that have none.
    headers.retain(|(name, _)| !["traceparent", "x-request-id"].contains(&name.as_str()));
    for (_, via) in headers.iter_mut().filter(|(name, _)| name == "via") {
        *via = without_pseudonym(via).to_owned();
    }
    headers.sort();
    headers
}

/// The header that names the rules of an answer.
const SHIM: &str = "x-proxbox-bridge-shim";

/// Whether the shim header of a response names the rule `shim`.
fn names(response: &Answer, shim: &str) -> bool {
    response.headers.iter().any(|(name, value)| name == SHIM && value.contains(shim))
}

/// The headers of an answer, without those of the connection, of the length and of the rules.
fn end_to_end(headers: &[(String, String)]) -> Vec<(String, String)> {
    let own = ["via", "date", "content-length", "transfer-encoding", "connection", "x-request-id", SHIM];
    headers.iter().filter(|(name, _)| !own.contains(&name.as_str())).cloned().collect()
}

#[tokio::test]
async fn what_old_backends_send_reaches_netbox_as_it_is_and_its_answers_come_back() {
    for release in RELEASES {
        for token in [V1, V2] {
            let between = NetboxHarness::of(release, token, &[]).await;
            let requests = RecordedRequest::all(release, token);
            assert!(requests.len() > 20, "{release}");
            for request in &requests {
                replay(&between, request, release, token).await;
            }
        }
    }
}

/// Sends `request`, and compares what NetBox received and what the backend got.
async fn replay(between: &NetboxHarness, request: &RecordedRequest, release: &str, token: &str) {
    let what = format!("{release}: {} {}", request.method, request.target);
    between.netbox.take();
    let response = request.send(between).await;
    let arrived = between.netbox.take();
    // What NetBox is asked in addition, to find out what it holds or whom it authorises, comes with the same token.
    for received in &arrived {
        assert_eq!(received.header("authorization"), Some(authorization(token).as_str()), "{what}");
        assert!(received.is_authorised, "{what}");
    }
    let is_own =
        |received: &&Received| (&received.method, &received.target) == (&request.method, &request.target);
    let received: Vec<&Received> = arrived.iter().filter(is_own).collect();
    assert_eq!(received.len(), 1, "{what}: {arrived:?}");
    let received = received[0];

    let keeps_fields = ["0.0.6.post4", "0.0.7.post1"].contains(&release);
    if keeps_fields && request.narrows() {
        assert!(names(&response, "last_updated"), "{what}");
        let [mut was, mut is]: [Value; 2] =
            [request.body.as_bytes(), &received.body].map(|body| serde_json::from_slice(body).unwrap());
        let types = |body: &mut Value| body.as_object_mut().unwrap().remove("object_types").unwrap();
        let (narrow, wide) = (types(&mut was), types(&mut is));
        let wide = wide.as_array().unwrap();
        assert!(narrow.as_array().unwrap().iter().all(|written| wide.contains(written)), "{what}");
        let held = if request.method == "PATCH" { "dcim.rack" } else { "virtualization.virtualmachine" };
        assert!(wide.contains(&json!(held)), "{what}: {wide:?}");
        assert_eq!(was, is, "{what}: nothing else of it changes");
        return;
    }
    assert_eq!(received.body, request.body.as_bytes(), "{what}");
    assert_eq!(sorted(received), request.forwarded_headers(between, token), "{what}");

    let sent = &received.answer;
    let is_of_0_0_3 = release == "0.0.3" && request.path().starts_with(SYNC_PROCESSES);
    if is_of_0_0_3 {
        assert_eq!(sent.status, 404, "{what}");
        assert!(names(&response, "sync_processes"), "{what}");
        assert!([200, 201].contains(&response.status), "{what}: {}", response.text());
        return;
    }
    assert_eq!(response.status, sent.status, "{what}");
    let gets_secrets = ["0.0.1", "0.0.2.post1"].contains(&release)
        && (request.method.as_str(), request.path()) == ("GET", PROXMOX_ENDPOINTS);
    if gets_secrets {
        let row = &response.json()["results"][0];
        let secrets = (&row["id"], &row["password"], &row["token_value"]);
        assert_eq!(secrets, (&json!(7), &json!(PASSWORD), &json!(TOKEN_VALUE)), "{what}");
        return;
    }
    let text = String::from_utf8_lossy(&response.body);
    assert!(!text.contains(PASSWORD) && !text.contains(TOKEN_VALUE), "{what}: {text}");
    assert_eq!(end_to_end(&response.headers), end_to_end(&sent.headers), "{what}");
    // Links are quoted; what is said of addresses in a text is not.
    let (netbox, listener) = (between.netbox.address, between.listener);
    let linked = String::from_utf8(sent.body.to_vec()).unwrap();
    let linked = linked.replace(&format!("\"http://{netbox}/api/"), &format!("\"http://{listener}/api/"));
    assert_eq!(text, linked, "{what}");
}

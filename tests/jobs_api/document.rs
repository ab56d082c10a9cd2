//! Validates responses against the OpenAPI document.

use proxbox_bridge::admin;
use serde_json::{Value, json};

use crate::support::bridge::{Answer, Client, TestBridge};

/// The OpenAPI document that a bridge serves.
pub struct Document(Value);

/// A client of the admin listener, which validates each response.
pub struct Api<'a> {
    front: &'a TestBridge,
    document: Document,
}

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

impl<'a> Api<'a> {
    pub async fn new(front: &'a TestBridge) -> Self {
        let document = Document(front.admin_request("GET", "/openapi.json", &[]).await.json());
        Self { front, document }
    }

    pub async fn request(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let answer = self.front.admin_request(method, target, headers).await;
        self.document.check(method, target, &answer);
        answer
    }

    /// The resource at `target`, which must exist.
    pub async fn get(&self, target: &str) -> Value {
        let answer = self.request("GET", target, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Starts a sync and returns its job.
    pub async fn start(&self, target: &str, headers: &[(&str, &str)]) -> Value {
        let answer = self.request("POST", target, headers).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert_eq!(answer.header("location"), answer.json()["url"].as_str());
        assert_eq!(answer.header("x-proxbox-bridge-job"), answer.json()["id"].as_str());
        answer.json()
    }

    /// Waits until `job` has ended and returns it.
    pub async fn ended(&self, job: &Value) -> Value {
        self.request("GET", &format!("{}/events", path(job)), &[]).await;
        self.get(path(job)).await
    }

    /// A connection that follows the events of `job`.
    pub async fn watch(&self, job: &Value) -> Client {
        let mut client = Client::send(self.front.admin, "GET", &format!("{}/events", path(job)), &[]).await;
        assert_eq!(client.head().await.0, 200);
        client
    }

    pub fn document(&self) -> &Document {
        &self.document
    }
}

/// The path of `job`.
pub fn path(job: &Value) -> &str {
    job["url"].as_str().unwrap()
}

/// The ids in a response of `/jobs`.
pub fn ids(page: &Value) -> Vec<&str> {
    page["results"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect()
}

impl Document {
    /// The methods of every path, as `Allow` has them. What GET answers is answered to HEAD too, but for
    /// streams.
    pub fn paths(&self) -> Vec<(String, String)> {
        let paths = self.0["paths"].as_object().unwrap().iter().map(|(path, item)| {
            let known = |method: &&str| match *method {
                "HEAD" => {
                    item["get"].is_object()
                        && item["get"]["responses"]["200"]["content"].get("text/event-stream").is_none()
                }
                method => item[method.to_ascii_lowercase()].is_object(),
            };
            (path.clone(), METHODS.into_iter().filter(known).collect::<Vec<_>>().join(", "))
        });
        paths.collect()
    }

    pub fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or_else(|| panic!("the document has no {pointer}"))
    }

    /// Validates a response. Panics if the document does not allow it.
    fn check(&self, method: &str, target: &str, answer: &Answer) {
        let path = target.split('?').next().unwrap();
        let item = self.0["paths"].as_object().unwrap().iter().find(|(known, _)| is_at(known, path));
        let what = format!("{method} {target} {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        let Some((_, item)) = item else {
            assert_eq!(answer.status, 404, "{what}");
            return self.valid(&json!({ "$ref": "#/components/schemas/Refusal" }), &answer.json(), &what);
        };
        let operation = &item[method.to_ascii_lowercase()];
        if operation.is_null() {
            assert_eq!(answer.status, 405, "{what}");
            let allowed = answer.header("allow").unwrap();
            assert!(self.paths().iter().any(|(known, methods)| is_at(known, path) && methods == allowed));
            return self.valid(&json!({ "$ref": "#/components/schemas/Refusal" }), &answer.json(), &what);
        }
        let response = self.resolved(&operation["responses"][answer.status.to_string()]);
        assert!(response.is_object(), "an answer that is not described: {what}");
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let header = self.resolved(header);
            let value = answer.header(&name.to_ascii_lowercase());
            let value = value.unwrap_or_else(|| panic!("no {name}: {what}"));
            self.valid(&header["schema"], &json!(value), &what);
        }
        let Some(content) = response["content"].as_object() else {
            return assert!(answer.body.is_empty(), "{what}");
        };
        let kind = answer.header("content-type").unwrap().split(';').next().unwrap();
        let schema = &content.get(kind).unwrap_or_else(|| panic!("{kind}: {what}"))["schema"];
        let body = if kind == "application/json" { answer.json() } else { json!(answer.text()) };
        self.valid(schema, &body, &what);
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self.at(reference.strip_prefix('#').unwrap()),
            None => value,
        }
    }

    /// Panics if `value` does not match `schema`.
    pub fn valid(&self, schema: &Value, value: &Value, what: &str) {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [schema],
            "components": self.0["components"],
        });
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{} at {}", error, error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:?}: {what}");
    }
}

/// Whether `path` is one of those that `described` stands for.
fn is_at(described: &str, path: &str) -> bool {
    let slashed = |path: &str| described.ends_with('/') && format!("{path}/") == described;
    let parts = described.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?.1)));
    match parts {
        None => described == path || slashed(path),
        Some((before, after)) => [path, &format!("{path}/")].into_iter().any(|path| {
            path.strip_prefix(before)
                .and_then(|rest| rest.strip_suffix(after))
                .is_some_and(|id| !id.is_empty() && !id.contains('/'))
        }),
    }
}

/// The paths that are served, sorted, without the files of the page, which are no part of the API.
pub fn served() -> Vec<(String, String)> {
    let api = admin::paths().filter(|(path, _)| !path.starts_with("/page/"));
    let mut paths: Vec<_> = api.map(|(path, methods)| (path, methods.to_owned())).collect();
    paths.sort();
    paths
}

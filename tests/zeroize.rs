//! A replaced or dropped secret leaves no copy in the memory of the process.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use http::Method;
use proxbox_bridge::backend::ProxmoxEndpoints;
use proxbox_bridge::core::compat::netbox::fill_in;
use proxbox_bridge::core::domain::credential::ApiKey;
use proxbox_bridge::core::secret::SecretJson;
use proxbox_bridge::core::text::redact::{Redactor, secrets_in_json};
use serde_json::json;
use zeroize::Zeroizing;

/// A secret that the program does not contain in clear text.
struct Planted(&'static [u8; 48]);

impl Planted {
    /// The secret in JSON, where `SECRET` stands in `row`.
    fn within(&self, row: &str) -> Zeroizing<Vec<u8>> {
        let (before, after) = row.split_once("SECRET").unwrap();
        let mut text = Zeroizing::new(Vec::with_capacity(row.len() + self.0.len()));
        text.extend_from_slice(before.as_bytes());
        text.extend(self.0.iter().map(|byte| byte ^ 1));
        text.extend_from_slice(after.as_bytes());
        text
    }

    fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(self.0.len()));
        text.extend(self.0.iter().map(|byte| char::from(byte ^ 1)));
        text
    }

    /// How often the end of the secret stands in memory. What allocators write into a block that is free is at its
    /// beginning.
    fn copies(&self) -> usize {
        let end = &self.0[24..];
        let memory = File::open("/proc/self/mem").unwrap();
        let mut copies = 0;
        for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
            let (range, rest) = line.split_once(' ').unwrap();
            let (from, to) = range.split_once('-').unwrap();
            let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
            if !rest.starts_with("rw") {
                continue;
            }
            let mut bytes = Zeroizing::new(vec![0; usize::try_from(to - from).unwrap()]);
            // Some of what is mapped cannot be read.
            if memory.read_exact_at(&mut bytes, from).is_ok() {
                let is_end = |window: &[u8]| window.iter().zip(end).all(|(byte, wanted)| byte ^ 1 == *wanted);
                copies += bytes.windows(end.len()).filter(|window| is_end(window)).count();
            }
        }
        copies
    }
}

const ROW: &str =
    r#"{"name":"pve (nb:7)","password":null,"token_name":"t","token_value":"SECRET","enabled":true}"#;

#[test]
fn nothing_is_left_of_a_secret_that_was_pushed_and_replaced() {
    let secret = Planted(b"qlr7fjw0xkd2mzv9tbn4hcg6ysp1eua8rio3jkm5wqz0xvc7");
    let other = Planted(b"zzr7fjw0xkd2mzv9tbn4hcg6ysp1eua8rio3jkm5wqz0xvd8");
    assert_eq!(secret.copies(), 0);
    let endpoints = ProxmoxEndpoints::default();
    let pushed = SecretJson::parse(&secret.within(ROW)).unwrap();
    let redactor = Redactor::new(secrets_in_json(&pushed));
    assert_eq!(endpoints.handle(&Method::POST, "", &pushed).0, 200);
    let mut page = SecretJson::from(json!({ "count": 1, "next": null, "results": [{ "id": 7 }] }));
    assert!(fill_in(&mut page, &|id| endpoints.secrets(id)));
    assert_eq!(page["results"].as_array().map(Vec::len), Some(1));
    let body = page.to_body();
    assert_eq!(redactor.text(std::str::from_utf8(&body).unwrap()).matches("[hidden]").count(), 1);
    assert!(secret.copies() >= 5, "in the row, the redactor, the store, the page and its body");
    drop((pushed, redactor, page, body));
    assert!(secret.copies() >= 1, "in the store");
    let replaced = SecretJson::parse(&other.within(ROW)).unwrap();
    assert_eq!(endpoints.handle(&Method::PUT, "7", &replaced).0, 200);
    assert_eq!(secret.copies(), 0);
}

#[test]
fn nothing_is_left_of_an_api_key() {
    let secret = Planted(b"jgr8fjw1xkd3mzv0tbn5hcg7ysp2eua9rio4jkm6wqz1xvc9");
    let key: ApiKey = secret.text().parse().unwrap();
    let header = key.header().unwrap();
    let redactor = Redactor::new([key.expose()]).with(["another secret"]);
    assert!(secret.copies() >= 3, "in the key, the header and the redactor");
    drop((key, header, redactor));
    assert_eq!(secret.copies(), 0);
}

//! The forms in which a credential may stand in what a backend sends.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::json;

/// The forms of a secret that may have any characters.
pub fn quoted_forms(secret: &str) -> Vec<String> {
    let repr = secret.replace('\\', "\\\\").replace('\'', "\\'");
    let once = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let twice = utf8_percent_encode(&once, NON_ALPHANUMERIC).to_string();
    vec![
        json!({ "password": secret, "port": 8006 }).to_string(),
        json!({ "API key": secret }).to_string(),
        json!({ "tokens": [secret, secret] }).to_string(),
        json!({ "credentials": { "x": { "y": [secret] } } }).to_string(),
        json!({ "detail": [{ "input": secret, "loc": ["body", "token"], "type": "string" }] }).to_string(),
        json!({ "detail": json!({ "token": secret }).to_string() }).to_string(),
        json!({ "detail": json!({ "a": format!("got {}", json!({ "token": secret })) }).to_string() })
            .to_string(),
        json!([["cookie", secret], ["accept", "x"]]).to_string(),
        json!([{ "name": "X-Token", "value": secret }]).to_string(),
        format!("refused {} here", json!({ "api_key": secret, "x": 1 })),
        format!("tokens: {} refused", json!([secret])),
        format!("tokens: [\n  {}\n]", json!(secret)),
        format!("credentials={} x", json!({ "a": secret })),
        // The end never arrived.
        format!("{{\"tokens\": {}, \"y\": {{\"z", json!([secret])),
        format!("{{\"credentials\": {}, \"a\": [1", json!({ "user": "x", "pw": secret })),
        format!("{{'password': '{repr}', 'port': 8006}}"),
        format!("{{u'token': u'{repr}', b'secret': b'{repr}', 'passwd': r'{repr}'}}"),
        format!("secret=SecretStr('{repr}') x=1"),
        format!("[(b'authorization', b'{repr}'), (b'accept', b'x')]"),
        format!("{{'tokens': ('{repr}', ['{repr}']), 'credentials': {{'x': '{repr}'}}}}"),
        format!("/x?token={once}&y=1"),
        format!("/x?next=token%3D{once}&y=1"),
        format!("/x?next=api_key%3A%20{once}"),
        format!("/x?next=token%253D{twice}"),
        format!("at https://me:{once}@pve:8006/x"),
    ]
}

/// The forms of a secret that is one word, of characters of a token.
pub fn word_forms(secret: &str) -> Vec<String> {
    vec![
        format!("token={secret}"),
        format!("api_key={secret}&x=1"),
        format!("secret = {secret}"),
        format!("got Authorization: Bearer {secret} here"),
        format!("Authorization: Token {secret}"),
        format!("X-API-Key: {secret}"),
        format!("Cookie: a={secret}; b={secret}"),
        format!("PVEAuthCookie={secret}; x"),
        format!("PVEAPIToken=root@pam!x={secret}"),
        format!("password: {secret}"),
        format!("invalid password: {secret}, try again"),
        format!("Invalid API key: {secret}"),
        format!("run --password {secret} --x"),
        format!("<a token=\"{secret}\" b=\"c\">"),
        format!("<input name=\"password\" value=\"{secret}\">"),
        format!("&quot;token&quot;: &quot;{secret}&quot;"),
        format!("a Bearer {secret} b"),
        format!("{{\"x\": [1, {{\"token\": \"{secret}"),
    ]
}

/// A secret that no other text has, for each form, and the text with it.
pub fn planted() -> Vec<(String, String)> {
    let secret = |number: usize| format!("k3y{number:03}-of-a-form-{}", 9_876_543 + 1234 * number);
    let uuid =
        |number: usize| format!("0f6c2a1e-9b7d-4c53-8e2f-{:012x}", 0xabc_def0_0000_u64 + number as u64);
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P";
    let pem = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ";
    let user = "ghp_0123456789abcdefABCDEF";
    let ticket = "65F1A2B3::c2lnbmF0dXJlLW9mLWEtdGlja2V0";
    let mut all = Vec::new();
    let count = quoted_forms("").len() + word_forms("").len();
    for number in 0..count {
        let secret = secret(number);
        let mut forms = quoted_forms(&secret);
        forms.extend(word_forms(&secret));
        all.push((secret, forms.swap_remove(number)));
    }
    for (number, form) in ["root@pam!tok {}", "user@pve!id={}", "the token uuid {}"].iter().enumerate() {
        all.push((uuid(number), form.replace("{}", &uuid(number))));
    }
    all.push((jwt.to_owned(), format!("refused {jwt}")));
    all.push((user.to_owned(), format!("https://{user}@host/")));
    all.push((ticket.to_owned(), format!("as PVE:root@pam:{ticket}")));
    all.push((pem.to_owned(), format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----")));
    all
}

/// Whether `text` has `secret`: as it is, percent-encoded, or at any place of a text in base64.
pub fn has(text: &str, secret: &str) -> bool {
    let mut decoded = text.to_owned();
    for _ in 0..2 {
        decoded = percent_decode_str(&decoded).decode_utf8_lossy().into_owned();
    }
    let base64 = |before: usize| {
        let encoded = STANDARD_NO_PAD.encode(format!("{}{secret}", "x".repeat(before)));
        // Without what depends on the bytes around it.
        let (from, to) = ((before * 8).div_ceil(6), (before + secret.len()) * 8 / 6);
        encoded[from..to].to_owned()
    };
    let escaped = json!(secret).to_string();
    let escaped = &escaped[1..escaped.len() - 1];
    let is_long = secret.len() >= 8;
    [text, &decoded].iter().any(|text| text.contains(secret) || text.contains(escaped))
        || is_long && (0..3).any(|before| text.contains(&base64(before)))
}

/// Asserts that `text` has none of `secrets`.
pub fn assert_hidden<'a>(secrets: impl IntoIterator<Item = &'a str>, place: &str, text: &str) {
    for secret in secrets {
        let near = text.find(secret).map(|at| {
            String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(200)..(at + 60).min(text.len())])
        });
        assert!(!has(text, secret), "{secret} is in {place}, near {near:?}");
    }
}

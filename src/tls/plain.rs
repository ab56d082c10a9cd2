//! Clients that speak plain HTTP to a TLS port.

use serde_json::json;

/// Returns whether the `first` bytes of a connection are plain HTTP: the first byte is the upper-case letter of a
/// method, or of the HTTP/2 preface. A TLS client starts with 0x16, so one byte decides.
pub fn looks_like_http(first: &[u8]) -> bool {
    first.first().is_some_and(u8::is_ascii_uppercase)
}

/// The whole HTTP/1.1 response to such a client. The connection must be closed after it.
pub fn plain_on_tls() -> Vec<u8> {
    let body = json!({
        "message": "This port speaks TLS.",
        "detail": "The request came in plain HTTP. Use https:// instead of http:// in the URL.",
    })
    .to_string();
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_distinguished_from_tls_by_its_first_byte() {
        for http in ["GET / HTTP/1.1\r\n", "P", "OPTIONS *", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            assert!(looks_like_http(http.as_bytes()), "{http:?}");
        }
        for other in
            [&b""[..], b"\x16\x03\x01", b"\x80\x2e\x01", b"\x15\x03\x03", b"\r\n", b" GET", b"@", b"["]
        {
            assert!(!looks_like_http(other), "{other:?}");
        }
    }

    #[test]
    fn the_answer_is_whole_and_says_what_to_do() {
        let answer = String::from_utf8(plain_on_tls()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let length = body.len();
        let expected = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close"
        );
        assert_eq!(head, expected);
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["message"], "This port speaks TLS.");
        assert!(body["detail"].as_str().unwrap().contains("https://"));
    }
}

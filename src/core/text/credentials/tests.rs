use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use super::*;

fn hidden(text: &str) -> String {
    String::from_utf8(CredentialFilter::new(&Redactor::default()).hide(text.as_bytes())).unwrap()
}

fn found(text: &str) -> Vec<String> {
    let known = Redactor::default();
    let mut filter = CredentialFilter::new(&known);
    filter.hide(text.as_bytes());
    filter.into_found().iter().map(|secret| secret.expose_secret().to_owned()).collect()
}

#[test]
fn a_short_word_and_a_small_number_are_no_secrets_wherever_else_they_stand() {
    for (value, expected) in [
        ("active", false),
        ("undefined", false),
        ("p4ss", true),
        ("horsebat", true),
        ("correct-horse", true),
        ("", false),
    ] {
        assert_eq!(is_distinctive(&SecretString::from(value)), expected, "{value}");
    }
    assert_eq!(["999", "1000"].map(|number| is_small_integer(number.as_bytes())), [true, false]);
}

#[test]
fn values_of_secret_names_are_hidden() {
    for (text, expected) in [
        ("api_key=abc&x=1", "api_key=[hidden]&x=1"),
        ("Authorization: Bearer abc, more", "Authorization: Bearer [hidden], more"),
        ("got Authorization: Token abc", "got Authorization: Token [hidden]"),
        ("Cookie: a=b; c=d\nAccept: e", "Cookie: [hidden]\nAccept: e"),
        ("'Cookie': 'a=b; c=d'", "'Cookie': '[hidden]'"),
        ("PVEAPIToken=root@pam!x=1234-5678", "PVEAPIToken=[hidden]"),
        ("PVEAuthCookie=PVE:root@pam:68F0::c2ln+bmF0dXJl/==; x", "PVEAuthCookie=[hidden]; x"),
        ("secret = abc", "secret = [hidden]"),
        ("é token=abc", "é token=[hidden]"),
        ("token => abc", "token => [hidden]"),
        ("- token: abc def\nx", "- token: [hidden]\nx"),
        ("token: \"a\\\"b\" c", "token: \"[hidden]\" c"),
        ("token: \"a\\\\\" c", "token: \"[hidden]\" c"),
        (r#"token\": \"abc\" x"#, r#"token\": \"[hidden]\" x"#),
        ("--token \\'a ", "--token \\'[hidden]"),
        ("{'token': abc}x", "{'token': [hidden]}x"),
        ("password: correct horse 9\nport: 1", "password: [hidden]\nport: 1"),
        ("{'password': 'p4\\'ss, \"x', 'x': 1}", "{'password': '[hidden]', 'x': 1}"),
        ("{u'token': u'abc', b'secret': b'def'}", "{u'token': u'[hidden]', b'secret': b'[hidden]'}"),
        ("token=SecretStr('abc') x=1", "token=SecretStr([hidden]) x=1"),
        ("{'tokens': ['a', 'b'], 'x': 1}", "{'tokens': [[hidden]], 'x': 1}"),
        ("{'credentials': {'a': 'b'}, 'x': 1}", "{'credentials': {[hidden]}, 'x': 1}"),
        ("[(b'authorization', b'Bearer abc')]", "[(b'authorization', b'[hidden]')]"),
        ("{'password': 123456, 'tokens': 3, 'x': 4}", "{'password': [hidden], 'tokens': 3, 'x': 4}"),
        ("headers[\"X-Token\"] = \"abc\"", "headers[\"X-Token\"] = \"[hidden]\""),
        ("Invalid API key: abc, more", "Invalid API key: [hidden], more"),
        ("private key: abc def\nx", "private key: [hidden]\nx"),
        ("run --password abc --port 1", "run --password [hidden] --port 1"),
        ("<password>abc</password>", "<password>[hidden]</password>"),
        ("<api-key>abc</api-key>", "<api-key>[hidden]</api-key>"),
        ("<a token=\"abc\" b=\"c\">", "<a token=\"[hidden]\" b=\"c\">"),
        ("<input name=\"password\" value=\"abc\">", "<input name=\"password\" value=\"[hidden]\">"),
        ("&quot;token&quot;: &quot;abc&quot;, x", "&quot;token&quot;: &quot;[hidden]&quot;, x"),
        ("token=&quot;abc\ndef", "token=&quot;[hidden]\ndef"),
        ("/x?a=token%3Dabc&b=1", "/x?a=token=[hidden]&b=1"),
        ("api_key%3A%20x", "api_key:%20[hidden]"),
        ("/x?a=token%253Dabc", "/x?a=token=[hidden]"),
        ("%7B%22secret%22%3A123456%7D", "{%22secret%22:%22[hidden]%22}"),
        // The end never arrived.
        (r#"{"x": [1, {"secret": "be"#, r#"{"x": [1, {"secret": "[hidden]"#),
        (r#"{"tokens": ["abc"], "y": {"z"#, r#"{"tokens": ["[hidden]"], "y": {"z"#),
        ("{\"tokens\": [\n  \"abc", "{\"tokens\": [[hidden]"),
    ] {
        assert_eq!(hidden(text), expected, "{text}");
    }
}

#[test]
fn credentials_without_a_name_are_hidden_by_their_place_or_form() {
    const UUID: &str = "0f6c2a1e-9b7d-4c53-8e2f-1a2b3c4d5e6f";
    for (text, expected) in [
        ("with Token 0123456789abcdef0123", "with Token [hidden]"),
        ("with (bearer abcdef)", "with (bearer [hidden])"),
        ("with Bearer 'abcdef'", "with Bearer '[hidden]'"),
        ("https://me:p4ss@pve:8006/x", "https://me:[hidden]@pve:8006/x"),
        ("https://me:p/4@ss@pve/x", "https://me:[hidden]@pve/x"),
        ("https://me:p?4@pve", "https://me:[hidden]@pve"),
        ("https://me2:p4ss@pve", "https://me2:[hidden]@pve"),
        ("https://monitoring.user:p4ss@pve", "https://monitoring.user:[hidden]@pve"),
        ("https://monitoring01@pve:p4ss@host", "https://monitoring01@pve:[hidden]@host"),
        ("https://ghp_0123456789abcdef@host/", "https://[hidden]@host/"),
        ("in https%3A%2F%2Fme%3Ap4ss%40pve%2F", "in https://me:[hidden]@pve/"),
        (&format!("root@pam!tok {UUID} failed"), "root@pam!tok [hidden] failed"),
        (&format!("user@pve!id={UUID}"), "user@pve!id=[hidden]"),
        (&format!("the token id {UUID}"), "the token id [hidden]"),
        ("PVE:root@pam:68F0::c2ln+bmF0==", "[hidden]"),
        ("as eyJhbGciOi.eyJzdWIi.c2ln-_", "as [hidden]"),
        ("as ghp_01234567, glpat-abcdef", "as [hidden], [hidden]"),
        ("as ghp_01234567@host", "as [hidden]@host"),
        ("no eyJab, and eyJa.b.c", "no eyJab, and [hidden]"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----\nx",
            "-----BEGIN RSA PRIVATE KEY-----[hidden]-----END RSA PRIVATE KEY-----\nx",
        ),
    ] {
        assert_eq!(hidden(text), expected, "{text}");
    }
    for text in [
        &format!("job {UUID} on https://pve:8006/x?a=b:c@d"),
        &format!("the token id {UUID}x"),
        "as ghp_0123456",
        "as eyJhbGciOi.eyJzdWIi",
        "as xeyJa.b.c",
        "bearer abc and bearer tokens",
        "of token 12 and basic letters",
        "https://me:/x@y",
        "https://me:@pve/",
        "http://pve?x:y@z",
        "-----BEGIN PRIVATE KEY-----",
    ] {
        assert_eq!(hidden(text), text);
    }
}

#[test]
fn json_is_read_as_json_wherever_it_stands() {
    let nested = serde_json::json!({ "password": r#"p"a\ss"#, "x": 1 }).to_string();
    let nested = serde_json::json!({ "detail": format!("got {nested}") }).to_string();
    for (text, expected) in [
        (r#"{"password": "p4,}\" ss", "port": 8006}"#, r#"{"password": "[hidden]", "port": 8006}"#),
        (r#"{"tokens": ["a","b"], "x": ["c"]}"#, r#"{"tokens": ["[hidden]","[hidden]"], "x": ["c"]}"#),
        (r#"{"credentials": {"x": {"y": "z"}}}"#, r#"{"credentials": {"x": {"y": "[hidden]"}}}"#),
        (r#"{"secret": 123456, "tokens": 3}"#, r#"{"secret": "[hidden]", "tokens": 3}"#),
        (r#"{"API key": "abc", "key": "def"}"#, r#"{"API key": "[hidden]", "key": "def"}"#),
        (r#"tokens: ["a", {"b": "c"}] refused"#, r#"tokens: ["[hidden]", {"b": "[hidden]"}] refused"#),
        (r#"<token>["a"]</token>"#, r#"<token>["[hidden]"]</token>"#),
        (r#"{"secret": [1, 2]}"#, r#"{"secret": ["[hidden]", "[hidden]"]}"#),
        (&nested, r#"{"detail":"got {\"password\":\"[hidden]\",\"x\":1}"}"#),
        (
            r#"{"detail":[{"input":"abc","loc":["body","token"],"msg":"no"}]}"#,
            r#"{"detail":[{"input":"[hidden]","loc":["body","token"],"msg":"no"}]}"#,
        ),
        (r#"[{"name":"X-Token","value":"abc"}]"#, r#"[{"name":"X-Token","value":"[hidden]"}]"#),
        (r#"[{"name":"X-Token","value":{"a":["b"]}}]"#, r#"[{"name":"X-Token","value":"[hidden]"}]"#),
        (r#"[["cookie","a=b"],["accept","c"]]"#, r#"[["cookie","[hidden]"],["accept","c"]]"#),
        ("event: a\ndata: {\"token\":\"abc\"}\n\n", "event: a\ndata: {\"token\":\"[hidden]\"}\n\n"),
        (r#"no {"token": "a b", "x": "c d"} here"#, r#"no {"token": "[hidden]", "x": "c d"} here"#),
        (r#"{"base64":"dG9rZW49YWJj"}"#, r#"{"base64":"dG9rZW49W2hpZGRlbl0="}"#),
        (r#"{"m":"é\ntoken=abc"}"#, r#"{"m":"é\ntoken=[hidden]"}"#),
        (r#""token=abc""#, r#""token=[hidden]""#),
    ] {
        assert_eq!(hidden(text), expected, "{text}");
    }
    let blocks = "x {\n a\n}\n".repeat(500);
    let text = format!(r#"{blocks}{{"secret": 123456}}"#);
    assert_eq!(hidden(&text), format!(r#"{blocks}{{"secret": "[hidden]"}}"#));
    let deep = format!(r#"{}{{"token": "abc"}}{}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(hidden(&deep), deep.replace("abc", "[hidden]"));
}

#[test]
fn a_long_text_that_repeats_what_is_searched_for_is_read_to_its_end() {
    for (part, is_hidden) in [
        ("://", false),
        ("http://pve,", false),
        ("eyJ+", false),
        ("PVE:", false),
        ("token=abc&", true),
        ("token=\"abc\"&", true),
        ("('token',", false),
        ("\n\"token\": [{", true),
        ("tokens=1&", true),
    ] {
        let text = part.repeat((256 << 10) / part.len());
        assert_eq!(hidden(&text) != text, is_hidden, "{part}");
    }
    let schemes = format!(r#"{{"token": "{}1"}}"#, "basic ".repeat(100_000));
    assert_eq!(hidden(&schemes), r#"{"token": "[hidden]"}"#);
    let many: Vec<_> = (0..2 * MAX_FOUND).map(|number| format!("k3y-{number}")).collect();
    assert_eq!(found(&serde_json::json!({ "tokens": many }).to_string()).len(), MAX_FOUND);
}

#[test]
fn other_text_stays_as_it_is() {
    for text in [
        "Token expired for a very long-sentenced reason",
        "The token is refused: try again",
        r#"{"token": null, "token_version": "v2", "tokens": 3, "token_name": "proxbox", "has_token": true}"#,
        r#"{"api_key": "<api-key>", "token": "", "password": "[hidden]", "secret": "**********"}"#,
        "api_key_file = \"/etc/key\"\nsecrets = \"on\"",
        "http://pve:8006/x?a=b:c@d",
        "token=",
        "api_key=[hidden]&x=1",
        "api_key:",
        "tokens: 3, caf%C3%A9 [info] 100%",
        "2026-11-24T17:06:59.050Z [info] a = b",
        r#"[{"named":"X-Token","value":"abc"}, {"name":"X-Token","value":null}]"#,
        "(\"token\", abc)",
        "<password></password>",
        "a < b > c <",
        "::=:",
        "",
    ] {
        assert_eq!(hidden(text), text);
    }
}

#[test]
fn what_is_certain_to_be_a_credential_is_kept() {
    assert_eq!(
        found(r#"{"authorization": "Bearer 0123", "tokens": ["abcd", "abc"]}"#),
        ["0123", "Bearer 0123", "abcd"]
    );
    assert_eq!(found("Invalid token: authentication_failed"), [""; 0]);
    assert_eq!(found(r#"{"token": ["This field is required."]}"#), [""; 0]);
    assert_eq!(found("token=0123abcd&password=012"), ["0123abcd"]);
    assert_eq!(found(r#"tokens: ["hunter22"] refused"#), ["hunter22"]);
    assert_eq!(found(r#"{"secret": 123456}"#), ["123456"]);
    let long = [MAX_SECRET, MAX_SECRET + 1].map(|length| "x".repeat(length));
    assert_eq!(found(&serde_json::json!({ "tokens": long }).to_string()), [long[0].as_str()]);
    // The whole body that a backend refused, and other values around a credential.
    for text in [
        r#"{"detail":[{"loc":["body","token"],"input":{"name":"pve01.lab.example","password":"hunter22"}}]}"#,
        r#"{"credentials":{"host":"pve01.lab.example","password":["hunter22"]}}"#,
    ] {
        assert_eq!(found(text), ["hunter22"], "{text}");
    }
}

#[test]
fn known_secrets_are_hidden_in_json_and_around_it() {
    let known = Redactor::new(["12345678", "with space"]);
    let words = [SecretString::from("p4ss")];
    for (text, expected) in [
        (r#"p4ss xp4ss {"a": 12345678}"#, r#"[hidden] xp4ss {"a": "[hidden]"}"#),
        (r#"{"b": "with space p4ss"}"#, r#"{"b": "[hidden] [hidden]"}"#),
        ("p%3D12345678", "p%3D[hidden]"),
        ("token=with space x", "token=[hidden] x"),
        ("token=xwith space x", "token=[hidden] x"),
    ] {
        let hidden = CredentialFilter::new(&known).with_words(&words).hide(text.as_bytes());
        assert_eq!(String::from_utf8(hidden).unwrap(), expected);
    }
}

#[test]
fn a_credential_is_hidden_however_many_texts_it_stands_in() {
    let mut text = "token=hunter22 refused".to_owned();
    for _ in 0..=MAX_NESTING {
        text = serde_json::json!({ "m": text }).to_string();
        assert_eq!(hidden(&text), text.replace("hunter22", "[hidden]"));
    }
}

#[test]
fn percent_encoded_text_is_decoded_no_more_often_than_texts_may_be_nested() {
    let mut text = "token=hunter22".to_owned();
    for times in 1..=MAX_NESTING + 1 {
        text = percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string();
        let expected = if times > MAX_NESTING { &text } else { "token=[hidden]" };
        assert_eq!(hidden(&text), expected, "{times} times");
    }
}

#[test]
fn the_beginning_of_a_known_secret_is_hidden_where_the_secret_is_cut() {
    let known = Redactor::new(["s3cret-key"]);
    let text = "no s3cr... and no s3c... and no s3cr";
    let hidden = CredentialFilter::new(&known).hide(text.as_bytes());
    assert_eq!(String::from_utf8(hidden).unwrap(), "no [hidden]... and no s3c... and no s3cr");
}

#[test]
fn names_of_headers_are_known_by_a_part_of_them() {
    for name in ["Cookie", "Set-Cookie", "Authorization", "X-Auth-Ticket", "CSRFPreventionToken"] {
        assert!(is_credential(name), "{name}");
    }
    assert!(!is_credential("Content-Type"));
}

#[test]
fn a_text_is_cut_where_no_credential_lies_across() {
    for (text, first) in [
        (r#"[{"a": "},{"}, {"token": "abc"#, r#"[{"a": "},{"},"#),
        (r#"{"x": [1], "tokens": [{"a": "b"}, {"a": "b"}, "#, r#"{"x": [1],"#),
        (r#"{"x": [1, 2, "#, ""),
        ("a\nb: c\nd", "a\nb: c\n"),
        ("a\n-----BEGIN RSA PRIVATE KEY-----\nMII\n", "a\n"),
        ("a", ""),
    ] {
        assert_eq!(&text[..last_boundary(text.as_bytes())], first, "{text}");
    }
}

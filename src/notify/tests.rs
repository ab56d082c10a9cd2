//! Tests of the delivery without a target.

use std::time::UNIX_EPOCH;

use super::delivery::{is_local, retry_after};
use super::form::{alerts, alerts_path, signature, slack_escaped};
use super::*;

#[test]
fn delays_double_up_to_a_maximum_and_a_target_can_make_them_longer() {
    assert_eq!([0, 255].map(|random| delay(1, None, random).as_millis() / 10), [100, 199]);
    assert_eq!(delay(4, None, 0), Duration::from_secs(8));
    for attempts in [20, u32::MAX] {
        assert_eq!(delay(attempts, None, 0), MAX_RETRY / 2);
    }
    let minute = Duration::from_secs(60);
    assert_eq!(delay(1, Some(minute), 255), minute);
    assert_eq!(delay(20, Some(minute), 0), MAX_RETRY / 2);
    assert_eq!(delay(1, Some(Duration::MAX), 0), MAX_RETRY_AFTER);
}

#[test]
fn retry_after_is_a_number_of_seconds_or_a_date() {
    let after = |value: &str| {
        let response = http::Response::builder().header("retry-after", value).body(()).unwrap();
        retry_after(&response, UNIX_EPOCH + Duration::from_secs(784_111_767))
    };
    assert_eq!(after("120"), Some(Duration::from_secs(120)));
    assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(10)));
    for value in ["Sun, 06 Nov 1994 08:49:17 GMT", "soon", "-1"] {
        assert_eq!(after(value), None, "{value}");
    }
}

#[test]
fn addresses_of_this_machine_of_its_link_and_of_metadata_services_are_recognised_in_every_notation() {
    for address in [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "169.254.169.254", "::", "::1", "fe80::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "2002:a9fe:a9fe::1", "fd00:ec2::254",
        "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "::ffff:100.100.100.200",
    ] {
        assert!(is_local(address.parse().unwrap()), "{address}");
    }
    for address in [
        "10.0.0.5", "100.100.100.201", "192.168.1.1", "192.0.2.7", "2001:db8::1", "fd00::1",
        "::ffff:10.0.0.5",
    ] {
        assert!(!is_local(address.parse().unwrap()), "{address}");
    }
}

#[test]
fn a_signature_is_that_of_the_specification() {
    // The example of https://github.com/standard-webhooks/standard-webhooks, computed with `openssl dgst -hmac`.
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
    let body = r#"{"test": 2432232314}"#;
    let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
    assert_eq!(signed.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn a_text_for_slack_is_escaped_and_mentions_nobody() {
    assert_eq!(slack_escaped("a & b <!here> @all"), "a &amp; b &lt;!here&gt; @\u{200b}all");
}

#[test]
fn alerts_are_sent_to_the_api_whatever_of_its_path_the_url_has() {
    for (target, path) in [
        ("/", "/api/v2/alerts"),
        ("/am/", "/am/api/v2/alerts"),
        ("/api/v2/alerts", "/api/v2/alerts"),
        ("/am?x=1", "/am/api/v2/alerts?x=1"),
    ] {
        assert_eq!(alerts_path(target), path);
    }
}

#[test]
fn an_alert_of_a_job_that_was_interrupted_long_ago_fires() {
    let notification = QueuedNotification {
        target: String::new(),
        id: String::new(),
        event: NotificationEvent::Interrupted,
        backend: String::new(),
        kind: String::new(),
        vm: None,
        at: Timestamp(0),
        since: Some(Timestamp(0)),
        resolved: Vec::new(),
        job: None,
        record: None,
        attempts: 0,
    };
    let message = Message { notification: &notification, backend: String::new(), link: None };
    let alert = &alerts(&message)[0];
    assert_eq!(alert["startsAt"], Timestamp(0).to_string());
    assert!(alert["endsAt"].as_str() > Some(&Timestamp::now().to_string()), "{alert}");
}

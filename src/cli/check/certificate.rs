//! The texts on certificates: names, issuer and validity.

use std::time::{Duration, SystemTime};

use super::report::{CertificateInfo, CheckLine};
use super::verdict::CheckName;
use crate::tls::{self, Certificate, ServerFiles};

/// A certificate that expires within this time gets a warning.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * DAY);
const DAY: u64 = 24 * 60 * 60;
/// The last second of the year 9999, the last that RFC 3339 can express.
const LAST_SECOND: u64 = 253_402_300_799;

impl From<&Certificate> for CertificateInfo {
    fn from(certificate: &Certificate) -> Self {
        Self {
            subject: certificate.subject.clone(),
            issuer: certificate.issuer.clone(),
            names: certificate.names.clone(),
            not_before: format_time(certificate.not_before),
            not_after: format_time(certificate.not_after),
            fingerprint: certificate.fingerprint.to_string(),
        }
    }
}

/// The line on the certificate of a listener. As for `serve`, its key has to fit.
pub(super) fn file_line(check: CheckName, files: &ServerFiles) -> CheckLine {
    match tls::server(files).and_then(|_| tls::read_certificate(files)) {
        Ok(certificate) => line(check, &certificate, SystemTime::now()),
        Err(error) => CheckLine::misconfigured(check, &error),
    }
}

/// The line on a certificate in use, with a warning if it expires soon or clients refuse it.
pub(super) fn line(check: CheckName, certificate: &Certificate, now: SystemTime) -> CheckLine {
    let problem = validity_problem(certificate, now).or_else(|| missing_names(check, certificate));
    let line = match problem {
        None => CheckLine::ok(check, describe(certificate)),
        Some(advice) => CheckLine::warning(check, describe(certificate)).with_advice(advice),
    };
    CheckLine { certificate: Some(certificate.into()), ..line }
}

/// The subject, issuer, names and expiry date of a certificate, on one line.
pub(super) fn describe(certificate: &Certificate) -> String {
    let Certificate { subject, issuer, names, not_after, .. } = certificate;
    let whose = if subject.is_empty() { "no subject" } else { subject };
    let by = match issuer {
        issuer if issuer == subject => "itself",
        issuer if issuer.is_empty() => "an unnamed authority",
        issuer => issuer,
    };
    let names = if names.is_empty() { "no host".to_owned() } else { names.join(", ") };
    format!("{whose}, issued by {by}, for {names}, until {}", &format_time(*not_after)[..DATE])
}

/// A problem with the validity of a certificate, now or soon, and what to do.
fn validity_problem(certificate: &Certificate, now: SystemTime) -> Option<String> {
    if now < certificate.not_before {
        return Some("It is not valid yet: check the clock of this machine.".to_owned());
    }
    match certificate.not_after.duration_since(now) {
        Err(_) => Some("It has expired: renew it.".to_owned()),
        Ok(left) if left < EXPIRY_WARNING => Some(match left.as_secs() / DAY {
            0 => "It expires within a day: renew it.".to_owned(),
            1 => "It expires in 1 day: renew it.".to_owned(),
            days => format!("It expires in {days} days: renew it."),
        }),
        Ok(_) => None,
    }
}

/// The problem of a server certificate without host names.
fn missing_names(check: CheckName, certificate: &Certificate) -> Option<String> {
    let is_nameless = check == CheckName::Certificate && certificate.names.is_empty();
    is_nameless.then(|| {
        "It has no subjectAltName, so clients refuse it: issue a new one with the host names.".to_owned()
    })
}

/// The length of the date in an RFC 3339 time.
const DATE: usize = "2026-01-01".len();

/// `time` in RFC 3339. A certificate may have a time that RFC 3339 cannot express; it is clamped.
fn format_time(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND));
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::verdict::CheckVerdict;
    use super::*;
    use crate::tls::Fingerprint;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn until(days: u64) -> Certificate {
        Certificate {
            subject: "CN=a".to_owned(),
            issuer: "CN=ca".to_owned(),
            names: vec!["a.example".to_owned(), "10.0.0.1".to_owned()],
            not_before: at(DAY),
            not_after: at(days * DAY),
            fingerprint: Fingerprint::from_certificate(&b"a".to_vec().into()),
        }
    }

    #[test]
    fn a_certificate_that_ends_within_14_days_is_a_warning() {
        let now = at(20_000 * DAY);
        for (days, advice) in [
            (20_014, None),
            (20_013, Some("It expires in 13 days: renew it.")),
            (20_001, Some("It expires in 1 day: renew it.")),
            (20_000, Some("It expires within a day: renew it.")),
            (19_999, Some("It has expired: renew it.")),
        ] {
            let line = line(CheckName::Tls, &until(days), now);
            assert_eq!(line.advice.as_deref(), advice, "{days}");
            let verdict = if advice.is_some() { CheckVerdict::Warning } else { CheckVerdict::Ok };
            assert_eq!(line.verdict, verdict, "{days}");
        }
        let early = line(CheckName::Tls, &until(20_000), at(0)).advice.unwrap();
        assert_eq!(early, "It is not valid yet: check the clock of this machine.");
    }

    #[test]
    fn a_certificate_that_clients_are_shown_has_to_name_a_host() {
        let nameless = Certificate { names: Vec::new(), ..until(20_000) };
        let shown = line(CheckName::Certificate, &nameless, at(DAY * 10_000));
        assert_eq!(shown.verdict, CheckVerdict::Warning);
        assert!(shown.advice.unwrap().contains("no subjectAltName, so clients refuse it"));
        assert_eq!(line(CheckName::ClientCertificate, &nameless, at(DAY * 10_000)).verdict, CheckVerdict::Ok);
        assert_eq!(line(CheckName::Certificate, &until(20_000), at(DAY * 10_000)).verdict, CheckVerdict::Ok);
    }

    #[test]
    fn a_certificate_is_described_on_one_line() {
        let mut certificate = until(20_000);
        assert_eq!(
            describe(&certificate),
            "CN=a, issued by CN=ca, for a.example, 10.0.0.1, until 2024-10-04"
        );
        certificate.issuer = certificate.subject.clone();
        certificate.names.clear();
        assert_eq!(describe(&certificate), "CN=a, issued by itself, for no host, until 2024-10-04");
    }

    #[test]
    fn a_time_that_has_no_date_is_shown_as_the_nearest_that_has() {
        assert_eq!(format_time(SystemTime::UNIX_EPOCH - Duration::from_secs(DAY)), "1970-01-01T00:00:00Z");
        assert_eq!(format_time(at(LAST_SECOND + 1)), "9999-12-31T23:59:59Z");
    }
}

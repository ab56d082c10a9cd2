//! Verification of the certificates of backends.
//!
//! It is not called for a resumed session. rustls stores sessions per configuration, so that a resumed session was
//! accepted by the same verifier.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use super::certificate::{describe, parse, rsa_bits};
use super::fingerprint::Fingerprint;
use super::provider;

/// The peer's certificate is not the pinned one.
#[derive(Debug, thiserror::Error)]
#[error("its certificate has the fingerprint {shown}, and the one that is pinned has {pinned}")]
pub(super) struct PinMismatch {
    pinned: Fingerprint,
    shown: Fingerprint,
}

impl PinMismatch {
    /// Explains the mismatch and the remedy. `pin` is the key that configures the fingerprint.
    pub(super) fn explain(&self, pin: &str) -> String {
        let Self { pinned, shown } = self;
        format!(
            "its certificate has the fingerprint {shown}, and {pin} is {pinned}: if it was renewed, set the new one; if \
             not, somebody stands in between"
        )
    }
}

/// The certificate of the backend, or of one of its issuers, has an RSA key that is too short.
#[derive(Debug, thiserror::Error)]
#[error(
    "its certificate, or one above it, has an RSA key of {bits} bits, which is too short, whatever is trusted: make a \
     key of {MIN_RSA_BITS} bits or more, and a new certificate for it; if you did not make this one, somebody may stand in \
     between"
)]
pub(super) struct ShortKey {
    bits: usize,
}

/// The minimum length of an RSA key whose signatures are verified, in bits.
pub(super) const MIN_RSA_BITS: usize = 2048;

/// Returns `error`, or its cause if a signature was not verified because one of `signers` has a key that is too
/// short.
fn with_short_key<'a>(error: Error, signers: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> Error {
    if error != Error::InvalidCertificate(CertificateError::BadSignature) {
        return error;
    }
    match signers.into_iter().filter_map(rsa_bits).find(|bits| *bits < MIN_RSA_BITS) {
        Some(bits) => other(ShortKey { bits }),
        None => error,
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

/// The accepted certificates of a backend.
#[derive(Debug)]
pub(super) enum Accepted {
    /// Any certificate.
    Any,
    /// Only the certificate with this fingerprint.
    Pinned(Fingerprint),
    /// Certificates that are issued by an authority, and those in `listed`, the file of authorities.
    ///
    /// A self-signed certificate in that file means the latter. Most such certificates are marked as an authority (as
    /// `openssl req -x509` does), and webpki rejects an authority as a server certificate.
    Issued { listed: Vec<CertificateDer<'static>>, chained: Arc<WebPkiServerVerifier> },
}

/// Verifies the certificate of a backend.
#[derive(Debug)]
pub(super) struct BackendVerifier {
    accepted: Accepted,
    algorithms: WebPkiSupportedAlgorithms,
}

impl BackendVerifier {
    pub(super) fn new(accepted: Accepted) -> Arc<Self> {
        Arc::new(Self { accepted, algorithms: provider().signature_verification_algorithms })
    }
}

impl ServerCertVerifier for BackendVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.accepted {
            Accepted::Any => {}
            Accepted::Pinned(pinned) => {
                let (pinned, shown) = (*pinned, Fingerprint::from_certificate(end_entity));
                if pinned != shown {
                    return Err(other(PinMismatch { pinned, shown }));
                }
            }
            Accepted::Issued { listed, .. } if listed.contains(end_entity) => {
                check_validity(end_entity, now)?;
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            Accepted::Issued { listed, chained } => {
                let verified =
                    chained.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
                let shown = || std::iter::once(end_entity).chain(intermediates);
                let signed = |issuer| shown().any(|shown| is_issued_by(shown, issuer));
                let signers = shown().chain(listed).filter(|certificate| signed(certificate));
                return verified.map_err(|error| with_short_key(error, signers));
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = verify_tls12_signature(message, cert, dss, &self.algorithms);
        verified.map_err(|error| with_short_key(error, [cert]))
    }

    /// Without a chain, the key is read from the certificate itself: rustls does not parse version 1, which some guides
    /// for self-signed certificates still create.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = if let Accepted::Issued { .. } = self.accepted {
            verify_tls13_signature(message, cert, dss, &self.algorithms)
        } else {
            let parsed = parse(cert).ok_or(CertificateError::BadEncoding)?;
            let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
            verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
        };
        verified.map_err(|error| with_short_key(error, [cert]))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Returns whether `certificate` names the subject of `issuer` as its issuer. The signature is not verified.
fn is_issued_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let (Some(certificate), Some(issuer)) = (parse(certificate), parse(issuer)) else { return false };
    certificate.issuer().as_raw() == issuer.subject().as_raw()
}

fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    // Times before 1970 become 1970.
    let unix = |time: SystemTime| {
        UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    };
    let info = describe(certificate).ok_or(CertificateError::BadEncoding)?;
    let (not_before, not_after) = (unix(info.not_before), unix(info.not_after));
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    Ok(())
}

//! Verification of certificates without a chain of signatures.
//!
//! Verifiers are not called for a resumed session. rustls stores sessions per configuration, so that a resumed
//! session was accepted by the same verifier.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature_with_raw_key,
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
        Some(bits) => CertificateError::Other(OtherError(Arc::new(ShortKey { bits }))).into(),
        None => error,
    }
}

/// Accepts one certificate, or any, without checking its contents or its issuer.
#[derive(Debug)]
pub(super) struct UnchainedVerifier {
    pin: Option<Fingerprint>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl UnchainedVerifier {
    /// Accepts only the certificate with this fingerprint.
    pub(super) fn pinned(pin: Fingerprint) -> Self {
        Self { pin: Some(pin), ..Self::any() }
    }

    /// Accepts any certificate.
    pub(super) fn any() -> Self {
        Self { pin: None, algorithms: provider().signature_verification_algorithms }
    }
}

impl ServerCertVerifier for UnchainedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Fingerprint::from_certificate(end_entity);
        match self.pin {
            Some(pinned) if pinned != shown => {
                Err(CertificateError::Other(OtherError(Arc::new(PinMismatch { pinned, shown }))).into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
            .map_err(|error| with_short_key(error, [cert]))
    }

    /// Extracts the key from the certificate itself: rustls does not parse version 1, which some guides for
    /// self-signed certificates still create.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let parsed = parse(cert).ok_or(CertificateError::BadEncoding)?;
        let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
            .map_err(|error| with_short_key(error, [cert]))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Accepts certificates signed by an authority, and certificates that are listed in the file of authorities
/// themselves.
///
/// A file with a self-signed certificate means the latter. Most such certificates are marked as an authority (as
/// `openssl req -x509` does), and webpki rejects an authority as a server certificate.
#[derive(Debug)]
pub(super) struct ListedVerifier {
    listed: Vec<CertificateDer<'static>>,
    chained: Arc<WebPkiServerVerifier>,
}

impl ListedVerifier {
    /// Accepts the certificates in `listed`, and those that `chained` accepts.
    pub(super) fn new(listed: Vec<CertificateDer<'static>>, chained: Arc<WebPkiServerVerifier>) -> Self {
        Self { listed, chained }
    }
}

impl ServerCertVerifier for ListedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.listed.contains(end_entity) {
            let verified =
                self.chained.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
            let shown = || std::iter::once(end_entity).chain(intermediates);
            let signed = |issuer| shown().any(|shown| is_issued_by(shown, issuer));
            let signers = shown().chain(&self.listed).filter(|certificate| signed(certificate));
            return verified.map_err(|error| with_short_key(error, signers));
        }
        check_validity(end_entity, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.chained.verify_tls12_signature(message, cert, dss);
        verified.map_err(|error| with_short_key(error, [cert]))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.chained.verify_tls13_signature(message, cert, dss);
        verified.map_err(|error| with_short_key(error, [cert]))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chained.supported_verify_schemes()
    }
}

/// Returns whether `certificate` names the subject of `issuer` as its issuer. The signature is not verified.
fn is_issued_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let (Some(certificate), Some(issuer)) = (parse(certificate), parse(issuer)) else { return false };
    certificate.issuer().as_raw() == issuer.subject().as_raw()
}

fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
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

/// Converts a time. Times before 1970 become 1970.
fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

//! A TLS handshake, and until when the certificate is good. Whose it is, and who signed it, is the
//! clients' business: they verify it, through Ballast, end to end.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::certificate::expiry;
use super::stream::Stream;
use crate::health::{Tls, Verdict, Why};
use crate::model::Cause;

/// What a handshake came to.
pub(super) struct Shaken {
    pub(super) verdict: Verdict,
    /// When the server's certificate expires, in seconds since 1970.
    pub(super) expires: Option<i64>,
    /// The connection, with what is to be said at its end.
    pub(super) rest: Option<(Stream, Vec<u8>)>,
}

/// Shakes hands over `stream`.
pub(super) async fn shake(tls: &Tls, address: IpAddr, stream: Stream) -> Shaken {
    let named = tls.server_name.clone().map(ServerName::try_from);
    let name = match named {
        Some(Ok(name)) => name,
        // The configuration has tried it. An address is not asked for by name.
        Some(Err(_)) | None => ServerName::from(address),
    };
    let Some(config) = config() else {
        return failed(Verdict::Dead(Why::answer("TLS cannot be set up: a defect")));
    };
    match TlsConnector::from(config).connect(name, stream).await {
        Ok(stream) => {
            let (stream, mut session) = stream.into_inner();
            let expires = session
                .peer_certificates()
                .and_then(|chain| expiry(chain.first()?));
            let mut farewell = Vec::new();
            session.send_close_notify();
            // Writing to memory does not fail; without its farewell a session ends less politely.
            while session.wants_write() && session.write_tls(&mut farewell).is_ok() {}
            Shaken {
                verdict: Verdict::Alive,
                expires,
                rest: Some((stream, farewell)),
            }
        }
        Err(error) => failed(Verdict::Dead(why(&error))),
    }
}

fn why(error: &io::Error) -> Why {
    if error.kind() == io::ErrorKind::InvalidData {
        Why::answer(&format!("TLS handshake: {error}"))
    } else if error.kind() == io::ErrorKind::UnexpectedEof {
        Why::answer("TLS handshake: closed")
    } else {
        Cause::from_io(error).into()
    }
}

fn failed(verdict: Verdict) -> Shaken {
    Shaken {
        verdict,
        expires: None,
        rest: None,
    }
}

/// The same for every check. Sessions are not resumed: a resumed one shows no certificate.
fn config() -> Option<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();
    let make = || {
        let provider = ring::default_provider();
        let signatures = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .ok()?;
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(signatures)))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Some(Arc::new(config))
    };
    CONFIG.get_or_init(make).clone()
}

/// Takes every certificate, and the server's word that it is its own: to verify that, one has to read
/// the certificate, and clients read versions and keys that are not read here. These are the
/// signatures that are.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

/// What a server may sign by besides: it hangs up on a client that does not ask for the kind of its key.
const UNREAD: [SignatureScheme; 2] = [
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED448,
];

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.0.supported_schemes();
        schemes.extend(UNREAD);
        schemes
    }
}

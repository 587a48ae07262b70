//! TLS towards the server: libpq's `sslmode` as rustls verifiers.
//!
//! `require` encrypts and verifies nothing, unless a root certificate is there: then it verifies like `verify-ca`, as libpq
//! does. `verify-ca` checks the chain, `verify-full` the host's name too. Even where nothing is verified the handshake's
//! signature is, because channel binding rests on it.
//!
//! A server certificate that is itself in the root file is accepted without a chain (people do trust self-signed certificates
//! that way); its dates are then not looked at.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::{RootCertificates, SslMode, SslNegotiation, TlsConfig};

/// Why TLS cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be used.
    #[error("the {what} {} cannot be used: {problem}", path.display())]
    File {
        /// Which one, such as `client key`.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The platform has no root certificates.
    #[error(
        "the platform has no root certificates ({0}); install them (Debian: ca-certificates) or name a PEM file in sslrootcert"
    )]
    NoSystemRoots(String),
    /// rustls refuses the settings.
    #[error("the TLS settings do not work: {0}")]
    Settings(#[from] rustls::Error),
}

/// The client side of TLS for these settings.
pub(crate) fn client_config(config: &TlsConfig) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Verifier {
        verify: verification(config),
        trusted: Trusted::load(config)?,
        provider: Arc::clone(&provider),
    });
    let versions: &[&rustls::SupportedProtocolVersion] =
        if config.only_tls13 { &[&rustls::version::TLS13] } else { rustls::ALL_VERSIONS };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut client = match &config.client {
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates("client certificate", certificate)?, private_key(key)?)
            .map_err(|error| TlsError::File {
                what: "client certificate",
                path: certificate.clone(),
                problem: format!("{error}; certificate and key must belong together"),
            })?,
        None => builder.with_no_client_auth(),
    };
    if config.negotiation == SslNegotiation::Direct {
        client.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(client)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verify {
    Nothing,
    Chain,
    ChainAndName,
}

fn verification(config: &TlsConfig) -> Verify {
    match (config.mode, &config.roots) {
        (SslMode::VerifyFull, _) => Verify::ChainAndName,
        (SslMode::VerifyCa, _) => Verify::Chain,
        (SslMode::Require, RootCertificates::File(_) | RootCertificates::System) => Verify::Chain,
        (SslMode::Require | SslMode::Prefer | SslMode::Allow | SslMode::Disable, _) => Verify::Nothing,
    }
}

/// The trusted certificates, as anchors for chains and as they are.
#[derive(Debug)]
struct Trusted {
    anchors: RootCertStore,
    exact: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let mut anchors = RootCertStore::empty();
        if verification(config) == Verify::Nothing {
            return Ok(Self { anchors, exact: Vec::new() });
        }
        let exact = match &config.roots {
            RootCertificates::None => Vec::new(),
            RootCertificates::System => {
                let found = rustls_native_certs::load_native_certs();
                anchors.add_parsable_certificates(found.certs);
                if anchors.is_empty() {
                    let reasons = found.errors.iter().map(ToString::to_string).collect::<Vec<_>>();
                    return Err(TlsError::NoSystemRoots(reasons.join(", ")));
                }
                Vec::new()
            }
            RootCertificates::File(path) => {
                let roots = certificates("root certificate", path)?;
                anchors.add_parsable_certificates(roots.iter().cloned());
                roots
            }
        };
        Ok(Self { anchors, exact })
    }
}

#[derive(Debug)]
struct Verifier {
    verify: Verify,
    trusted: Trusted,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.verify != Verify::Nothing {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            if !self.trusted.exact.iter().any(|root| root.as_ref() == end_entity.as_ref()) {
                let algorithms = self.provider.signature_verification_algorithms.all;
                verify_server_cert_signed_by_trust_anchor(
                    &certificate,
                    &self.trusted.anchors,
                    intermediates,
                    now,
                    algorithms,
                )?;
            }
            if self.verify == Verify::ChainAndName {
                verify_server_name(&certificate, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let problem = |problem: String| TlsError::File { what, path: path.to_owned(), problem };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error: PemError| problem(error.to_string()))?;
    if found.is_empty() {
        return Err(problem("it holds no certificate in PEM form".into()));
    }
    Ok(found)
}

/// Reads the client's key, with libpq's rule: nobody else may read it, except that a key of root's may be read by its group.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let problem = |problem: String| TlsError::File { what: "client key", path: path.to_owned(), problem };
    let about = std::fs::metadata(path).map_err(|error| problem(error.to_string()))?;
    let allowed = if about.uid() == 0 { 0o640 } else { 0o600 };
    if about.permissions().mode() & 0o777 & !(allowed | 0o100) != 0 {
        return Err(problem("others can read it; chmod 0600, or 0640 when root owns it".into()));
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        PemError::NoItemsFound => problem(
            "it holds no plain private key in PEM form; an encrypted key must be stored without pass phrase"
                .into(),
        ),
        other => problem(other.to_string()),
    })
}

//! Whether a certificate is what was ordered: with its key, signed by the authority for that end, and for that name. Asked
//! of rustls, which asks the same at every handshake.
use super::End;
use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use std::time::Duration;

/// How a certificate is not what was ordered.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Certificate or key cannot be read.
    #[error("not PEM of a certificate and a private key")]
    Pem(#[source] pem::Error),
    /// The key is another certificate's, or of no kind that can be used.
    #[error("the private key does not belong to the certificate")]
    Key(#[source] rustls::Error),
    /// The authority is none.
    #[error("the authority's certificate cannot be used")]
    Authority(#[source] rustls::Error),
    /// The authority can verify nobody.
    #[error("the authority's certificate verifies nobody")]
    Verifier(#[source] VerifierBuilderError),
    /// Somebody else signed it, or for another end, or it is not valid at this time.
    #[error("not signed by the authority for this end and time")]
    Signed(#[source] rustls::Error),
    /// It is for another name.
    #[error("for another name")]
    Name(#[source] rustls::Error),
}

/// Whether the key belongs to the certificate; of a chain to its first.
pub(super) fn keys_match(certificate: &str, key: &str) -> Result<(), Unfit> {
    let chain = vec![first(certificate)?];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(Unfit::Pem)?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(Unfit::Key)?;
    CertifiedKey::new(chain, key).keys_match().map_err(Unfit::Key)
}

/// Whether whoever trusts `authority` takes the holder of the certificate for that name at that end.
pub(super) fn vouched(
    authority: &str,
    certificate: &str,
    end: End,
    name: &ServerName<'static>,
    now: Timestamp,
) -> Result<(), Unfit> {
    let mut roots = RootCertStore::empty();
    roots.add(first(authority)?).map_err(Unfit::Authority)?;
    let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
    let certificate = first(certificate)?;
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let signed = match end {
        End::Server => {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
            let verifier = verifier.map_err(Unfit::Verifier)?;
            verifier.verify_server_cert(&certificate, &[], name, &[], now).map(drop)
        }
        End::Client => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            let verifier = verifier.map_err(Unfit::Verifier)?;
            verifier.verify_client_cert(&certificate, &[], now).map(drop)
        }
    };
    signed.map_err(Unfit::Signed)?;
    let parsed = ParsedCertificate::try_from(&certificate).map_err(Unfit::Signed)?;
    // The check of a name is the same for both ends; rustls has it under the client's.
    verify_server_name(&parsed, name).map_err(Unfit::Name)
}

fn first(certificate: &str) -> Result<CertificateDer<'static>, Unfit> {
    CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(Unfit::Pem)
}

//! Mutual TLS for a server: one pinned client, and certificates that are replaced while it serves.
//!
//! The files are read again every few seconds and compared by content: a Secret volume swaps a symbolic link, which no
//! watch on the file itself reports. What cannot be used is refused with a warning, and the former material stays.

use crate::api::causes;
use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at.
pub const RELOAD_PERIOD: Duration = Duration::from_secs(2);
/// Longest file: a chain or a bundle of authorities is some kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where the material lies, and who may come.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate chain, PEM, leaf first.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities that sign clients, PEM; two during a change of authority.
    pub client_ca: PathBuf,
    /// The DNS name that the client's certificate must carry (subjectAltName).
    pub client_name: String,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is too long.
    #[error("{} is longer than {FILE_BYTES_MAX} bytes: that is no certificate", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no certificate or no key.
    #[error("{} holds no usable {what} in PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// An authority is no certificate.
    #[error("{} holds something that is no authority's certificate", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// No clients can be verified.
    #[error("failed to build the verifier of clients from {}", path.display())]
    Verifier {
        /// The file of the authorities.
        path: PathBuf,
        /// Why.
        #[source]
        source: VerifierBuilderError,
    },
    /// The pinned name is none.
    #[error("{given:?} is no DNS name: write the name that the client's certificate carries")]
    ClientName {
        /// As given.
        given: String,
    },
    /// Certificate and key do not belong together, or cannot be used.
    #[error("failed to use {} with {}", cert.display(), key.display())]
    Identity {
        /// File of the chain.
        cert: PathBuf,
        /// File of the key.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// The material in use. Cheap to clone; all clones change together.
#[derive(Debug, Clone)]
pub struct Tls {
    files: TlsFiles,
    used: Arc<ArcSwap<Used>>,
}

#[derive(Debug)]
struct Used {
    config: Arc<ServerConfig>,
    content: u64,
}

/// The material that one connection was made with.
#[derive(Debug, Clone)]
pub(crate) struct Edition {
    pub(crate) config: Arc<ServerConfig>,
    now: Arc<ArcSwap<Used>>,
}

impl Edition {
    /// Whether other material is in use by now.
    pub(crate) fn is_former(&self) -> bool {
        !Arc::ptr_eq(&self.now.load().config, &self.config)
    }
}

/// The bytes of the three files, read in one go.
struct Material {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Vec<u8>,
}

impl Tls {
    /// Reads the files and checks that they can be used.
    ///
    /// # Errors
    /// A file that is missing or cannot be used, by name: whoever is asked to serve with TLS does not start without.
    pub async fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let material = Material::read(&files).await?;
        let used = Used { config: material.config(&files)?, content: material.content() };
        Ok(Self { files, used: Arc::new(ArcSwap::from_pointee(used)) })
    }

    /// Looks at the files every `period` until `shutdown`, [`RELOAD_PERIOD`] outside tests.
    pub async fn follow(self, period: Duration, shutdown: CancellationToken) {
        let mut refused = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(period) => {}
            }
            let told = match self.reload().await {
                Ok(()) => None,
                Err(error) => Some(causes(&error)),
            };
            // Once for each fault, not at every look.
            if told != refused
                && let Some(error) = &told
            {
                tracing::warn!(error, "New TLS material cannot be used; the former stays in use");
            }
            refused = told;
        }
    }

    async fn reload(&self) -> Result<(), TlsError> {
        let material = Material::read(&self.files).await?;
        let content = material.content();
        if content != self.used.load().content {
            let config = material.config(&self.files)?;
            self.used.store(Arc::new(Used { config, content }));
            tracing::info!(cert = %self.files.cert.display(), "TLS material was replaced");
        }
        Ok(())
    }

    pub(crate) fn edition(&self) -> Edition {
        Edition { config: self.used.load().config.clone(), now: self.used.clone() }
    }
}

impl Material {
    async fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            cert: read(&files.cert).await?,
            key: read(&files.key).await?,
            client_ca: read(&files.client_ca).await?,
        })
    }

    fn content(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for part in [&self.cert, &self.key, &self.client_ca] {
            part.hash(&mut hasher);
        }
        hasher.finish()
    }

    fn config(&self, files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.client_ca, &self.client_ca)? {
            let wrong = |source| TlsError::Authority { path: files.client_ca.clone(), source };
            roots.add(authority).map_err(wrong)?;
        }
        let unusable = |source| TlsError::Verifier { path: files.client_ca.clone(), source };
        let signed = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        let name = ServerName::try_from(files.client_name.clone()).ok();
        let name = name.filter(|name| matches!(name, ServerName::DnsName(_)));
        let name = name.ok_or_else(|| TlsError::ClientName { given: files.client_name.clone() })?;
        let verifier = PinnedClient { signed: signed.map_err(unusable)?, name };
        let chain = certificates(&files.cert, &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key);
        let no_key = |source| TlsError::Pem { path: files.key.clone(), what: "private key", source };
        let mismatch = |source| TlsError::Identity { cert: files.cert.clone(), key: files.key.clone(), source };
        // TLS 1.2 and 1.3. Each edition begins without sessions: nobody resumes what a former authority admitted.
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(mismatch)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(chain, key.map_err(no_key)?)
            .map_err(mismatch)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = Vec::new();
    let length = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if u64::try_from(length).is_ok_and(|length| length <= FILE_BYTES_MAX) {
        return Ok(bytes);
    }
    Err(TlsError::TooLong { path: path.to_owned() })
}

/// At least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::Pem { path: path.to_owned(), what: "certificate", source };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(wrong)?;
    if found.is_empty() {
        return Err(wrong(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}

/// Admits certificates that one of the authorities signed for clients, and of those the one name.
#[derive(Debug)]
struct PinnedClient {
    signed: Arc<dyn ClientCertVerifier>,
    name: ServerName<'static>,
}

impl ClientCertVerifier for PinnedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.signed.verify_client_cert(end_entity, intermediates, now)?;
        // The check of a name is the same for both ends; rustls has it under the client's.
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.name)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

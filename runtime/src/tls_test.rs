//! A server with mutual TLS: who is served, and what happens when its files are replaced under load.
use crate::server::{Limits, serve};
use crate::tls::{Tls, TlsError, TlsFiles};
use axum::Router;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

const CLIENT: &str = "scheduler.fairlead.test";
const SERVER: &str = "extender.fairlead.test";
const PERIOD: Duration = Duration::from_millis(20);

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A chain and its key, PEM.
#[derive(Clone)]
struct Leaf {
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn leaf(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        Leaf { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    fn server(&self) -> Leaf {
        self.leaf(SERVER, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn client(&self, name: &str) -> Leaf {
        self.leaf(name, ExtendedKeyUsagePurpose::ClientAuth)
    }
}

/// As a Secret volume does it: each file is another one from one moment to the next.
fn write(folder: &Path, name: &str, text: &str) {
    let fresh = folder.join(format!(".{name}"));
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, folder.join(name)).unwrap();
}

fn install(folder: &Path, leaf: &Leaf, client_ca: &str) -> TlsFiles {
    write(folder, "tls.crt", &leaf.cert);
    write(folder, "tls.key", &leaf.key);
    write(folder, "ca.crt", client_ca);
    let file = |name: &str| folder.join(name);
    let (cert, key, client_ca) = (file("tls.crt"), file("tls.key"), file("ca.crt"));
    TlsFiles { cert, key, client_ca, client_name: CLIENT.to_owned() }
}

async fn start(files: TlsFiles) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let tls = Tls::load(files).await.unwrap();
    tokio::spawn(tls.clone().follow(PERIOD, token.clone()));
    let router = Router::new().route("/", get(|| async { "served" }));
    let limits = Limits { connections: 64, header_read_timeout: None, drain: Duration::from_secs(1) };
    tokio::spawn(serve(listener, router, limits, Some(tls), token.clone()));
    (address, token)
}

fn connector(trusted: &[&str], identity: Option<&Leaf>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for pem in trusted {
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            let chain = vec![CertificateDer::from_pem_slice(leaf.cert.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

async fn connect(connector: &TlsConnector, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    connector.connect(ServerName::try_from(SERVER).unwrap(), stream).await
}

/// One request; gives the answer's head and body.
async fn ask<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"served") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::Error::other(String::from_utf8_lossy(&answer)));
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn served(connector: &TlsConnector, address: SocketAddr) -> bool {
    match connect(connector, address).await {
        // With TLS 1.3 the client learns of a refusal when it reads.
        Ok(mut stream) => ask(&mut stream).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn the_pinned_client_alone_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new(), Authority::new());
    let (address, _token) = start(install(folder.path(), &ours.server(), &ours.pem)).await;
    let trusted = [ours.pem.as_str()];
    assert!(served(&connector(&trusted, Some(&ours.client(CLIENT))), address).await);
    let refused = [
        ("no certificate", None),
        ("another name", Some(ours.client("somebody.fairlead.test"))),
        ("another authority", Some(other.client(CLIENT))),
        ("a server's certificate", Some(ours.leaf(CLIENT, ExtendedKeyUsagePurpose::ServerAuth))),
    ];
    for (who, identity) in refused {
        assert!(!served(&connector(&trusted, identity.as_ref()), address).await, "{who}");
    }
    let mut plain = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut plain).await.is_err(), "without TLS");
}

#[tokio::test]
async fn who_never_shakes_hands_is_hung_up_on() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new();
    let (address, _token) = start(install(folder.path(), &ours.server(), &ours.pem)).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut nothing = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), silent.read_to_end(&mut nothing)).await;
    assert!(read.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_replaced_under_load_and_no_request_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let both = format!("{}{}", old.pem, new.pem);
    let (address, _token) = start(install(folder.path(), &old.server(), &old.pem)).await;
    let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let kept = connector(&[&old.pem, &new.pem], Some(&old.client(CLIENT)));
    let mut clients = Vec::new();
    for keep_alive in [true, true, false] {
        let (kept, stop, requests) = (kept.clone(), stop.clone(), requests.clone());
        clients.push(tokio::spawn(async move {
            let mut connection = None;
            while !stop.load(Ordering::Relaxed) {
                let mut stream = match connection.take() {
                    Some(stream) => stream,
                    None => connect(&kept, address).await?,
                };
                let answer = ask(&mut stream).await?;
                requests.fetch_add(1, Ordering::Relaxed);
                if keep_alive && !answer.contains("connection: close") {
                    connection = Some(stream);
                }
            }
            std::io::Result::Ok(())
        }));
    }
    let pause = || tokio::time::sleep(Duration::from_millis(150));
    pause().await;
    // First who is trusted, then who one is.
    install(folder.path(), &old.server(), &both);
    pause().await;
    let replaced = Instant::now();
    install(folder.path(), &new.server(), &both);
    let fresh = connector(&[&new.pem], Some(&new.client(CLIENT)));
    while !served(&fresh, address).await {
        assert!(replaced.elapsed() < Duration::from_secs(5), "the new certificate is not used");
        tokio::time::sleep(PERIOD).await;
    }
    pause().await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap().unwrap();
    }
    assert!(requests.load(Ordering::Relaxed) > 50, "{requests:?}");

    install(folder.path(), &new.server(), &new.pem);
    let gone = Instant::now();
    while served(&kept, address).await {
        assert!(gone.elapsed() < Duration::from_secs(5), "the former authority's client is still served");
        tokio::time::sleep(PERIOD).await;
    }
}

#[tokio::test]
async fn a_connection_of_before_is_asked_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new();
    let (address, _token) = start(install(folder.path(), &ours.server(), &ours.pem)).await;
    let connector = connector(&[&ours.pem], Some(&ours.client(CLIENT)));
    let mut stream = connect(&connector, address).await.unwrap();
    assert!(!ask(&mut stream).await.unwrap().contains("connection: close"));
    install(folder.path(), &ours.server(), &ours.pem);
    tokio::time::sleep(PERIOD * 10).await;
    assert!(ask(&mut stream).await.unwrap().contains("connection: close"));
}

#[tokio::test]
async fn what_cannot_be_used_leaves_the_former_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new();
    let (address, _token) = start(install(folder.path(), &ours.server(), &ours.pem)).await;
    let client = connector(&[&ours.pem], Some(&ours.client(CLIENT)));
    for (file, text) in [("tls.crt", ours.server().cert), ("tls.key", String::new()), ("ca.crt", "x".to_owned())] {
        write(folder.path(), file, &text);
        tokio::time::sleep(PERIOD * 3).await;
        assert!(served(&client, address).await, "{file}");
    }
    std::fs::remove_file(folder.path().join("tls.crt")).unwrap();
    tokio::time::sleep(PERIOD * 3).await;
    assert!(served(&client, address).await);
}

#[tokio::test]
async fn material_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new();
    let files = install(folder.path(), &ours.server(), &ours.pem);
    let failed = async |files: TlsFiles| Tls::load(files).await.map(drop).unwrap_err();
    assert!(matches!(failed(TlsFiles { key: "/nowhere/key".into(), ..files.clone() }).await, TlsError::Read { .. }));
    let unnamed = TlsFiles { client_name: "not a name".to_owned(), ..files.clone() };
    assert!(matches!(failed(unnamed).await, TlsError::ClientName { .. }));
    let address = TlsFiles { client_name: "10.0.0.1".to_owned(), ..files.clone() };
    assert!(matches!(failed(address).await, TlsError::ClientName { .. }));
    write(folder.path(), "tls.key", &ours.server().key);
    assert!(matches!(failed(files.clone()).await, TlsError::Identity { .. }), "a key of another certificate");
    write(folder.path(), "ca.crt", &"x".repeat(2 << 20));
    assert!(matches!(failed(files.clone()).await, TlsError::TooLong { .. }));
    write(folder.path(), "ca.crt", "nothing");
    let error = failed(files).await;
    assert!(matches!(error, TlsError::Pem { what: "certificate", .. }), "{error}");
    assert!(error.to_string().contains("ca.crt"), "{error}");
}

//! What the API server proves itself with and knows its users by: certificates, keys, tokens.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// A user with a static token.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// File name of its token and kubeconfig.
    pub(crate) file: String,
    pub(crate) name: String,
    /// Empty for none.
    pub(crate) group: String,
}

/// Writes `ca.crt`, `server.crt`, `server.key`, and the pair that signs ServiceAccount tokens, `sa.key` and `sa.pub`.
pub(crate) fn write_certificates(folder: &Path) -> Result<()> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    authority.distinguished_name.push(DnType::CommonName, "bed");
    let authority_key = KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);

    let names = ["127.0.0.1", "10.0.0.1", "localhost", "kubernetes.default.svc"];
    let mut server = CertificateParams::new(names.map(str::to_owned).to_vec())?;
    server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    server.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = KeyPair::generate()?;
    let server_certificate = server.signed_by(&server_key, &issuer)?;

    let tokens = KeyPair::generate()?;
    let files = [
        ("ca.crt", authority_certificate.pem()),
        ("server.crt", server_certificate.pem()),
        ("server.key", server_key.serialize_pem()),
        ("sa.key", tokens.serialize_pem()),
        ("sa.pub", tokens.public_key_pem()),
    ];
    for (name, text) in files {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}

/// Writes `tokens.csv` for the API server and each token into `tokens/FILE`.
pub(crate) fn write_tokens(folder: &Path, users: &[User]) -> Result<()> {
    let tokens = folder.join("tokens");
    std::fs::create_dir_all(&tokens)?;
    let mut csv = String::new();
    for User { file, name, group } in users {
        let token = random_token()?;
        std::fs::write(tokens.join(file), &token)?;
        csv.push_str(&format!("{token},{name},{name},\"{group}\"\n"));
    }
    std::fs::write(folder.join("tokens.csv"), csv)?;
    Ok(())
}

/// The token that [`write_tokens`] made for a user.
pub(crate) fn read_token(folder: &Path, file: &str) -> Result<String> {
    std::fs::read_to_string(folder.join("tokens").join(file)).with_context(|| format!("token of {file}"))
}

fn random_token() -> Result<String> {
    let mut bytes = [0_u8; 24];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

//! Certificates for the extender in Service mode: an authority that lives long, because kube-scheduler reads its copy once,
//! and leaves that do not. They lie in Secrets that the chart creates empty, since the right to create cannot be limited by
//! name; whoever leads fills and renews them.
mod check;

pub use check::Unfit;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use fairlead_crds::keys;
use fairlead_runtime::{API_DEADLINE, ApiError, LeaseState, Pulse, causes, deadline};

/// The authority: `ca.crt`, `ca.key`.
pub const AUTHORITY: &str = "fairlead-extender-ca";
/// For the extender: `tls.crt`, `tls.key`, and in `ca.crt` the authority that signs clients.
pub const SERVER: &str = "fairlead-extender-tls";
/// For kube-scheduler: `tls.crt`, `tls.key`, and in `ca.crt` the authority that signs the extender.
pub const CLIENT: &str = "fairlead-extender-client";
/// How often the Secrets are looked at; a failed look is made good by the next.
const PERIOD: Duration = Duration::from_secs(10);
/// A desk that is silent for this long is stuck.
pub const SILENCE: Duration = Duration::from_secs(180);
const AUTHORITY_DAYS: i64 = 3650;
/// Clocks may differ by this.
const BACKDATED_DAYS: i64 = 1;

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A Secret cannot be read or written.
    #[error("failed to {operation} Secret {name}")]
    Secret {
        /// `read` or `write`.
        operation: &'static str,
        /// Which.
        name: &'static str,
        /// What the API server says.
        #[source]
        source: Box<ApiError>,
    },
    /// A certificate cannot be made.
    #[error("failed to make the certificate for Secret {name}")]
    Make {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The authority's key cannot be read.
    #[error(
        "Secret {AUTHORITY}: ca.key is no private key; delete ca.crt and ca.key, and give kube-scheduler the new ca.crt"
    )]
    AuthorityKey(#[source] rcgen::Error),
    /// A name that no certificate can carry.
    #[error("{given:?} is no DNS name, so Secret {name} cannot be filled: write one as kube-scheduler's client name")]
    DnsName {
        /// Which Secret.
        name: &'static str,
        /// As given.
        given: String,
    },
    /// A certificate that was just made is not what it should be: the authority is not one of ours.
    #[error(
        "Secret {AUTHORITY} cannot sign what Secret {name} is for; delete its ca.crt and ca.key, and give kube-scheduler the \
         new ca.crt"
    )]
    Unfit {
        /// Which Secret.
        name: &'static str,
        /// How it is not.
        #[source]
        source: Unfit,
    },
    /// The calendar ends.
    #[error("today's date cannot be calculated with")]
    Calendar(#[source] jiff::Error),
}

/// Which end of a connection a certificate is for.
#[derive(Clone, Copy, Debug)]
enum End {
    Server,
    Client,
}

/// What is issued, and to whom.
struct Order {
    secret: &'static str,
    dns_name: String,
    end: End,
    days: i64,
    /// Renewed when this many days are left.
    renew_days: i64,
}

/// Who fills the Secrets.
pub struct Desk {
    secrets: Api<Secret>,
    orders: [Order; 2],
    lease: watch::Receiver<LeaseState>,
    pulse: Pulse,
}

struct Leaf {
    certificate: String,
    key: String,
    renew: Date,
}

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Desk {
    /// For the extender in `namespace`, and for a kube-scheduler whose certificate carries `client_name`.
    #[must_use]
    pub fn new(
        client: kube::Client,
        namespace: &str,
        client_name: &str,
        lease: watch::Receiver<LeaseState>,
        pulse: Pulse,
    ) -> Self {
        let server = Order {
            secret: SERVER,
            dns_name: format!("fairlead-extender.{namespace}.svc"),
            end: End::Server,
            days: 7,
            renew_days: 3,
        };
        // Longer: whoever runs kube-scheduler may have to carry it there by hand.
        let client_order =
            Order { secret: CLIENT, dns_name: client_name.to_owned(), end: End::Client, days: 365, renew_days: 120 };
        Self { secrets: Api::namespaced(client, namespace), orders: [server, client_order], lease, pulse }
    }

    /// Looks, issues and renews while this process leads, until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut told = None;
        loop {
            self.pulse.beat();
            if self.lease.borrow_and_update().term_now().is_some() {
                let failed = self.look(Timestamp::now()).await.err().map(|error| causes(&error));
                if failed != told
                    && let Some(error) = &failed
                {
                    tracing::warn!(error, "Certificates of the extender are not as they should be");
                }
                told = failed;
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                // A new leader looks at once.
                Ok(()) = self.lease.changed() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// One look at all Secrets.
    ///
    /// # Errors
    /// The first that could not be filled; those before it are.
    pub async fn look(&self, now: Timestamp) -> Result<(), CertificateError> {
        let today = now.to_zoned(TimeZone::UTC).date();
        let authority = self.authority(today).await?;
        for order in &self.orders {
            let secret = self.read(order.secret).await?;
            let name = order.name()?;
            if !order.is_filled_by(&secret, &name, &authority.certificate, now) {
                let leaf = order.leaf(&name, &authority, now)?;
                self.issue(order, &secret, &leaf, &authority.certificate).await?;
            }
        }
        Ok(())
    }

    async fn authority(&self, today: Date) -> Result<Authority, CertificateError> {
        let secret = self.read(AUTHORITY).await?;
        let (params, made) = (authority_params(), |source| CertificateError::Make { name: AUTHORITY, source });
        let key = match (text(&secret, "ca.crt"), text(&secret, "ca.key")) {
            (Some(certificate), Some(key)) => {
                let pair = KeyPair::from_pem(&key).map_err(CertificateError::AuthorityKey)?;
                if check::keys_match(&certificate, &key).is_ok() {
                    return Ok(Authority { certificate, issuer: Issuer::new(params, pair) });
                }
                // Somebody put another key there. Nothing that it signs is of the former certificate.
                pair
            }
            _ => KeyPair::generate().map_err(made)?,
        };
        let certificate = dated(authority_params(), today, AUTHORITY_DAYS)?.self_signed(&key).map_err(made)?.pem();
        let data = [("ca.crt", certificate.clone()), ("ca.key", key.serialize_pem())];
        self.write(AUTHORITY, &secret, &data, None).await?;
        tracing::info!(secret = AUTHORITY, "Made an authority; kube-scheduler needs its ca.crt");
        Ok(Authority { certificate, issuer: Issuer::new(params, key) })
    }

    async fn issue(
        &self,
        order: &Order,
        secret: &Secret,
        leaf: &Leaf,
        authority: &str,
    ) -> Result<(), CertificateError> {
        let data =
            [("tls.crt", leaf.certificate.clone()), ("tls.key", leaf.key.clone()), ("ca.crt", authority.to_owned())];
        self.write(order.secret, secret, &data, Some(leaf.renew)).await?;
        tracing::info!(secret = order.secret, name = order.dns_name, renew = %leaf.renew, "Issued a certificate");
        Ok(())
    }

    async fn read(&self, name: &'static str) -> Result<Secret, CertificateError> {
        let failed = |source| CertificateError::Secret { operation: "read", name, source: Box::new(source) };
        deadline("read Secret", API_DEADLINE, async { self.secrets.get(name).await }).await.map_err(failed)
    }

    /// Only over what was read: of two leaders one loses, and looks again.
    async fn write(
        &self,
        name: &'static str,
        read: &Secret,
        data: &[(&str, String)],
        renew: Option<Date>,
    ) -> Result<(), CertificateError> {
        let data: BTreeMap<&str, ByteString> =
            data.iter().map(|(key, text)| (*key, ByteString(text.clone().into_bytes()))).collect();
        let annotations = renew.map(|date| json!({ keys::RENEW_ANNOTATION: format!("{date}T00:00:00Z") }));
        let body: Value = json!({
            "metadata": { "resourceVersion": read.metadata.resource_version, "annotations": annotations },
            "data": data,
        });
        let params =
            PatchParams { field_manager: Some(keys::manager::CERTIFICATES.to_owned()), ..PatchParams::default() };
        let failed = |source| CertificateError::Secret { operation: "write", name, source: Box::new(source) };
        let call = async { self.secrets.patch(name, &params, &Patch::Merge(&body)).await };
        deadline("write Secret", API_DEADLINE, call).await.map_err(failed)?;
        Ok(())
    }
}

impl Order {
    fn name(&self) -> Result<ServerName<'static>, CertificateError> {
        let name = ServerName::try_from(self.dns_name.clone()).ok();
        let wrong = || CertificateError::DnsName { name: self.secret, given: self.dns_name.clone() };
        name.filter(|name| matches!(name, ServerName::DnsName(_))).ok_or_else(wrong)
    }

    /// Complete, for this name and end, of this authority, and not to be renewed yet.
    fn is_filled_by(&self, secret: &Secret, name: &ServerName<'static>, authority: &str, now: Timestamp) -> bool {
        let renew = secret.metadata.annotations.as_ref().and_then(|all| all.get(keys::RENEW_ANNOTATION));
        let later = renew.and_then(|text| text.parse::<Timestamp>().ok()).is_some_and(|renew| now < renew);
        let (Some(certificate), Some(key)) = (text(secret, "tls.crt"), text(secret, "tls.key")) else { return false };
        later
            && text(secret, "ca.crt").as_deref() == Some(authority)
            && check::keys_match(&certificate, &key).is_ok()
            && check::vouched(authority, &certificate, self.end, name, now).is_ok()
    }

    /// What cannot be used is never written: the next look would only make another.
    fn leaf(
        &self,
        name: &ServerName<'static>,
        authority: &Authority,
        now: Timestamp,
    ) -> Result<Leaf, CertificateError> {
        let today = now.to_zoned(TimeZone::UTC).date();
        let made = |source| CertificateError::Make { name: self.secret, source };
        let mut params = CertificateParams::new(vec![self.dns_name.clone()]).map_err(made)?;
        params.distinguished_name.push(DnType::CommonName, self.dns_name.as_str());
        params.extended_key_usages = vec![match self.end {
            End::Server => ExtendedKeyUsagePurpose::ServerAuth,
            End::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(made)?;
        let signed = dated(params, today, self.days)?.signed_by(&key, &authority.issuer).map_err(made)?.pem();
        let unfit = |source| CertificateError::Unfit { name: self.secret, source };
        check::vouched(&authority.certificate, &signed, self.end, name, now).map_err(unfit)?;
        Ok(Leaf { certificate: signed, key: key.serialize_pem(), renew: shifted(today, self.days - self.renew_days)? })
    }
}

/// The same at every start: a leaf names its issuer by this.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Fairlead extender");
    params
}

fn dated(mut params: CertificateParams, today: Date, days: i64) -> Result<CertificateParams, CertificateError> {
    let date = |date: Date| {
        let number = |part: i8| u8::try_from(part).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), number(date.month()), number(date.day()))
    };
    params.not_before = date(shifted(today, -BACKDATED_DAYS)?);
    params.not_after = date(shifted(today, days)?);
    Ok(params)
}

fn shifted(date: Date, days: i64) -> Result<Date, CertificateError> {
    date.checked_add(days.days()).map_err(CertificateError::Calendar)
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get(key)?.0;
    String::from_utf8(bytes.clone()).ok().filter(|text| !text.is_empty())
}

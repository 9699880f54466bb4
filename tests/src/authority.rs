//! A private certificate authority for the lab's servers, and the certificates that are wrong on purpose.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Which fault a certificate has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None.
    Sound,
    /// Its last day was in 2021.
    Expired,
    /// It names another host.
    OtherName,
    /// It is signed by nobody but itself.
    SelfSigned,
}

/// A certificate with its key, as PEM and DER.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "it holds a private key")]
pub struct Leaf {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: String,
    certificate: CertificateDer<'static>,
    key: Arc<PrivatePkcs8KeyDer<'static>>,
}

impl Leaf {
    fn new(certificate: &Certificate, key: &KeyPair) -> Self {
        Self {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            certificate: certificate.der().clone(),
            key: Arc::new(PrivatePkcs8KeyDer::from(key.serialize_der())),
        }
    }

    /// Writes `NAME.pem` and `NAME.key` for servers that want files.
    pub fn write(&self, directory: &Path, name: &str) -> Result<()> {
        fs::write(directory.join(format!("{name}.pem")), &self.certificate_pem)
            .context("write a certificate")?;
        fs::write(directory.join(format!("{name}.key")), &self.key_pem).context("write a key")
    }

    /// A server's configuration that offers `protocols` by ALPN and, with `clients`, insists on a
    /// certificate which that authority signed.
    pub fn server(
        &self,
        protocols: &[&str],
        clients: Option<&Authority>,
    ) -> Result<Arc<ServerConfig>> {
        let builder = ServerConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .context("choose TLS versions")?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(
                    authority.roots()?.into(),
                    default_provider().into(),
                )
                .build()
                .context("build the verifier of clients")?,
            ),
        };
        let key = PrivateKeyDer::Pkcs8(self.key.clone_key());
        let mut config = builder
            .with_single_cert(vec![self.certificate.clone()], key)
            .context("use a certificate")?;
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }
}

fn client_params(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2048, 1, 1);
    change(&mut params);
    params
}

/// The authority.
#[expect(missing_debug_implementations, reason = "it holds a private key")]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    /// Makes an authority of its own key.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("generate an authority's key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(2049, 1, 1);
        let certificate = params.self_signed(&key).context("sign an authority")?;
        let pem = certificate.pem();
        let der = certificate.der().clone();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate: der,
            pem,
        })
    }

    /// The authority's certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for `names` (host names or addresses), with a fault or none.
    pub fn leaf(&self, names: &[&str], fault: Fault) -> Result<Leaf> {
        let names: Vec<String> = match fault {
            Fault::OtherName => vec!["somebody-else.test".to_owned()],
            Fault::Sound | Fault::Expired | Fault::SelfSigned => {
                names.iter().map(ToString::to_string).collect()
            }
        };
        let mut params = CertificateParams::new(names.clone()).context("name a certificate")?;
        params.distinguished_name.push(
            DnType::CommonName,
            names.concat().chars().take(60).collect::<String>(),
        );
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        // Strict verifiers (Python 3.13 on) insist on it.
        params.use_authority_key_identifier_extension = true;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = match fault {
            Fault::Expired => date_time_ymd(2021, 1, 1),
            Fault::Sound | Fault::OtherName | Fault::SelfSigned => date_time_ymd(2048, 1, 1),
        };
        let key = KeyPair::generate().context("generate a key")?;
        let certificate = match fault {
            Fault::SelfSigned => params.self_signed(&key),
            Fault::Sound | Fault::Expired | Fault::OtherName => {
                params.signed_by(&key, &self.issuer)
            }
        }
        .context("sign a certificate")?;
        Ok(Leaf::new(&certificate, &key))
    }

    /// A certificate for a client, which names nobody until `change` says whom.
    pub fn client_leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Result<Leaf> {
        let params = client_params(change);
        let key = KeyPair::generate().context("generate a key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("sign a client's certificate")?;
        Ok(Leaf::new(&certificate, &key))
    }

    /// The same, signed by nobody but itself.
    pub fn lone_leaf(change: impl FnOnce(&mut CertificateParams)) -> Result<Leaf> {
        let params = client_params(change);
        let key = KeyPair::generate().context("generate a key")?;
        let certificate = params
            .self_signed(&key)
            .context("sign a client's certificate")?;
        Ok(Leaf::new(&certificate, &key))
    }

    /// A store that trusts this authority alone.
    pub fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.certificate.clone())
            .context("trust an authority")?;
        Ok(roots)
    }

    /// A client's configuration that trusts this authority alone and offers `protocols` by ALPN.
    pub fn client(&self, protocols: &[&str]) -> Result<Arc<ClientConfig>> {
        let mut config = ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .context("choose TLS versions")?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }
}

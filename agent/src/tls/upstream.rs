//! TLS towards the real server: verified against the system's roots and those configured, never less.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use crate::bounded::Bounded;
use crate::tls::leaf::Alpn;

/// How many (workload, name, ALPN) configurations are kept; each holds its own session tickets.
const KEPT: usize = 1024;
/// Tickets kept in one configuration.
const TICKETS: usize = 8;

/// What is wrong with the roots or a client certificate.
#[derive(Debug, Error)]
pub enum UpstreamTlsFault {
    /// The system has no usable roots and none are configured.
    #[error("no root certificates: the system's store is empty and `tls.extra_roots` names none")]
    NoRoots,
    /// A PEM text does not hold what it should.
    #[error("reading {what}")]
    Pem {
        /// Which configured item.
        what: String,
        /// The PEM reader's error.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// rustls refuses a certificate or a key.
    #[error("using {what}")]
    Rustls {
        /// Which configured item.
        what: String,
        /// rustls's error.
        #[source]
        source: rustls::Error,
    },
}

/// A client certificate for one upstream host.
pub struct ClientCertificate {
    /// The exact host name.
    pub host: String,
    /// The chain, PEM.
    pub chain: String,
    /// The key, PEM.
    pub key: String,
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificate")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// Workload, host and the ALPN protocols offered.
type Key = (u32, String, Vec<Alpn>);

/// Client configurations, one for each workload, host and ALPN, so that no session ticket is shared.
pub struct Upstreams {
    roots: Arc<RootCertStore>,
    certificates: Vec<ClientCertificate>,
    kept: Mutex<Bounded<Key, Arc<ClientConfig>>>,
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstreams")
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

impl Upstreams {
    /// The system's roots plus the PEM texts in `extra`, and the client certificates.
    ///
    /// # Errors
    /// Every [`UpstreamTlsFault`]; client certificates are tried at once, so that a wrong one is found at start.
    pub fn new(
        extra: &[(String, String)],
        certificates: Vec<ClientCertificate>,
    ) -> Result<Self, UpstreamTlsFault> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!(%error, "a root certificate of the system could not be read");
        }
        roots.add_parsable_certificates(system.certs);
        for (name, pem) in extra {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|source| UpstreamTlsFault::Pem {
                    what: format!("`{name}`"),
                    source,
                })?;
                roots
                    .add(certificate)
                    .map_err(|source| UpstreamTlsFault::Rustls {
                        what: format!("`{name}`"),
                        source,
                    })?;
            }
        }
        if roots.is_empty() {
            return Err(UpstreamTlsFault::NoRoots);
        }
        let made = Self {
            roots: Arc::new(roots),
            certificates,
            kept: Mutex::new(Bounded::new(KEPT)),
        };
        for certificate in &made.certificates {
            made.build(&certificate.host)?;
        }
        Ok(made)
    }

    /// The configuration for one workload, host and list of ALPN protocols.
    ///
    /// # Errors
    /// As [`Upstreams::new`], for a host with a client certificate.
    pub fn config(
        &self,
        workload: u32,
        host: &str,
        alpn: &[Alpn],
    ) -> Result<Arc<ClientConfig>, UpstreamTlsFault> {
        let key = (workload, host.to_owned(), alpn.to_vec());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = kept.get(&key) {
            return Ok(Arc::clone(config));
        }
        let mut config = self.build(host)?;
        config.alpn_protocols = alpn.iter().flat_map(|alpn| alpn.protocols()).collect();
        config.resumption = Resumption::in_memory_sessions(TICKETS);
        let config = Arc::new(config);
        kept.insert(key, Arc::clone(&config));
        Ok(config)
    }

    fn build(&self, host: &str) -> Result<ClientConfig, UpstreamTlsFault> {
        let builder = ClientConfig::builder().with_root_certificates(Arc::clone(&self.roots));
        let Some(certificate) = self.certificates.iter().find(|held| held.host == host) else {
            return Ok(builder.with_no_client_auth());
        };
        let what = || format!("the client certificate for `{host}`");
        let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| UpstreamTlsFault::Pem {
                what: what(),
                source,
            })?;
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).map_err(|source| {
            UpstreamTlsFault::Pem {
                what: what(),
                source,
            }
        })?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|source| UpstreamTlsFault::Rustls {
                what: what(),
                source,
            })
    }
}

/// Whether `error`, from a handshake with an upstream, is about its certificate.
pub fn is_certificate_fault(error: &io::Error) -> bool {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|fault| matches!(fault, rustls::Error::InvalidCertificate(_)))
}

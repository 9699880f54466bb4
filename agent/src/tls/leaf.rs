//! Leaf certificates for intercepted connections: one key for the gate's life, one certificate for each
//! name, signed by the supervisor and kept for half a day. Where a client is asked for a certificate, no session of it is
//! resumed: it proves on each connection that it has the key.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rcgen::{KeyPair, PublicKeyData as _};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::bounded::Bounded;
use crate::identify::certificate::Authorities;

/// How many names' certificates are kept.
const KEPT: usize = 4096;
/// A certificate is asked for anew after this long; the supervisor's are valid for days.
const KEPT_FOR: Duration = Duration::from_hours(12);
/// A signature takes the supervisor well under a millisecond; past this it is not coming.
const SIGN_DEADLINE: Duration = Duration::from_secs(5);

/// What went wrong on the way to a leaf certificate.
#[derive(Debug, Error)]
pub enum LeafFault {
    /// The gate's own key could not be made.
    #[error("making the key of the leaf certificates")]
    Key(#[source] rcgen::Error),
    /// rustls does not take the key.
    #[error("loading the key of the leaf certificates")]
    Load(#[source] rustls::Error),
    /// The supervisor is not there, or busy beyond its deadline.
    #[error("no answer from the supervisor to a request for a certificate")]
    NoAnswer,
    /// The supervisor refused to sign.
    #[error("the supervisor refused to sign for `{name}`: {why}")]
    Refused {
        /// The name or address asked for.
        name: String,
        /// The supervisor's words.
        why: String,
    },
}

/// A certificate chain in DER, leaf first.
pub type Chain = Vec<Vec<u8>>;

/// A request for a certificate, on its way to the supervisor.
#[derive(Debug)]
pub struct SignRequest {
    /// A host name or an IP address, as text.
    pub name: String,
    /// The public key to certify, as a DER `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
    /// Where the answer goes; the error is the supervisor's sentence.
    pub reply: oneshot::Sender<Result<Chain, String>>,
}

/// ALPN of a configuration: what the upstream agreed to, and only that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// The client offered nothing.
    None,
    /// `http/1.1`
    Http1,
    /// `h2`
    Http2,
}

impl Alpn {
    /// The protocol list for a rustls configuration.
    pub fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::None => Vec::new(),
            Self::Http1 => vec![b"http/1.1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec()],
        }
    }
}

struct Kept {
    config: Arc<ServerConfig>,
    /// What asks for a certificate on its connections.
    asking: Option<Arc<Authorities>>,
    until: Instant,
}

/// The name, what is offered, and whether a certificate is asked for.
type Key = (String, Alpn, bool);

/// The cache of leaf certificates, as ready server configurations.
pub struct Leaves {
    key: Arc<dyn SigningKey>,
    public_key: Vec<u8>,
    signer: mpsc::Sender<SignRequest>,
    kept: Mutex<Bounded<Key, Kept>>,
}

impl std::fmt::Debug for Leaves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaves").finish_non_exhaustive()
    }
}

impl Leaves {
    /// Makes the gate's key; certificates are asked for through `signer`.
    ///
    /// # Errors
    /// [`LeafFault::Key`] and [`LeafFault::Load`] when the cryptographic library fails.
    pub fn new(signer: mpsc::Sender<SignRequest>) -> Result<Self, LeafFault> {
        let pair = KeyPair::generate().map_err(LeafFault::Key)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let key = any_supported_type(&der).map_err(LeafFault::Load)?;
        let public_key = pair.subject_public_key_info();
        Ok(Self {
            key,
            public_key,
            signer,
            kept: Mutex::new(Bounded::new(KEPT)),
        })
    }

    /// The server configuration for `name` (a host name or an address) that offers just `alpn` and, with `asking`, asks
    /// the client for a certificate of these authorities.
    ///
    /// # Errors
    /// [`LeafFault::NoAnswer`] and [`LeafFault::Refused`].
    pub async fn config(
        &self,
        name: &str,
        alpn: Alpn,
        asking: Option<&Arc<Authorities>>,
    ) -> Result<Arc<ServerConfig>, LeafFault> {
        let key = (name.to_owned(), alpn, asking.is_some());
        if let Some(config) = self.fresh(&key, asking) {
            return Ok(config);
        }
        let chain = self.ask(name).await?;
        let until = Instant::now() + KEPT_FOR;
        let config = Arc::new(self.build(chain, alpn, asking)?);
        let kept = Kept {
            config: Arc::clone(&config),
            asking: asking.cloned(),
            until,
        };
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, kept);
        Ok(config)
    }

    fn fresh(&self, key: &Key, asking: Option<&Arc<Authorities>>) -> Option<Arc<ServerConfig>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.get(key)?;
        // Other authorities were asked for before.
        let same = match (&found.asking, asking) {
            (Some(then), Some(now)) => Arc::ptr_eq(then, now),
            (then, now) => then.is_none() && now.is_none(),
        };
        (same && Instant::now() < found.until).then(|| Arc::clone(&found.config))
    }

    async fn ask(&self, name: &str) -> Result<Chain, LeafFault> {
        let (reply, answer) = oneshot::channel();
        let request = SignRequest {
            name: name.to_owned(),
            public_key: self.public_key.clone(),
            reply,
        };
        let asked = async {
            self.signer.send(request).await.ok()?;
            answer.await.ok()
        };
        match timeout(SIGN_DEADLINE, asked).await {
            Ok(Some(Ok(chain))) => Ok(chain),
            Ok(Some(Err(why))) => Err(LeafFault::Refused {
                name: name.to_owned(),
                why,
            }),
            Ok(None) | Err(_) => Err(LeafFault::NoAnswer),
        }
    }

    fn build(
        &self,
        chain: Chain,
        alpn: Alpn,
        asking: Option<&Arc<Authorities>>,
    ) -> Result<ServerConfig, LeafFault> {
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let certified = CertifiedKey::new(chain, Arc::clone(&self.key));
        let builder = ServerConfig::builder();
        let builder = match asking {
            None => builder.with_no_client_auth(),
            Some(asking) => {
                let asking: Arc<dyn ClientCertVerifier> = Arc::<Authorities>::clone(asking);
                builder.with_client_cert_verifier(asking)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(One(Arc::new(certified))));
        config.alpn_protocols = alpn.protocols();
        if asking.is_some() {
            // Neither by tickets, of which none is made without a ticketer, nor by what is stored here.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = Ticketer::new().map_err(LeafFault::Load)?;
        }
        Ok(config)
    }
}

/// Always the same certificate: the name was agreed on before the configuration was chosen.
#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

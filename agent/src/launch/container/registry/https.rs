//! HTTPS as a workload speaks it: to names that the gate resolves, with the certificates that it shows.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::PullError;
use crate::launch::container::client::{Answer, HttpError, PATIENCE, send};

/// A path at a host, at port 443.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    /// Path and query.
    pub(super) path: String,
}

impl Place {
    /// A registry, unless it is at another port.
    pub(super) fn registry(text: &str) -> Option<Self> {
        Self::parse(&format!("https://{text}/"))
    }

    /// An address of `https`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let fits = uri.scheme_str() == Some("https") && matches!(uri.port_u16(), None | Some(443));
        let host = uri.host().filter(|_| fits)?;
        Some(Self {
            host: host.to_ascii_lowercase(),
            path: uri.path_and_query()?.to_string(),
        })
    }

    /// Another path of this host.
    pub(super) fn at(&self, path: &str) -> Self {
        Self {
            host: self.host.clone(),
            path: path.to_owned(),
        }
    }

    /// Where an answer from here sends to.
    pub(super) fn next(&self, response: &Response<Incoming>) -> Option<Self> {
        let to = response.headers().get(LOCATION)?.to_str().ok()?;
        if to.starts_with('/') && !to.starts_with("//") {
            return Some(self.at(to));
        }
        Self::parse(to)
    }

    /// An error of HTTP here.
    pub(super) fn failed(&self) -> impl Fn(HttpError) -> PullError + use<> {
        let host = self.host.clone();
        move |cause| PullError::Http {
            host: host.clone(),
            cause,
        }
    }
}

/// Whom this process trusts.
pub(super) struct Client(TlsConnector);

impl Client {
    /// By the bundle that every server is given.
    pub(super) fn new(bundle: &Path) -> Result<Self, PullError> {
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(bundle).map_err(PullError::Trust)?;
        for certificate in certificates {
            roots.add_parsable_certificates([certificate.map_err(PullError::Trust)?]);
        }
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Asks for what is there.
    pub(super) async fn ask(
        &self,
        method: Method,
        place: &Place,
        accept: &'static str,
        token: Option<&HeaderValue>,
    ) -> Result<Answer, PullError> {
        let unfit = |_error| PullError::Unfit("an address is none");
        let mut request = Request::builder()
            .method(method)
            .uri(&place.path)
            .header(HOST, &place.host)
            .header(USER_AGENT, concat!("exeat/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, accept)
            .body(Empty::<Bytes>::new())
            .map_err(unfit)?;
        if let Some(token) = token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        let stream = timeout(PATIENCE, self.connect(&place.host))
            .await
            .unwrap_or_else(|_late| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|cause| PullError::Reach {
                host: place.host.clone(),
                cause,
            })?;
        send(stream, request, PATIENCE)
            .await
            .map_err(place.failed())
    }

    async fn connect(&self, host: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in lookup_host((host, 443)).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => return self.0.connect(name, stream).await,
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn nothing_is_fetched_from_elsewhere_than_port_443() {
        let host = |text: &str| Place::parse(text).map(|place| place.host);
        assert_eq!(host("https://A.example/x?y").as_deref(), Some("a.example"));
        assert_eq!(host("https://a.example:443/").as_deref(), Some("a.example"));
        for text in [
            "http://a.example/",
            "https://a.example:444/",
            "/x",
            "ftp://a/",
        ] {
            assert_eq!(host(text), None, "{text}");
        }
        assert!(Place::registry("ghcr.io").is_some());
        assert!(Place::registry("localhost:5000").is_none());
    }
}

//! A server on loopback with a certificate that only the trial's own bundle vouches for.

use std::env::temp_dir;
use std::fs::{DirBuilder, OpenOptions, remove_dir_all};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::cli::error::{CliError, Kind};

/// How long a runtime may take: the slowest starts in about two seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a runtime made of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It fails without the variable, and works with it.
    Trusts,
    /// It works without.
    TrustsAnything,
    /// It fails with it: what it said last.
    Refuses(String),
    /// It could not be started, or did not end.
    NotRun(String),
}

/// The server, until it is dropped.
#[derive(Debug)]
pub(super) struct Trial {
    url: String,
    directory: PathBuf,
    server: JoinHandle<()>,
}

impl Trial {
    /// Makes an authority, a bundle and a server.
    pub(super) async fn begin() -> Result<Self, CliError> {
        let failed = |error: &io::Error| CliError::io("start a server on loopback", error);
        let (bundle, config) =
            certificates().map_err(|error| CliError::from_error(Kind::Usage, &*error))?;
        let directory = directory(&bundle)
            .map_err(|error| CliError::io("write a trust bundle for the trial", &error))?;
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .map_err(|error| failed(&error))?;
        let address = listener.local_addr().map_err(|error| failed(&error))?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // One after the other: so are the runtimes.
                if let Err(error) = timeout(PATIENCE, serve(&acceptor, stream)).await {
                    tracing::debug!(%error, "a runtime kept the trial's server waiting");
                }
            }
        });
        Ok(Self {
            url: format!("https://localhost:{}/", address.port()),
            directory,
            server,
        })
    }

    /// Whether the program runs with these arguments.
    pub(super) async fn runs(&self, program: &Path, arguments: &[&str]) -> bool {
        self.run(program, arguments, None)
            .await
            .is_ok_and(|said| said.is_none())
    }

    /// Lets the program fetch the URL, without the variable and with it.
    pub(super) async fn fetch(
        &self,
        program: &Path,
        arguments: &[&str],
        variable: &str,
    ) -> Outcome {
        let mut arguments = arguments.to_vec();
        arguments.push(&self.url);
        match self.run(program, &arguments, None).await {
            Ok(None) => return Outcome::TrustsAnything,
            Ok(Some(_)) => {}
            Err(why) => return Outcome::NotRun(why),
        }
        match self.run(program, &arguments, Some(variable)).await {
            Ok(None) => Outcome::Trusts,
            Ok(Some(said)) => Outcome::Refuses(said),
            Err(why) => Outcome::NotRun(why),
        }
    }

    /// `Ok(None)`: it ended with 0; `Ok(Some)`: it did not, and said this last.
    async fn run(
        &self,
        program: &Path,
        arguments: &[&str],
        variable: Option<&str>,
    ) -> Result<Option<String>, String> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.directory)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(variable) = variable {
            command.env(variable, self.directory.join("bundle.pem"));
        }
        let ended = match timeout(PATIENCE, command.output()).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_elapsed) => return Err(format!("it ran for more than {} s", PATIENCE.as_secs())),
        };
        if ended.status.success() {
            return Ok(None);
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        Ok(Some(last.map_or_else(
            || ended.status.to_string(),
            |line| line.trim().to_owned(),
        )))
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.server.abort();
        if let Err(error) = remove_dir_all(&self.directory) {
            tracing::debug!(%error, "the trial's directory stays behind");
        }
    }
}

/// An authority's certificate as PEM, and a server's configuration under it.
fn certificates() -> Result<(String, ServerConfig), Box<dyn std::error::Error + 'static>> {
    let mut authority = CertificateParams::new(Vec::new())?;
    // Without names of their own the two would have the same, and look self-signed to OpenSSL.
    authority
        .distinguished_name
        .push(DnType::CommonName, "Exeat's trial authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()])?;
    leaf.distinguished_name
        .push(DnType::CommonName, "localhost");
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, &authority)?;
    let chain = vec![leaf.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok((authority.pem(), config))
}

/// A directory of our own, with the bundle in it.
fn directory(bundle: &str) -> io::Result<PathBuf> {
    let name = format!("exeat-doctor-{}", std::process::id());
    let directory = temp_dir().join(name);
    // Fails if somebody has put something there before.
    DirBuilder::new().mode(0o700).create(&directory)?;
    let path = directory.join("bundle.pem");
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bundle.as_bytes())?;
    Ok(directory)
}

async fn serve(acceptor: &TlsAcceptor, stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
    // A client that does not trust the certificate ends here, which is the point.
    let Ok(mut stream) = acceptor.accept(stream).await else {
        return;
    };
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16_384 {
        match stream.read(&mut byte).await {
            Ok(1) => head.extend_from_slice(&byte),
            _ => return,
        }
    }
    let answered = stream.write_all(ANSWER).await;
    if let Err(error) = answered.and(stream.shutdown().await) {
        tracing::debug!(%error, "a runtime did not wait for its answer");
    }
}

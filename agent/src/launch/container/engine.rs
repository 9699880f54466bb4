//! What is asked of Docker's daemon: what it is, whether it has an image, and that it takes one.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::request::Builder;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use tokio::net::UnixStream;

use super::archive::Archive;
use super::client::{HttpError, send, shown};

/// The longest answer.
const ANSWER: usize = 4 << 20;
/// Time for an answer.
const ASKED: Duration = Duration::from_secs(30);

/// What is not as it has to be with Docker's daemon.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody is there, or not for this user.
    #[error("connecting; the server's user has to be one that may use Docker (`launch.user`)")]
    Connect(#[source] std::io::Error),
    /// Somebody else listens there.
    #[error("it is not root's: its containers would be elsewhere")]
    NotRoots,
    /// It did not answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It answered with an error.
    #[error("it answered {status}: {message}")]
    Refused {
        /// Of HTTP.
        status: StatusCode,
        /// The beginning of what it says, escaped.
        message: String,
    },
    /// It answered with something else.
    #[error("understanding its answer")]
    Answer(#[source] serde_json::Error),
    /// Its containers would not be in the workload.
    #[error("{0}")]
    Unfit(&'static str),
    /// It took an image, and does not know it.
    #[error("it does not have the image that it was given")]
    Lost,
    /// The question is none.
    #[error("asking")]
    Question(#[source] hyper::http::Error),
}

/// Docker's daemon.
#[derive(Debug)]
pub(super) struct Engine {
    socket: PathBuf,
}

/// Of `GET /info`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    cgroup_driver: String,
    #[serde(default)]
    cgroup_version: String,
    #[serde(default)]
    security_options: Vec<String>,
}

/// Of `GET /images/NAME/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
}

/// Of an error.
#[derive(Debug, Default, Deserialize)]
struct Said {
    #[serde(default)]
    message: String,
}

impl Info {
    /// Whether this daemon makes containers where it is told to.
    fn fits(&self) -> Result<(), EngineError> {
        let has = |option: &str| {
            let mut options = self.security_options.iter();
            options.any(|one| one.split(',').next() == Some(option))
        };
        let message = if self.cgroup_version != "2" {
            "it does not use cgroup2: boot with systemd.unified_cgroup_hierarchy=1"
        } else if self.cgroup_driver != "cgroupfs" {
            "it has systemd make its cgroups, where none is a workload's: have it make them itself, by \
             `\"exec-opts\": [\"native.cgroupdriver=cgroupfs\"]` in /etc/docker/daemon.json, and restart it"
        } else if has("name=rootless") || has("name=userns") {
            "it runs containers in a user name space, where no workload's network is (`rootless`, `userns-remap`)"
        } else if !has("name=seccomp") {
            "it refuses containers no system calls: it is built without seccomp"
        } else {
            return Ok(());
        };
        Err(EngineError::Unfit(message))
    }
}

impl Engine {
    pub(super) fn new(socket: &str) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Refuses one whose containers would be elsewhere.
    pub(super) async fn examine(&self) -> Result<(), EngineError> {
        let (status, body) = self.get("/info").await?;
        if status != StatusCode::OK {
            return Err(refused(status, &body));
        }
        let info: Info = serde_json::from_slice(&body).map_err(EngineError::Answer)?;
        info.fits()
    }

    /// The id of an image that is here.
    pub(super) async fn image(&self, name: &str) -> Result<Option<String>, EngineError> {
        let (status, body) = self.get(&format!("/images/{name}/json")).await?;
        match status {
            StatusCode::OK => {
                let image: Inspected =
                    serde_json::from_slice(&body).map_err(EngineError::Answer)?;
                Ok(Some(image.id))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refused(status, &body)),
        }
    }

    /// Hands over an image, which is fetched and taken in within `limit`; its id, by the name that it has in the archive.
    pub(super) async fn load(
        &self,
        archive: Archive,
        name: &str,
        limit: Duration,
    ) -> Result<String, EngineError> {
        let request = base(Method::POST, "/images/load?quiet=1")
            .header(CONTENT_TYPE, "application/x-tar")
            .body(archive)
            .map_err(EngineError::Question)?;
        let answer = send(self.connect().await?, request, limit).await?;
        let status = answer.response.status();
        let body = answer.whole(ANSWER).await?;
        // What goes wrong later than the head is said in the body.
        let text = String::from_utf8_lossy(&body);
        let failed = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|line| line.get("error")?.as_str().map(str::to_owned));
        if status != StatusCode::OK {
            return Err(refused(status, &body));
        }
        if let Some(message) = failed {
            let message = shown(&message);
            return Err(EngineError::Refused { status, message });
        }
        self.image(name).await?.ok_or(EngineError::Lost)
    }

    /// Ends and removes a container; whether there was one.
    pub(super) async fn remove(&self, name: &str) -> Result<bool, EngineError> {
        let path = format!("/containers/{name}?force=1&v=1");
        let (status, body) = self.ask(Method::DELETE, &path).await?;
        match status {
            // In the latter case somebody else is removing it.
            StatusCode::NO_CONTENT | StatusCode::CONFLICT => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refused(status, &body)),
        }
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Vec<u8>), EngineError> {
        self.ask(Method::GET, path).await
    }

    async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Vec<u8>), EngineError> {
        let request: Request<Empty<Bytes>> = base(method, path)
            .body(Empty::new())
            .map_err(EngineError::Question)?;
        let answer = send(self.connect().await?, request, ASKED).await?;
        let status = answer.response.status();
        Ok((status, answer.whole(ANSWER).await?))
    }

    async fn connect(&self) -> Result<UnixStream, EngineError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(EngineError::Connect)?;
        let peer = stream.peer_cred().map_err(EngineError::Connect)?;
        if peer.uid() != 0 {
            return Err(EngineError::NotRoots);
        }
        Ok(stream)
    }
}

fn base(method: Method, path: &str) -> Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "docker")
}

fn refused(status: StatusCode, body: &[u8]) -> EngineError {
    let said: Said = serde_json::from_slice(body).unwrap_or_default();
    EngineError::Refused {
        status,
        message: shown(&said.message),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_daemon_says_is_shown_without_effect() {
        let said = json!({ "message": format!("\u{1b}{}", "x".repeat(600)) });
        let error = refused(StatusCode::CONFLICT, said.to_string().as_bytes()).to_string();
        assert!(error.contains(r"\u{1b}x"), "{error}");
        assert!(error.len() < 550, "{error}");
    }

    #[test]
    fn a_daemon_whose_containers_are_elsewhere_is_refused() {
        let info = |driver: &str, version: &str, options: &[&str]| Info {
            cgroup_driver: driver.to_owned(),
            cgroup_version: version.to_owned(),
            security_options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        let seccomp = "name=seccomp,profile=default";
        info("cgroupfs", "2", &[seccomp]).fits().unwrap();
        for other in [
            info("cgroupfs", "1", &[seccomp]),
            info("systemd", "2", &[seccomp]),
            info("none", "2", &[seccomp]),
            info("cgroupfs", "2", &[]),
            info("cgroupfs", "2", &[seccomp, "name=rootless"]),
            info("cgroupfs", "2", &[seccomp, "name=userns"]),
        ] {
            assert!(other.fits().is_err(), "{other:?}");
        }
    }
}

//! One HTTP request on a connection of its own.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Time without a byte.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// The most of what others said that an error shows, in characters.
const SHOWN: usize = 500;

/// The beginning of what others said, as an error shows it.
pub(super) fn shown(said: &str) -> String {
    said.chars()
        .flat_map(char::escape_debug)
        .take(SHOWN)
        .collect()
}

/// Why there is no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// HTTP failed.
    #[error("speaking HTTP")]
    Http(#[source] hyper::Error),
    /// Nothing came for too long.
    #[error("nothing came for {} s", PATIENCE.as_secs())]
    Silent,
    /// More came than can be.
    #[error("the answer is longer than {0} bytes")]
    Long(usize),
}

/// An answer whose connection lasts as long as it.
pub(super) struct Answer {
    /// The head, and the body that is still to come.
    pub(super) response: Response<Incoming>,
    connection: JoinHandle<()>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.response.status())
            .finish_non_exhaustive()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Sends a request. `limit` bounds the time to the answer's head.
pub(super) async fn send<S, B>(
    stream: S,
    request: Request<B>,
    limit: Duration,
) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(HttpError::Http)?;
    let connection: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended early");
        }
    });
    let connection = tokio::spawn(connection);
    let answered = timeout(limit, sender.send_request(request)).await;
    match answered {
        Ok(Ok(response)) => Ok(Answer {
            response,
            connection,
        }),
        failed => {
            connection.abort();
            Err(match failed {
                Ok(Err(error)) => HttpError::Http(error),
                Ok(Ok(_)) | Err(_) => HttpError::Silent,
            })
        }
    }
}

impl Answer {
    /// The next bytes of the body; none at its end.
    pub(super) async fn data(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let frame = timeout(PATIENCE, self.response.body_mut().frame())
                .await
                .map_err(|_late| HttpError::Silent)?;
            match frame.transpose().map_err(HttpError::Http)? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, of at most `most` bytes.
    pub(super) async fn whole(mut self, most: usize) -> Result<Vec<u8>, HttpError> {
        let mut all = Vec::new();
        while let Some(data) = self.data().await? {
            if all.len().saturating_add(data.len()) > most {
                return Err(HttpError::Long(most));
            }
            all.extend_from_slice(&data);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::{SHOWN, shown};

    #[test]
    fn what_others_said_is_shown_without_effect_and_in_part() {
        assert_eq!(shown("no \u{1b}[2Jsuch\nimage"), r"no \u{1b}[2Jsuch\nimage");
        assert_eq!(shown(&"\n".repeat(SHOWN)).len(), SHOWN);
    }
}
